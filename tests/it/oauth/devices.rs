//! Devices without a browser (platform-api.md 6, RFC 8628).

use chrono::TimeDelta;
use cp_tests::{Answer, Page, RelyingParty, Visitor};
use futures::future::join_all;
use serde_json::{Value, json};

use super::{DEVICE, DEVICE_GRANT, command_line};
use crate::stage::{TOKEN, Tokens, installation, refused};

async fn poll(by: &RelyingParty, device: &Value) -> Answer {
    by.post(
        TOKEN,
        &json!({"grant_type": DEVICE_GRANT, "device_code": device["device_code"], "client_id": by.client_id}),
    )
    .await
}

/// Types the code on the page and answers.
async fn answer_device(visitor: &Visitor, user_code: &str, button: &str) -> Page {
    let page = visitor.open("/device").await;
    let page = visitor
        .submit(&page, "/device", &[("user_code", user_code)])
        .await;
    visitor.press(&page, "/device/decision", button, &[]).await
}

#[tokio::test]
async fn a_device_signs_in() {
    // platform-api.md 6, RFC 8628.
    let (app, clock) = installation().await;
    let ada = app.person("Ada").await;
    let cli = command_line(&app).await;
    let device = cli.start_device().await;
    assert_eq!(device["expires_in"], 900);
    assert_eq!(device["interval"], 5);
    assert_eq!(
        device["verification_uri"],
        format!("{}/device", app.base_url)
    );
    let user_code = device["user_code"].as_str().unwrap();
    let (left, right) = user_code.split_once('-').unwrap();
    for half in [left, right] {
        assert_eq!(half.len(), 4);
        assert!(
            half.bytes().all(|b| b"BCDFGHJKLMNPQRSTVWXZ".contains(&b)),
            "{user_code}"
        );
    }
    let complete = device["verification_uri_complete"].as_str().unwrap();
    assert!(complete.contains(user_code), "{complete}");
    clock.advance(TimeDelta::seconds(5));
    refused(poll(&cli, &device).await, 400, "authorization_pending");

    // The page is opened with the code in it, by somebody who has to sign in first.
    let visitor = app.visitor();
    let page = visitor.open(complete).await;
    assert_eq!(page.url.path(), "/login");
    let to = [("email", ada.email.as_str()), ("password", &ada.password)];
    let page = visitor.submit(&page, "/login", &to).await;
    assert_eq!(page.url.path(), "/device", "{}", page.url);
    let page = visitor.submit(&page, "/device", &[]).await;
    page.expect_text("InsForge CLI");
    page.expect_text(user_code);
    let page = visitor.press(&page, "/device/decision", "Allow", &[]).await;
    assert_eq!(page.status, 200);

    clock.advance(TimeDelta::seconds(5));
    let body = poll(&cli, &device).await.expect(200);
    assert_eq!(body["scope"], cli.scope);
    let tokens = Tokens::of(&body);
    cli.profile(&tokens.access).await.expect(200);
    cli.refresh(&tokens.refresh).await.expect(200);
}

#[tokio::test]
async fn a_device_that_polls_too_often_is_told_to_slow_down() {
    // RFC 8628 section 3.5: five seconds more, for good; never a 429.
    let (app, clock) = installation().await;
    let ada = app.person("Ada").await;
    let cli = command_line(&app).await;
    let device = cli.start_device().await;
    refused(poll(&cli, &device).await, 400, "authorization_pending");
    clock.advance(TimeDelta::seconds(2));
    refused(poll(&cli, &device).await, 400, "slow_down");
    clock.advance(TimeDelta::seconds(6));
    refused(poll(&cli, &device).await, 400, "slow_down");
    clock.advance(TimeDelta::seconds(30));
    refused(poll(&cli, &device).await, 400, "authorization_pending");
    for _ in 0..80 {
        let answer = poll(&cli, &device).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert_eq!(answer.body["error"], "slow_down");
    }
    answer_device(&ada.visitor, device["user_code"].as_str().unwrap(), "Allow").await;
    clock.advance(TimeDelta::minutes(10));
    poll(&cli, &device).await.expect(200);
}

#[tokio::test]
async fn a_device_that_was_denied_is_told_so() {
    let (app, clock) = installation().await;
    let ada = app.person("Ada").await;
    let cli = command_line(&app).await;
    let device = cli.start_device().await;
    answer_device(
        &ada.visitor,
        device["user_code"].as_str().unwrap(),
        "Do not allow",
    )
    .await;
    for _ in 0..2 {
        clock.advance(TimeDelta::seconds(6));
        let body = refused(poll(&cli, &device).await, 400, "access_denied");
        // The client drops the code when it reads this word (platform-api.md 3.2).
        let text = body["error_description"].as_str().unwrap().to_lowercase();
        assert!(text.contains("denied"), "{text}");
    }
}

#[tokio::test]
async fn an_approval_waits_for_a_device_that_comes_back_later() {
    // platform-api.md 6.2, "Resuming".
    let (app, clock) = installation().await;
    let ada = app.person("Ada").await;
    let cli = command_line(&app).await;
    let device = cli.start_device().await;
    answer_device(&ada.visitor, device["user_code"].as_str().unwrap(), "Allow").await;
    clock.advance(TimeDelta::minutes(14));
    poll(&cli, &device).await.expect(200);
    let late = cli.start_device().await;
    answer_device(&ada.visitor, late["user_code"].as_str().unwrap(), "Allow").await;
    clock.advance(TimeDelta::minutes(15) + TimeDelta::seconds(1));
    refused(poll(&cli, &late).await, 400, "expired_token");
}

#[tokio::test]
async fn dead_device_codes_are_expired_tokens() {
    // platform-api.md 6.2: with `invalid_grant` the client would poll a dead code for ever.
    let (app, clock) = installation().await;
    let ada = app.person("Ada").await;
    let cli = command_line(&app).await;
    for device_code in ["idc_unknown", "nonsense"] {
        refused(
            poll(&cli, &json!({"device_code": device_code})).await,
            400,
            "expired_token",
        );
    }
    let old = cli.start_device().await;
    clock.advance(TimeDelta::minutes(16));
    refused(poll(&cli, &old).await, 400, "expired_token");
    let page = ada.visitor.open("/device").await;
    let page = ada
        .visitor
        .submit(
            &page,
            "/device",
            &[("user_code", old["user_code"].as_str().unwrap())],
        )
        .await;
    assert_eq!(page.status, 400);
    let device = cli.start_device().await;
    answer_device(&ada.visitor, device["user_code"].as_str().unwrap(), "Allow").await;
    poll(&cli, &device).await.expect(200);
    refused(poll(&cli, &device).await, 400, "expired_token");
}

#[tokio::test]
async fn a_user_code_is_read_as_people_type_it() {
    // RFC 8628 section 6.1.
    let (app, clock) = installation().await;
    let ada = app.person("Ada").await;
    let cli = command_line(&app).await;
    for spell in [
        str::to_lowercase,
        |code: &str| code.replace('-', ""),
        |code: &str| format!(" {} ", code.replace('-', " ")),
    ] {
        let device = cli.start_device().await;
        let typed = spell(device["user_code"].as_str().unwrap());
        answer_device(&ada.visitor, &typed, "Allow").await;
        poll(&cli, &device).await.expect(200);
        clock.advance(TimeDelta::minutes(1));
    }
}

#[tokio::test]
async fn many_polls_at_once_get_one_sign_in() {
    let (app, clock) = installation().await;
    let ada = app.person("Ada").await;
    let cli = app.public_relying_party().await;
    let device = cli.start_device().await;
    answer_device(&ada.visitor, device["user_code"].as_str().unwrap(), "Allow").await;
    clock.advance(TimeDelta::seconds(10));
    let answers = join_all((0..30).map(|_| poll(&cli, &device))).await;
    let won = answers.iter().filter(|a| a.status == 200).count();
    assert_eq!(won, 1);
    for answer in answers.into_iter().filter(|a| a.status != 200) {
        assert_eq!(answer.status, 400, "{}", answer.text);
        let error = answer.body["error"].as_str().unwrap();
        assert!(["expired_token", "slow_down"].contains(&error), "{error}");
    }
    assert_eq!(app.database.count("oauth_grants").await, 1);
}

#[tokio::test]
async fn a_device_request_names_its_scopes() {
    let (app, _) = installation().await;
    let cli = command_line(&app).await;
    for scope in [json!("everything"), json!(""), Value::Null] {
        let answer = cli
            .post(DEVICE, &json!({"client_id": cli.client_id, "scope": scope}))
            .await;
        refused(answer, 400, "invalid_scope");
    }
    refused(
        cli.post(DEVICE, &json!({"scope": "user:read"})).await,
        400,
        "invalid_request",
    );
    refused(
        cli.post(
            DEVICE,
            &json!({"client_id": "clf_nobody", "scope": "user:read"}),
        )
        .await,
        401,
        "invalid_client",
    );
}
