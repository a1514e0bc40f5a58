//! Signing in with a password, forgetting and changing it.

use cp_tests::{Answer, PASSWORD, fields};
use serde_json::json;

use super::GOOD;
use crate::stage::{Stage, get_profile, installation, is_signed_in, json_call, json_login};

#[tokio::test]
async fn a_forgotten_password_is_replaced_by_the_mailed_link() {
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    let visitor = app.visitor();
    let page = visitor.forget_password("ADA@example.com").await;
    assert_eq!(page.status, 200);
    let mail = app.newest_mail(&ada.email).await;
    let weak = visitor.reset_password(&mail.link(), "short").await;
    assert_eq!(weak.status, 400, "and the link is still good");
    let page = visitor
        .submit(&weak, "/reset-password", &[("password", GOOD)])
        .await;
    assert_eq!(page.url.path(), "/login", "{}", page.html);
    json_login(&app, &ada.email, &ada.password)
        .await
        .expect(401);
    json_login(&app, &ada.email, GOOD).await.expect(200);
    let told = app.newest_mail(&ada.email).await;
    assert!(told.subject.contains("changed"), "{}", told.subject);
}

#[tokio::test]
async fn a_password_is_changed_in_settings() {
    let (app, _) = installation().await;
    let ada = app.person("Ada").await;
    let page = ada.visitor.open("/settings").await;
    let fields = [
        ("current_password", ada.password.as_str()),
        ("new_password", GOOD),
    ];
    let page = ada
        .visitor
        .submit(&page, "/settings/password", &fields)
        .await;
    assert!(page.status < 400, "{}", page.html);
    assert!(is_signed_in(&ada.visitor).await, "here one stays signed in");
    json_login(&app, &ada.email, GOOD).await.expect(200);
    let page = ada.visitor.open("/settings").await;
    let none = [
        ("current_password", ""),
        ("new_password", "another good one"),
    ];
    let page = ada.visitor.submit(&page, "/settings/password", &none).await;
    assert_eq!(page.status, 400);
    json_login(&app, &ada.email, GOOD).await.expect(200);
}

#[tokio::test]
async fn many_logins_at_once_leave_room_for_others() {
    // The hashes wait on threads of their own (issue 3, Speed); a rough bound for a busy machine.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let app = &stage.app;
    let logins = futures::future::join_all((0..60).map(|number| async move {
        json_login(
            app,
            &format!("person{number}@example.com"),
            "wrong password",
        )
        .await
        .status
    }));
    let profiles = async {
        let mut times = Vec::new();
        for _ in 0..40 {
            let started = std::time::Instant::now();
            get_profile(app, &tokens.access).await.expect(200);
            times.push(started.elapsed());
        }
        times.sort();
        times[times.len() / 2]
    };
    let (statuses, median) = tokio::join!(logins, profiles);
    assert!(statuses.iter().all(|status| *status == 401), "{statuses:?}");
    assert!(median.as_millis() < 400, "{median:?}");
}

#[tokio::test]
async fn logging_in_needs_a_body_of_two_texts() {
    // platform-api.md 3.2 and 4.2.
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    assert_eq!(ada.password, PASSWORD);
    for body in [
        json!({}),
        json!({"email": ada.email}),
        json!({"password": "x"}),
        json!({"email": 1, "password": 2}),
        json!([]),
    ] {
        let answer = json_call(&app, "/auth/v1/login", &body).await;
        let body = answer.expect(400);
        assert_eq!(fields(&body), ["code", "error", "requestId"]);
    }
    let answer = json_login(&app, " ADA@Example.com ", &ada.password).await;
    answer.expect(200);
    let answer = json_login(&app, &ada.email, "wrong password").await;
    let text = answer.body["error"].as_str().unwrap().to_lowercase();
    assert!(
        !text.contains("cancelled") && !text.contains("not found"),
        "{text}"
    );
    answer.expect_code(401, "unauthorized");
    let none = Answer::to(app.http.post(format!("{}/auth/v1/login", app.base_url))).await;
    assert_eq!(none.status, 400, "{}", none.text);
}
