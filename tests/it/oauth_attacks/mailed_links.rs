//! Links in mails: opened by programs, used twice or for something else, or mailed to somebody else.

use chrono::TimeDelta;
use cp_tests::Answer;
use serde_json::json;

use super::{MALLORYS, squat};
use crate::stage::{installation, json_call, json_login};

#[tokio::test]
async fn programs_that_open_every_link_change_nothing() {
    // RFC 9110 section 9.2.1: mail scanners fetch links, with GET, HEAD, and more than once.
    let (app, _) = installation().await;
    squat(&app).await;
    let verify = app.newest_mail("ada@example.com").await.link();
    let visitor = app.visitor();
    visitor.forget_password("ada@example.com").await;
    let reset = app.newest_mail("ada@example.com").await.link();
    for link in [&verify, &reset] {
        for _ in 0..3 {
            let answer = Answer::to(crate::stage::wire().get(link)).await;
            assert_eq!(answer.status, 200, "{link}");
            assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
            let answer = Answer::to(crate::stage::wire().head(link)).await;
            assert_eq!(answer.status, 200, "{link}");
        }
    }
    json_login(&app, "ada@example.com", MALLORYS)
        .await
        .expect_code(403, "email_not_verified");
    let ada = app.visitor();
    ada.reset_password(&reset, "adas own and good").await;
    json_login(&app, "ada@example.com", "adas own and good")
        .await
        .expect(200);
}

#[tokio::test]
async fn a_link_is_good_once_and_for_an_hour() {
    // RFC 6819 section 5.1.5.4 and OWASP Forgot Password.
    let (app, clock) = installation().await;
    let ada = app.stranger("Ada").await;
    let ask = async || {
        let visitor = app.visitor();
        visitor.forget_password(&ada.email).await;
        app.newest_mail(&ada.email).await.link()
    };
    let visitor = app.visitor();
    let link = ask().await;
    let earlier = ask().await;
    let first = visitor.open(&link).await;
    let page = visitor
        .submit(
            &first,
            "/reset-password",
            &[("password", "the first new one")],
        )
        .await;
    assert_eq!(page.status, 200);
    // Neither again, nor what was mailed before.
    let fresh = visitor.open("/login").await;
    let token = fresh.csrf_token("/login");
    for link in [&link, &earlier] {
        assert_eq!(visitor.open(link).await.status, 400, "{link}");
        let secret = link.split("token=").nth(1).unwrap();
        let fields = [
            ("csrf_token", token.as_str()),
            ("token", secret),
            ("password", "the second new one"),
        ];
        let page = visitor.post("/reset-password", &fields).await;
        assert_eq!(page.status, 400, "{}", page.html);
    }
    json_login(&app, &ada.email, "the first new one")
        .await
        .expect(200);
    clock.advance(TimeDelta::minutes(16));
    let link = ask().await;
    clock.advance(TimeDelta::minutes(58));
    assert_eq!(visitor.open(&link).await.status, 200);
    clock.advance(TimeDelta::minutes(3));
    assert_eq!(visitor.open(&link).await.status, 400);
}

#[tokio::test]
async fn a_link_serves_one_purpose() {
    // RFC 8725 section 3.11 in the small: a verification link sets no password, and the reverse.
    let (app, _) = installation().await;
    squat(&app).await;
    let verify = app.newest_mail("ada@example.com").await.link();
    let visitor = app.visitor();
    visitor.forget_password("ada@example.com").await;
    let reset = app.newest_mail("ada@example.com").await.link();
    let secret = |link: &str| link.split("token=").nth(1).unwrap().to_owned();
    let token = visitor.open("/login").await.csrf_token("/login");
    let (verify, reset) = (secret(&verify), secret(&reset));
    let fields = [
        ("csrf_token", token.as_str()),
        ("token", &verify),
        ("password", "the second new one"),
    ];
    assert_eq!(visitor.post("/reset-password", &fields).await.status, 400);
    let fields = [("csrf_token", token.as_str()), ("token", reset.as_str())];
    assert_eq!(
        visitor.post("/verify-email/link", &fields).await.status,
        400
    );
    json_login(&app, "ada@example.com", MALLORYS)
        .await
        .expect_code(403, "email_not_verified");
}

#[tokio::test]
async fn the_host_of_a_request_is_not_the_host_of_a_link() {
    // OWASP Forgot Password: host header injection; RFC 9700 section 4.13 on reverse proxies.
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    let visitor = app.visitor();
    let token = visitor
        .open("/forgot-password")
        .await
        .csrf_token("/forgot-password");
    for (name, value) in [
        ("host", "evil.example"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-server", "evil.example"),
        ("x-original-host", "evil.example"),
        ("forwarded", "host=evil.example;proto=https"),
        ("x-forwarded-proto", "gopher"),
    ] {
        let answer = crate::stage::send_form(
            &app.base_url,
            "/forgot-password",
            &visitor.cookies(),
            &[(name, value)],
            &[("csrf_token", &token), ("email", &ada.email)],
        )
        .await;
        assert!(!answer.text.contains("evil.example"), "{name}");
        let mails = app.mails().await;
        // After the fifth the throttle holds them back.
        for mail in mails {
            assert!(!mail.text.contains("evil"), "{name}: {}", mail.text);
            assert!(mail.link().starts_with(&app.base_url), "{}", mail.link());
        }
    }
    let metadata = Answer::to(
        app.http
            .get(format!(
                "{}/.well-known/oauth-authorization-server",
                app.base_url
            ))
            .header("x-forwarded-host", "evil.example")
            .header("host", "evil.example"),
    )
    .await;
    assert!(!metadata.text.contains("evil.example"), "{}", metadata.text);
}

#[tokio::test]
async fn a_mail_goes_to_one_address() {
    // CWE-93: line breaks and lists in an address; OWASP Forgot Password.
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    app.mails().await;
    for email in [
        "ada@example.com\r\nBcc: evil@example.com",
        "ada@example.com\nevil@example.com",
        "ada@example.com,evil@example.com",
        "ada@example.com;evil@example.com",
        "ada@example.com evil@example.com",
        "ada@example.com%0aBcc:evil@example.com",
        "<ada@example.com>",
        "\"Evil\" <evil@example.com>",
        "ada@example.com\0",
    ] {
        let visitor = app.visitor();
        visitor.forget_password(email).await;
        let body = json!({"name": "Eve", "email": email, "password": "a long and new one"});
        json_call(&app, "/auth/v1/signup", &body).await.expect(400);
    }
    for mail in app.mails().await {
        assert_eq!(mail.to, ada.email);
    }
    let body = json!({"name": "Eve\r\nBcc: evil@example.com", "email": "eve@example.com", "password": "a long and new one"});
    let answer = json_call(&app, "/auth/v1/signup", &body).await;
    if answer.status == 201 {
        for mail in app.mails().await {
            assert!(!mail.subject.contains(['\r', '\n']), "{}", mail.subject);
        }
    } else {
        answer.expect(400);
    }
}
