//! Browser sessions: planted, kept too long, or not ended.

use chrono::TimeDelta;
use cp_model::CLI_CLIENT_ID;
use cp_tests::{Answer, App, Page, Visitor};
use serde_json::json;

use crate::stage::{
    SESSION, Stage, Tokens, get_profile, installation, is_signed_in, json_call, json_login,
    refresh_cookie, refused,
};

#[tokio::test]
async fn the_cookie_is_another_one_after_signing_in() {
    // RFC 6819 section 4.4.1.14 and OWASP: session fixation.
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    ada.visitor.open("/login").await;
    let before = ada.visitor.cookie(SESSION).expect("a visitor's cookie");
    ada.log_in().await;
    let after = ada.visitor.cookie(SESSION).unwrap();
    assert_ne!(before, after);
    assert!(is_signed_in(&ada.visitor).await);
    // Who planted the first one has nothing.
    let planter = app.visitor();
    planter.set_cookie(SESSION, &before);
    assert!(!is_signed_in(&planter).await);
}

#[tokio::test]
async fn a_planted_cookie_never_becomes_a_session() {
    // Session fixation, with texts that look like ours.
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    for planted in ["ibs_planted", "x", &"a".repeat(400)] {
        let visitor = app.visitor();
        visitor.set_cookie(SESSION, planted);
        visitor.log_in(&ada.email, &ada.password).await;
        assert!(is_signed_in(&visitor).await);
        assert_ne!(visitor.cookie(SESSION).as_deref(), Some(planted));
        let planter = app.visitor();
        planter.set_cookie(SESSION, planted);
        assert!(!is_signed_in(&planter).await);
    }
}

#[tokio::test]
async fn signing_in_again_ends_what_the_browser_had() {
    // Session fixation by an attacker's own, valid session.
    let (app, _) = installation().await;
    let mallory = app.person("Mallory").await;
    let ada = app.stranger("Ada").await;
    let planted = mallory.visitor.cookie(SESSION).unwrap();
    let victim = app.visitor();
    victim.set_cookie(SESSION, &planted);
    let page = victim.open("/login?again=yes").await;
    let to = [("email", ada.email.as_str()), ("password", &ada.password)];
    victim.submit(&page, "/login", &to).await;
    assert_ne!(victim.cookie(SESSION), Some(planted.clone()));
    let page = victim.open("/settings").await;
    page.expect_text(&ada.email);
    let page = mallory.visitor.open("/settings").await;
    assert!(!page.text().contains(&ada.email));
}

#[tokio::test]
async fn the_cookie_is_another_one_after_each_way_of_signing_in() {
    // Session fixation: by a mailed code as well.
    let (app, _) = installation().await;
    let visitor = app.visitor();
    let page = visitor.open("/signup").await;
    let before = visitor.cookie(SESSION).unwrap();
    let to = [
        ("name", "Eve"),
        ("email", "eve@example.com"),
        ("password", "a long and new one"),
    ];
    let page = visitor.submit(&page, "/signup", &to).await;
    let code = app.newest_mail("eve@example.com").await.code();
    visitor
        .submit(&page, "/verify-email", &[("code", &code)])
        .await;
    assert!(is_signed_in(&visitor).await);
    assert_ne!(visitor.cookie(SESSION), Some(before));
}

#[tokio::test]
async fn signing_out_kills_the_session_and_not_only_the_cookie() {
    // OWASP Session Management: on the server.
    let (app, _) = installation().await;
    let ada = app.person("Ada").await;
    let cookie = ada.visitor.cookie(SESSION).unwrap();
    let page = ada.visitor.open("/logout").await;
    ada.visitor.submit(&page, "/logout", &[]).await;
    assert!(!is_signed_in(&ada.visitor).await);
    let thief = app.visitor();
    thief.set_cookie(SESSION, &cookie);
    assert!(!is_signed_in(&thief).await);
}

#[tokio::test]
async fn a_session_ends_when_nobody_uses_it_and_when_it_is_old() {
    // RFC 6819 section 5.1.5.3: 30 days idle, 90 days in all.
    let (app, clock) = installation().await;
    let idle = app.person("Ada").await;
    let busy = app.person("Bob").await;
    for day in (20..=80).step_by(20) {
        clock.advance(TimeDelta::days(20));
        assert!(is_signed_in(&busy.visitor).await, "day {day}");
    }
    assert!(!is_signed_in(&idle.visitor).await);
    clock.advance(TimeDelta::days(11));
    assert!(!is_signed_in(&busy.visitor).await, "day 91");
}

#[tokio::test]
async fn a_session_lasts_over_a_month_of_use() {
    // The other side of it: nobody is thrown out before.
    let (app, clock) = installation().await;
    let ada = app.person("Ada").await;
    clock.advance(TimeDelta::days(29));
    assert!(is_signed_in(&ada.visitor).await);
    clock.advance(TimeDelta::days(29));
    assert!(is_signed_in(&ada.visitor).await);
    clock.advance(TimeDelta::days(31));
    assert!(!is_signed_in(&ada.visitor).await);
}

async fn reset(app: &App, email: &str, password: &str) -> (Visitor, Page) {
    let visitor = app.visitor();
    visitor.forget_password(email).await;
    let link = app.newest_mail(email).await.link();
    let page = visitor.reset_password(&link, password).await;
    (visitor, page)
}

#[tokio::test]
async fn a_password_reset_throws_everybody_out() {
    // RFC 6819 section 5.2.2.4 (revocation) and OWASP Forgot Password: whoever got in is out.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let login = json_login(&stage.app, &stage.ada.email, &stage.ada.password).await;
    let cli_refresh = refresh_cookie(&login).unwrap();
    let cli_access = login.expect(200)["token"].as_str().unwrap().to_owned();
    let page = stage.ada.visitor.open("/settings").await;
    let page = stage
        .ada
        .visitor
        .submit(&page, "/settings/api-keys", &[("key_name", "laptop")])
        .await;
    let key = key_in(&page);
    for bearer in [&tokens.access, &cli_access, &key] {
        get_profile(&stage.app, bearer).await.expect(200);
    }
    let (_, page) = reset(&stage.app, &stage.ada.email, "another good one").await;
    assert_eq!(page.status, 200, "{}", page.html);
    assert!(!is_signed_in(&stage.ada.visitor).await);
    for bearer in [&tokens.access, &cli_access, &key] {
        get_profile(&stage.app, bearer).await.expect(401);
    }
    refused(
        stage.notes.refresh(&tokens.refresh).await,
        400,
        "invalid_grant",
    );
    refused(
        super::refresh_as_cli(&stage.app, &cli_refresh).await,
        400,
        "invalid_grant",
    );
    json_login(&stage.app, &stage.ada.email, &stage.ada.password)
        .await
        .expect(401);
    json_login(&stage.app, &stage.ada.email, "another good one")
        .await
        .expect(200);
    let actions = crate::stage::audited(&stage.app).await;
    assert!(
        actions.iter().any(|a| a == "user.password_reset"),
        "{actions:?}"
    );
}

/// The API key that the page shows this once.
fn key_in(page: &Page) -> String {
    let start = page
        .html
        .find("uak_")
        .unwrap_or_else(|| panic!("no key: {}", page.html));
    page.html[start..]
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect()
}

#[tokio::test]
async fn a_changed_password_ends_the_other_browsers() {
    // OWASP Session Management: renewal after a change of privilege.
    let (app, _) = installation().await;
    let ada = app.person("Ada").await;
    let other = app.visitor();
    other.log_in(&ada.email, &ada.password).await;
    assert!(is_signed_in(&other).await);
    let page = ada.visitor.open("/settings").await;
    let wrong = [
        ("current_password", "not this one"),
        ("new_password", "another good one"),
    ];
    let refused = ada
        .visitor
        .submit(&page, "/settings/password", &wrong)
        .await;
    assert_eq!(refused.status, 400, "{}", refused.html);
    let right = [
        ("current_password", ada.password.as_str()),
        ("new_password", "another good one"),
    ];
    ada.visitor
        .submit(&page, "/settings/password", &right)
        .await;
    assert!(!is_signed_in(&other).await);
    json_login(&app, &ada.email, &ada.password)
        .await
        .expect(401);
    json_login(&app, &ada.email, "another good one")
        .await
        .expect(200);
}

#[tokio::test]
async fn a_changed_password_ends_what_began_with_the_former_one() {
    // RFC 6819 section 5.2.2.4: whoever knew it is out; applications that she allowed go on.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let login = json_login(&stage.app, &stage.ada.email, &stage.ada.password).await;
    let cookie = refresh_cookie(&login).unwrap();
    let access = login.expect(200)["token"].as_str().unwrap().to_owned();
    let page = stage.ada.visitor.open("/settings").await;
    let fields = [
        ("current_password", stage.ada.password.as_str()),
        ("new_password", "another good one"),
    ];
    stage
        .ada
        .visitor
        .submit(&page, "/settings/password", &fields)
        .await;
    get_profile(&stage.app, &access).await.expect(401);
    let answer = super::refresh_as_cli(&stage.app, &cookie).await;
    refused(answer, 400, "invalid_grant");
    get_profile(&stage.app, &tokens.access).await.expect(200);
}

#[tokio::test]
async fn a_device_approved_before_a_password_reset_is_not_signed_in() {
    // RFC 8628 section 5.4, RFC 6819 section 5.2.2.4: what was on its way comes to nothing.
    let stage = Stage::new().await;
    let device = stage.notes.start_device().await;
    let visitor = &stage.ada.visitor;
    let page = visitor.open("/device").await;
    let user_code = device["user_code"].as_str().unwrap();
    let page = visitor
        .submit(&page, "/device", &[("user_code", user_code)])
        .await;
    visitor.press(&page, "/device/decision", "Allow", &[]).await;
    reset(&stage.app, &stage.ada.email, "another good one").await;
    let poll = json!({
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": device["device_code"],
    });
    refused(stage.notes.token(poll).await, 400, "access_denied");
    assert_eq!(stage.app.database.count("oauth_grants").await, 0);
}

#[tokio::test]
async fn the_current_password_cannot_be_guessed_in_settings() {
    // RFC 6819 section 4.4.3.6: a borrowed browser is no way around the throttle.
    let (app, _) = installation().await;
    let ada = app.person("Ada").await;
    let page = ada.visitor.open("/settings").await;
    let mut statuses = Vec::new();
    for number in 0..14 {
        let guess = format!("wrong {number}");
        let fields = [
            ("current_password", guess.as_str()),
            ("new_password", "another good one"),
        ];
        statuses.push(
            ada.visitor
                .submit(&page, "/settings/password", &fields)
                .await
                .status,
        );
    }
    assert!(statuses.contains(&400), "{statuses:?}");
    assert_eq!(statuses[13], 429, "{statuses:?}");
}

#[tokio::test]
async fn logging_out_by_json_ends_the_tokens() {
    // RFC 7009 section 1: the cookie's family.
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    let login = json_login(&app, &ada.email, &ada.password).await;
    let cookie = refresh_cookie(&login).unwrap();
    let access = login.expect(200)["token"].as_str().unwrap().to_owned();
    get_profile(&app, &access).await.expect(200);
    let answer = Answer::to(
        app.http
            .post(format!("{}/auth/v1/logout", app.base_url))
            .header("cookie", format!("refreshToken={cookie}")),
    )
    .await;
    assert!(answer.header("set-cookie").unwrap().contains("Max-Age=0"));
    answer.expect(200);
    get_profile(&app, &access).await.expect(401);
    json_call(&app, "/auth/v1/logout", &json!({}))
        .await
        .expect(200);
}

#[tokio::test]
async fn logging_out_works_while_the_command_line_client_is_disabled() {
    // RFC 7009 section 1: who leaves in that time stays out when it is enabled again.
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    let login = json_login(&app, &ada.email, &ada.password).await;
    let cookie = refresh_cookie(&login).unwrap();
    let access = login.expect(200)["token"].as_str().unwrap().to_owned();
    let with_cookie = async |path: &str| {
        let request = app.http.post(format!("{}{path}", app.base_url));
        Answer::to(request.header("cookie", format!("refreshToken={cookie}"))).await
    };
    let cp = &app.control_plane;
    let cli = CLI_CLIENT_ID.parse().unwrap();
    cp.disable_oauth_client(&cli, true).await.unwrap();
    let answer = with_cookie("/auth/v1/logout").await;
    assert!(answer.header("set-cookie").unwrap().contains("Max-Age=0"));
    answer.expect(200);
    cp.disable_oauth_client(&cli, false).await.unwrap();
    json_login(&app, &ada.email, &ada.password)
        .await
        .expect(200);
    with_cookie("/auth/v1/refresh").await.expect(401);
    get_profile(&app, &access).await.expect(401);
}

#[tokio::test]
async fn one_person_cannot_end_anothers_session_or_key() {
    // design.md, invariant 7: another person's things are missing, not forbidden.
    let stage = Stage::new().await;
    let bob = stage.app.person("Bob").await;
    let page = stage.ada.visitor.open("/settings").await;
    stage
        .ada
        .visitor
        .submit(&page, "/settings/api-keys", &[("key_name", "laptop")])
        .await;
    let mut conn = stage.app.database.connect().await;
    let session: uuid::Uuid =
        sqlx::query_scalar("select id from browser_sessions where user_id = $1")
            .bind(stage.ada.id.0)
            .fetch_one(&mut conn)
            .await
            .unwrap();
    let key: uuid::Uuid = sqlx::query_scalar("select id from user_api_keys")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    let page = bob.visitor.open("/logout").await;
    let token = page.csrf_token("/logout");
    for (path, id) in [
        ("/settings/sessions/end", session),
        ("/settings/api-keys/revoke", key),
    ] {
        let id = id.to_string();
        let nothing = uuid::Uuid::now_v7().to_string();
        let foreign = bob
            .visitor
            .post(path, &[("csrf_token", &token), ("id", &id)])
            .await;
        let missing = bob
            .visitor
            .post(path, &[("csrf_token", &token), ("id", &nothing)])
            .await;
        assert_eq!(foreign.status, missing.status, "{path}");
        let words = |page: &Page| page.text().split("req_").next().map(str::to_owned);
        assert_eq!(words(&foreign), words(&missing), "{path}");
    }
    assert!(is_signed_in(&stage.ada.visitor).await);
    let revoked: i64 =
        sqlx::query_scalar("select count(*) from user_api_keys where revoked_at is not null")
            .fetch_one(&mut conn)
            .await
            .unwrap();
    assert_eq!(revoked, 0);
}

#[tokio::test]
async fn the_address_bar_holds_no_secret() {
    // RFC 9700 section 4.3: histories, logs and Referer; but the code, which is good once.
    let stage = Stage::new().await;
    let visitor = stage.app.visitor();
    let mut seen: Vec<String> = Vec::new();
    let mut look = |page: &Page| {
        seen.push(page.url.to_string());
        seen.extend(page.header("location").map(str::to_owned));
    };
    let page = visitor.open(&stage.notes.authorize_url()).await;
    look(&page);
    let to = [
        ("email", stage.ada.email.as_str()),
        ("password", &stage.ada.password),
    ];
    let page = visitor.submit(&page, "/login", &to).await;
    look(&page);
    let page = if page.is_elsewhere {
        page
    } else {
        visitor.press(&page, "/consent", "Allow", &[]).await
    };
    look(&page);
    let code = page.param("code").unwrap();
    let tokens = Tokens::of(&stage.notes.exchange(&code).await.expect(200));
    let page = visitor.open("/settings").await;
    let page = visitor
        .submit(&page, "/settings/api-keys", &[("key_name", "laptop")])
        .await;
    look(&page);
    let key = key_in(&page);
    let page = visitor.open("/signup?return_to=/settings").await;
    look(&page);
    let cookie = visitor.cookie(SESSION).unwrap();
    for secret in [
        &stage.ada.password,
        &cookie,
        &tokens.access,
        &tokens.refresh,
        &key,
        stage.notes.client_secret.as_ref().unwrap(),
        &stage.notes.code_verifier,
    ] {
        for url in &seen {
            assert!(!url.contains(secret.as_str()), "{url}");
            assert!(!url.contains("csrf_token"), "{url}");
        }
    }
}
