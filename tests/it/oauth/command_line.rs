//! The command-line client, in the browser and by e-mail.

use chrono::TimeDelta;
use cp_model::CLI_CLIENT_ID;
use cp_tests::{Answer, fields};
use serde_json::json;

use super::command_line;
use crate::stage::{
    Stage, TOKEN, Tokens, assert_refused_elsewhere, get_profile, installation, json_login,
    refresh_cookie, refused,
};

#[tokio::test]
async fn the_command_line_client_signs_in_in_the_browser() {
    // platform-api.md 5.
    let (app, _) = installation().await;
    let ada = app.person("Ada").await;
    let cli = command_line(&app).await;
    let page = ada.visitor.open(&cli.authorize_url()).await;
    page.expect_text("InsForge CLI");
    let page = ada.visitor.press(&page, "/consent", "Allow", &[]).await;
    assert!(
        page.url
            .as_str()
            .starts_with("http://127.0.0.1:53121/callback?"),
        "{}",
        page.url
    );
    assert_eq!(page.param("state"), Some(cli.state.clone()));
    let body = cli.exchange(&page.param("code").unwrap()).await.expect(200);
    assert_eq!(body["scope"], cli.scope);
    let tokens = Tokens::of(&body);
    let profile = cli.profile(&tokens.access).await.expect(200);
    assert_eq!(profile["user"]["email"], ada.email);
    // Parallel requests refresh with the same stored token (2.4).
    let (one, two) = tokio::join!(cli.refresh(&tokens.refresh), cli.refresh(&tokens.refresh));
    let (one, two) = (Tokens::of(&one.expect(200)), Tokens::of(&two.expect(200)));
    assert_eq!(one.refresh, two.refresh);
}

#[tokio::test]
async fn the_command_line_client_is_told_when_it_was_denied() {
    // platform-api.md 5.1 and 3.2: the description is shown; one word would be taken as silence.
    let (app, _) = installation().await;
    let ada = app.person("Ada").await;
    let cli = command_line(&app).await;
    let page = ada.visitor.open(&cli.authorize_url()).await;
    let page = ada
        .visitor
        .press(&page, "/consent", "Do not allow", &[])
        .await;
    assert_refused_elsewhere(&page, &cli, "access_denied");
}

#[tokio::test]
async fn the_command_line_client_signs_in_by_e_mail_and_password() {
    // platform-api.md 4.2 and 5.3.
    let (app, clock) = installation().await;
    let ada = app.stranger("Ada").await;
    let answer = json_login(&app, &ada.email, &ada.password).await;
    let cookie = refresh_cookie(&answer).expect("a cookie named refreshToken");
    assert!(
        cookie
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')),
        "{cookie}"
    );
    let body = answer.expect(200);
    assert_eq!(fields(&body), ["token", "user"]);
    assert_eq!(body["user"]["id"], ada.id.to_string());
    assert_eq!(body["user"]["name"], "Ada");
    let access = body["token"].as_str().unwrap();
    get_profile(&app, access).await.expect(200);
    clock.advance(TimeDelta::minutes(61));
    get_profile(&app, access).await.expect(401);
    let cli = command_line(&app).await;
    let body =
        json!({"grant_type": "refresh_token", "refresh_token": cookie, "client_id": CLI_CLIENT_ID});
    let refreshed = cli.post(TOKEN, &body).await.expect(200);
    assert_eq!(refreshed["scope"], cli.scope);
    get_profile(&app, &Tokens::of(&refreshed).access)
        .await
        .expect(200);
    // Another client's id does not fit.
    let notes = app.public_relying_party().await;
    refused(
        notes.refresh(&Tokens::of(&refreshed).refresh).await,
        400,
        "invalid_grant",
    );
}

#[tokio::test]
async fn a_page_of_ours_refreshes_with_its_cookie() {
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    let cookie = refresh_cookie(&json_login(&app, &ada.email, &ada.password).await).unwrap();
    let refresh = async |cookie: &str| {
        Answer::to(
            app.http
                .post(format!("{}/auth/v1/refresh", app.base_url))
                .header("cookie", format!("refreshToken={cookie}")),
        )
        .await
    };
    let answer = refresh(&cookie).await;
    let next = refresh_cookie(&answer).unwrap();
    assert_ne!(next, cookie);
    let body = answer.expect(200);
    assert_eq!(fields(&body), ["token", "user"]);
    get_profile(&app, body["token"].as_str().unwrap())
        .await
        .expect(200);
    assert_eq!(
        refresh_cookie(&refresh(&cookie).await),
        Some(next),
        "a lost answer"
    );
    let answer = refresh("irt_x").await;
    assert!(answer.header("set-cookie").unwrap().contains("Max-Age=0"));
    answer.expect(401);
    Answer::to(app.http.post(format!("{}/auth/v1/refresh", app.base_url)))
        .await
        .expect(401);
}

#[tokio::test]
async fn a_bad_bearer_is_401_and_never_403_or_429() {
    // platform-api.md 2.4 and 4.4: a 403 would be final, and the client would not refresh.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    stage.notes.revoke(&tokens.access).await.expect(200);
    for _ in 0..8 {
        for bearer in [
            tokens.access.as_str(),
            "uak_nonsense",
            "nonsense",
            "a.b.c",
            "",
            "irt_x",
        ] {
            let answer = get_profile(&stage.app, bearer).await;
            assert_eq!(answer.status, 401, "{bearer}: {}", answer.text);
            assert_eq!(fields(&answer.body), ["code", "error", "requestId"]);
        }
    }
    let none = Answer::to(
        stage
            .app
            .http
            .get(format!("{}/auth/v1/profile", stage.app.base_url)),
    )
    .await;
    none.expect(401);
}
