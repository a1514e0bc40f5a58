//! Accounts taken before or instead of their owner: by addresses that are not proven, and by mails.

use chrono::TimeDelta;
use cp_tests::{Answer, App, Page, Visitor};
use serde_json::json;

use crate::stage::{
    SESSION, Stage, get_profile, installation, is_signed_in, json_call, json_login, refresh_cookie,
    refused,
};

const MALLORYS: &str = "mallory knows this one";

/// Mallory makes an account with Ada's address, which she cannot prove.
async fn squat(app: &App) -> (Visitor, Page) {
    let visitor = app.visitor();
    let page = visitor.open("/signup").await;
    let to = [
        ("name", "Mallory"),
        ("email", "ada@example.com"),
        ("password", MALLORYS),
    ];
    let page = visitor.submit(&page, "/signup", &to).await;
    (visitor, page)
}

#[tokio::test]
async fn a_squatted_account_is_taken_back_when_a_partner_connects_its_owner() {
    // Account pre-hijacking (Sudhodanan and Paverd 2022, "classic-federated merge").
    let (app, _) = installation().await;
    let answer = json_call(
        &app,
        "/auth/v1/signup",
        &json!({"name": "Mallory", "email": "ada@example.com", "password": MALLORYS}),
    )
    .await;
    let refresh = refresh_cookie(&answer).unwrap();
    let access = answer.expect(201)["token"].as_str().unwrap().to_owned();
    let squatter = app.visitor();
    let page = squatter.open("/login").await;
    let to = [("email", "ada@example.com"), ("password", MALLORYS)];
    squatter.submit(&page, "/login", &to).await;
    app.mails().await;
    let partner = app.partner().await;
    partner.connect_user("Ada@example.com").await;
    json_login(&app, "ada@example.com", MALLORYS)
        .await
        .expect(401);
    get_profile(&app, &access).await.expect(401);
    assert!(!is_signed_in(&squatter).await);
    let body = json!({"grant_type": "refresh_token", "refresh_token": refresh, "client_id": cp_model::CLI_CLIENT_ID});
    refused(
        app.relying_party()
            .await
            .post(crate::stage::TOKEN, &body)
            .await,
        400,
        "invalid_grant",
    );
    // Ada signs in by a code that only she gets.
    let ada = app.visitor();
    let page = ada.open("/login").await;
    let token = csrf(&page, "/login");
    let page = ada
        .post(
            "/login/code",
            &[("csrf_token", &token), ("email", "ada@example.com")],
        )
        .await;
    let code = app.newest_mail("ada@example.com").await.code();
    ada.submit(&page, "/verify-email", &[("code", &code)]).await;
    assert!(is_signed_in(&ada).await);
    json_login(&app, "ada@example.com", MALLORYS)
        .await
        .expect(401);
}

fn csrf(page: &Page, action: &str) -> String {
    let form = page.form(action);
    let field = form.fields.iter().find(|(name, _)| name == "csrf_token");
    field.expect("a token").1.clone()
}

#[tokio::test]
async fn the_squatters_open_challenge_is_dead_after_the_owner_came() {
    // Account pre-hijacking, "unexpired identifier": the code that Mallory's browser waits for.
    let (app, _) = installation().await;
    let (squatter, waiting) = squat(&app).await;
    let code = app.newest_mail("ada@example.com").await.code();
    app.partner().await.connect_user("ada@example.com").await;
    squatter
        .submit(&waiting, "/verify-email", &[("code", &code)])
        .await;
    assert!(!is_signed_in(&squatter).await);
}

#[tokio::test]
async fn a_password_reset_by_the_owner_ends_the_squatters_session() {
    // Account pre-hijacking, "unexpired session".
    let (app, _) = installation().await;
    let (squatter, _) = squat(&app).await;
    let page = squatter.open("/login").await;
    if !page.forms().is_empty() && page.url.path() == "/login" {
        let to = [("email", "ada@example.com"), ("password", MALLORYS)];
        squatter.submit(&page, "/login", &to).await;
    }
    let login = json_login(&app, "ada@example.com", MALLORYS).await;
    login.expect_code(403, "email_not_verified");
    app.mails().await;
    let ada = app.visitor();
    let page = ada.open("/forgot-password").await;
    ada.submit(&page, "/forgot-password", &[("email", "ada@example.com")])
        .await;
    let link = app.newest_mail("ada@example.com").await.link();
    let page = ada.open(&link).await;
    ada.submit(
        &page,
        "/reset-password",
        &[("password", "adas own and good")],
    )
    .await;
    json_login(&app, "ada@example.com", MALLORYS)
        .await
        .expect(401);
    let user = json_login(&app, "ada@example.com", "adas own and good")
        .await
        .expect(200);
    assert_eq!(
        user["user"]["email_verified"], true,
        "the link proved the address"
    );
    assert_eq!(squatter.look("/settings").await.status, 303);
}

#[tokio::test]
async fn an_owner_who_signs_in_by_mail_throws_the_squatter_out() {
    // Account pre-hijacking: by code and by link; neither the password nor what came of it stays.
    for by_link in [false, true] {
        let (app, _) = installation().await;
        let answer = json_call(
            &app,
            "/auth/v1/signup",
            &json!({"name": "Mallory", "email": "ada@example.com", "password": MALLORYS}),
        )
        .await;
        let refresh = refresh_cookie(&answer).unwrap();
        let access = answer.expect(201)["token"].as_str().unwrap().to_owned();
        let squatter = app.visitor();
        let page = squatter.open("/login").await;
        let to = [("email", "ada@example.com"), ("password", MALLORYS)];
        let waiting = squatter.submit(&page, "/login", &to).await;
        app.mails().await;
        let ada = app.visitor();
        let page = ada.open("/login").await;
        let token = csrf(&page, "/login");
        let page = ada
            .post(
                "/login/code",
                &[("csrf_token", &token), ("email", "ada@example.com")],
            )
            .await;
        let mail = app.newest_mail("ada@example.com").await;
        if by_link {
            let page = ada.open(&mail.link()).await;
            ada.submit(&page, "/verify-email/link", &[]).await;
        } else {
            ada.submit(&page, "/verify-email", &[("code", &mail.code())])
                .await;
        }
        assert!(is_signed_in(&ada).await);
        json_login(&app, "ada@example.com", MALLORYS)
            .await
            .expect(401);
        get_profile(&app, &access).await.expect(401);
        assert!(!is_signed_in(&squatter).await);
        let body = json!({"grant_type": "refresh_token", "refresh_token": refresh, "client_id": cp_model::CLI_CLIENT_ID});
        let notes = app.relying_party().await;
        refused(
            notes.post(crate::stage::TOKEN, &body).await,
            400,
            "invalid_grant",
        );
        // The code that the squatter waited for is of no use either.
        squatter
            .submit(&waiting, "/verify-email", &[("code", &mail.code())])
            .await;
        assert!(!is_signed_in(&squatter).await);
    }
}

#[tokio::test]
async fn a_squatters_grant_does_not_survive_the_owners_reset() {
    // Account pre-hijacking, "unexpired session", for tokens.
    let (app, _) = installation().await;
    let body = json!({"name": "Mallory", "email": "ada@example.com", "password": MALLORYS});
    let answer = json_call(&app, "/auth/v1/signup", &body).await;
    let refresh = refresh_cookie(&answer).unwrap();
    let access = answer.expect(201)["token"].as_str().unwrap().to_owned();
    get_profile(&app, &access).await.expect(200);
    app.mails().await;
    let ada = app.visitor();
    let page = ada.open("/forgot-password").await;
    ada.submit(&page, "/forgot-password", &[("email", "ada@example.com")])
        .await;
    let link = app.newest_mail("ada@example.com").await.link();
    let page = ada.open(&link).await;
    ada.submit(
        &page,
        "/reset-password",
        &[("password", "adas own and good")],
    )
    .await;
    get_profile(&app, &access).await.expect(401);
    let body = json!({"grant_type": "refresh_token", "refresh_token": refresh, "client_id": cp_model::CLI_CLIENT_ID});
    let notes = app.relying_party().await;
    refused(
        notes.post(crate::stage::TOKEN, &body).await,
        400,
        "invalid_grant",
    );
}

#[tokio::test]
async fn a_strangers_signup_is_not_verified_by_a_careless_click() {
    // Account pre-hijacking, "trojan identifier": Ada opens the link and presses the button.
    let (app, _) = installation().await;
    squat(&app).await;
    let link = app.newest_mail("ada@example.com").await.link();
    let secret = link.split("token=").nth(1).unwrap();
    let ada = app.visitor();
    let page = ada.open(&link).await;
    page.expect_text("Sign in");
    assert!(page.forms().is_empty(), "nothing to press");
    let token = csrf(&ada.open("/login").await, "/login");
    let fields = [("csrf_token", token.as_str()), ("token", secret)];
    let page = ada.post("/verify-email/link", &fields).await;
    assert_eq!(page.status, 403, "{}", page.html);
    assert!(!is_signed_in(&ada).await);
    json_login(&app, "ada@example.com", MALLORYS)
        .await
        .expect_code(403, "email_not_verified");
    // Nor when somebody else is signed in.
    let bob = app.person("Bob").await;
    bob.visitor.open(&link).await;
    let token = csrf(&bob.visitor.open("/logout").await, "/logout");
    let fields = [("csrf_token", token.as_str()), ("token", secret)];
    let page = bob.visitor.post("/verify-email/link", &fields).await;
    assert_eq!(page.status, 403, "{}", page.html);
    json_login(&app, "ada@example.com", MALLORYS)
        .await
        .expect_code(403, "email_not_verified");
}

#[tokio::test]
async fn who_signed_up_verifies_by_the_link_when_signed_in() {
    // The other side of it.
    let (app, _) = installation().await;
    squat(&app).await;
    let link = app.newest_mail("ada@example.com").await.link();
    let visitor = app.visitor();
    let page = visitor.open("/login").await;
    let to = [("email", "ada@example.com"), ("password", MALLORYS)];
    visitor.submit(&page, "/login", &to).await;
    let page = visitor.open(&link).await;
    let page = visitor.submit(&page, "/verify-email/link", &[]).await;
    assert_eq!(page.status, 200, "{}", page.html);
    json_login(&app, "ada@example.com", MALLORYS)
        .await
        .expect(200);
}

#[tokio::test]
async fn programs_that_open_every_link_change_nothing() {
    // RFC 9110 section 9.2.1: mail scanners fetch links, with GET, HEAD, and more than once.
    let (app, _) = installation().await;
    squat(&app).await;
    let verify = app.newest_mail("ada@example.com").await.link();
    let visitor = app.visitor();
    let page = visitor.open("/forgot-password").await;
    visitor
        .submit(&page, "/forgot-password", &[("email", "ada@example.com")])
        .await;
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
    let page = ada.open(&reset).await;
    ada.submit(
        &page,
        "/reset-password",
        &[("password", "adas own and good")],
    )
    .await;
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
        let page = visitor.open("/forgot-password").await;
        visitor
            .submit(&page, "/forgot-password", &[("email", &ada.email)])
            .await;
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
    let token = csrf(&fresh, "/login");
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
    let page = visitor.open("/forgot-password").await;
    visitor
        .submit(&page, "/forgot-password", &[("email", "ada@example.com")])
        .await;
    let reset = app.newest_mail("ada@example.com").await.link();
    let secret = |link: &str| link.split("token=").nth(1).unwrap().to_owned();
    let token = csrf(&visitor.open("/login").await, "/login");
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
    let token = csrf(&visitor.open("/forgot-password").await, "/forgot-password");
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
        let page = visitor.open("/forgot-password").await;
        visitor
            .submit(&page, "/forgot-password", &[("email", email)])
            .await;
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

#[tokio::test]
async fn accounts_that_prove_nothing_can_sign_in_nowhere() {
    // RFC 9700 section 4.16 and account pre-hijacking: no code, no device, no key before the proof.
    let (app, _) = installation().await;
    let notes = app.relying_party().await;
    squat(&app).await;
    let visitor = app.visitor();
    let page = visitor.open("/login").await;
    let to = [("email", "ada@example.com"), ("password", MALLORYS)];
    visitor.submit(&page, "/login", &to).await;
    let cookie = visitor.cookie(SESSION).unwrap();
    let by = app
        .control_plane
        .browser_session(&cookie, &crate::stage::caller())
        .await
        .unwrap()
        .expect("signed in, unproven");
    assert!(!by.user.email_verified);
    let page = visitor.open(&notes.authorize_url()).await;
    assert!(!page.is_elsewhere, "{}", page.url);
    if page.forms().iter().any(|form| form.action == "/consent") {
        let page = visitor.press(&page, "/consent", "Allow", &[]).await;
        assert!(!page.is_elsewhere, "{}", page.url);
    }
    assert_eq!(app.database.count("oauth_authorization_codes").await, 0);
    let body = json!({"client_id": cp_model::CLI_CLIENT_ID, "scope": "user:read"});
    let started = notes
        .post("/api/oauth/v1/device_authorization", &body)
        .await
        .expect(200);
    let user_code = started["user_code"].as_str().unwrap();
    let token = csrf(&visitor.open("/verify-email").await, "/verify-email/resend");
    let fields = [
        ("csrf_token", token.as_str()),
        ("user_code", user_code),
        ("decision", "approve"),
    ];
    visitor.post("/device/decision", &fields).await;
    let fields = [
        ("csrf_token", token.as_str()),
        ("key_name", "laptop"),
        ("access", "everything"),
    ];
    visitor.post("/settings/api-keys", &fields).await;
    assert_eq!(app.database.count("user_api_keys").await, 0);
    let state: String = sqlx::query_scalar("select state from oauth_device_codes")
        .fetch_one(&mut app.database.connect().await)
        .await
        .unwrap();
    assert_eq!(state, "pending");
}

#[tokio::test]
async fn a_code_belongs_to_the_browser_that_asked() {
    // RFC 9700 section 4.7 in the small: a code read over a shoulder needs the challenge, too.
    let (app, _) = installation().await;
    let (one, page_of_one) = squat(&app).await;
    app.mails().await;
    let other = app.visitor();
    let page = other.open("/signup").await;
    let to = [
        ("name", "Bob"),
        ("email", "bob@example.com"),
        ("password", "bobs long and good"),
    ];
    let page_of_other = other.submit(&page, "/signup", &to).await;
    let code = app.newest_mail("bob@example.com").await.code();
    one.submit(&page_of_one, "/verify-email", &[("code", &code)])
        .await;
    assert!(!is_signed_in(&one).await);
    other
        .submit(&page_of_other, "/verify-email", &[("code", &code)])
        .await;
    assert!(is_signed_in(&other).await);
}

#[tokio::test]
async fn an_application_learns_of_proven_addresses_only() {
    // RFC 9700 section 4.16 and OpenID Connect Core section 5.7: `email_verified` is the truth.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let profile = get_profile(&stage.app, &tokens.access).await.expect(200);
    assert_eq!(profile["user"]["email_verified"], true);
    let answer = json_call(
        &stage.app,
        "/auth/v1/signup",
        &json!({"name": "Eve", "email": "eve@example.com", "password": "a long and new one"}),
    )
    .await
    .expect(201);
    let profile = get_profile(&stage.app, answer["token"].as_str().unwrap())
        .await
        .expect(200);
    assert_eq!(profile["user"]["email_verified"], false);
}

#[tokio::test]
async fn common_and_short_passwords_are_refused() {
    // NIST SP 800-63B section 5.1.1.2, contract oauth.md: at least 8, and none of the common ones.
    let (app, _) = installation().await;
    for password in [
        "",
        "short",
        "1234567",
        "password",
        "12345678",
        "PASSWORD",
        "qwertyui",
        "eve@example.com",
    ] {
        let body = json!({"name": "Eve", "email": "eve@example.com", "password": password});
        let answer = json_call(&app, "/auth/v1/signup", &body).await;
        let text = answer.text.clone();
        answer.expect(400);
        assert!(
            password.is_empty() || !text.contains(&format!("\"{password}\"")),
            "{text}"
        );
    }
    let endless = "x".repeat(5000);
    let body = json!({"name": "Eve", "email": "eve@example.com", "password": endless});
    json_call(&app, "/auth/v1/signup", &body).await.expect(400);
    // A long one of any characters is fine, as is a blank in it.
    let long = "correct horse \u{1f40e} battery staple and so on until nobody remembers it";
    let body = json!({"name": "Eve", "email": "eve@example.com", "password": long});
    json_call(&app, "/auth/v1/signup", &body).await.expect(201);
    json_login(&app, "eve@example.com", &long[..long.len() - 1])
        .await
        .expect(401);
    json_login(&app, "eve@example.com", long)
        .await
        .expect_code(403, "email_not_verified");
}

#[tokio::test]
async fn a_forwarded_address_is_not_believed() {
    // RFC 9700 section 4.13: without a proxy of ours in front, `X-Forwarded-For` is a stranger's.
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    for number in 0..12 {
        let answer = Answer::to(
            app.http
                .post(format!("{}/auth/v1/login", app.base_url))
                .header("x-forwarded-for", format!("10.0.0.{number}"))
                .json(&json!({"email": ada.email, "password": "wrong"})),
        )
        .await;
        assert_eq!(answer.status, if number < 10 { 401 } else { 429 });
    }
    let visitor = app.visitor();
    let page = visitor.open("/login").await;
    crate::stage::send_form(
        &app.base_url,
        "/login",
        &visitor.cookies(),
        &[("x-forwarded-for", "6.6.6.6")],
        &[
            ("csrf_token", &csrf(&page, "/login")),
            ("email", "bob@example.com"),
            ("password", "x"),
        ],
    )
    .await;
    let bob = app.person("Bob").await;
    let page = bob.visitor.open("/settings").await;
    assert!(!page.text().contains("6.6.6.6"));
    page.expect_text("127.0.0.1");
}
