//! Signing up, proving the address, and accounts that a partner made.

use chrono::TimeDelta;
use cp_tests::fields;
use serde_json::{Value, json};

use super::{EVE, GOOD, sign_up, who};
use crate::stage::{
    a_while, get_profile, installation, is_signed_in, json_call, json_login, refresh_cookie,
};

#[tokio::test]
async fn a_person_signs_up_and_enters_the_code() {
    let (app, _) = installation().await;
    let visitor = app.visitor();
    let page = sign_up(&visitor).await;
    assert_eq!(page.url.path(), "/verify-email");
    page.expect_text(EVE);
    assert!(
        !is_signed_in(&visitor).await,
        "not before the address is proven"
    );
    let mail = app.newest_mail(EVE).await;
    assert!(
        mail.link()
            .starts_with(&format!("{}/verify-email?token=imt_", app.base_url))
    );
    let page = visitor
        .submit(&page, "/verify-email", &[("code", &mail.code())])
        .await;
    assert_eq!(page.status, 200);
    let by = who(&app, &visitor).await;
    assert!(by.user.email_verified);
    assert_eq!(by.user.name, "Eve Moreno");
    let body = json_login(&app, EVE, GOOD).await.expect(200);
    assert_eq!(body["user"]["email_verified"], true);
    // A personal organization came along.
    assert_eq!(app.database.count("organizations").await, 1);
}

#[tokio::test]
async fn signing_up_leads_back_to_the_application() {
    let (app, _) = installation().await;
    let notes = app.relying_party().await;
    let visitor = app.visitor();
    let page = visitor.open(&notes.authorize_url()).await;
    let link = page
        .html
        .split("href=\"")
        .filter_map(|rest| rest.split('"').next())
        .find(|href| href.starts_with("/signup"))
        .expect("a way to sign up")
        .replace("&amp;", "&");
    let page = visitor.open(&link).await;
    page.expect_text("Acme Notes");
    let to = [("name", "Eve"), ("email", EVE), ("password", GOOD)];
    let page = visitor.submit(&page, "/signup", &to).await;
    let code = app.newest_mail(EVE).await.code();
    let page = visitor
        .submit(&page, "/verify-email", &[("code", &code)])
        .await;
    let page = visitor.press(&page, "/consent", "Allow", &[]).await;
    let code = page.param("code").expect("a code");
    let tokens = notes.exchange(&code).await.expect(200);
    let profile = notes
        .profile(tokens["access_token"].as_str().unwrap())
        .await
        .expect(200);
    assert_eq!(profile["user"]["email"], EVE);
}

#[tokio::test]
async fn a_program_signs_up() {
    let (app, _) = installation().await;
    let body = json!({"name": "Eve Moreno", "email": EVE, "password": GOOD});
    let answer = json_call(&app, "/auth/v1/signup", &body).await;
    assert!(refresh_cookie(&answer).is_some());
    let body = answer.expect(201);
    assert_eq!(fields(&body), ["token", "user"]);
    assert_eq!(body["user"]["email_verified"], false);
    let profile = get_profile(&app, body["token"].as_str().unwrap())
        .await
        .expect(200);
    assert_eq!(profile["user"], body["user"]);
    assert_eq!(app.newest_mail(EVE).await.code().len(), 6);
    // A name is the program's to leave out.
    let body = json!({"email": "lin@example.com", "password": GOOD});
    let body = json_call(&app, "/auth/v1/signup", &body).await.expect(201);
    assert_eq!(body["user"]["name"], "lin");
}

#[tokio::test]
async fn what_is_wrong_with_a_sign_up_is_said() {
    let (app, _) = installation().await;
    let good = json!({"name": "Eve", "email": EVE, "password": GOOD});
    for (name, value) in [
        ("email", json!("nonsense")),
        ("email", json!("")),
        ("email", Value::Null),
        ("email", json!(7)),
        ("password", json!("short")),
        ("password", Value::Null),
        ("name", json!("")),
        ("name", json!("x".repeat(101))),
    ] {
        let mut body = good.clone();
        body[name] = value.clone();
        let answer = json_call(&app, "/auth/v1/signup", &body).await;
        let text = answer.text.clone();
        let body = answer.expect(400);
        assert_eq!(fields(&body), ["code", "error", "requestId"]);
        assert!(text.contains(name), "{name} {value}: {text}");
    }
    let visitor = app.visitor();
    let page = visitor.sign_up("Eve", EVE, "short").await;
    assert_eq!(page.status, 400);
    page.expect_text("must have 8 to 256 characters");
    let form = page.form("/signup");
    assert!(
        form.fields.contains(&("email".into(), EVE.into())),
        "what was typed stays"
    );
    assert!(
        !page.html.contains("value=\"short\""),
        "but never a password"
    );
    assert_eq!(app.database.count("users").await, 0);
}

#[tokio::test]
async fn all_that_is_wrong_with_a_sign_up_is_said_at_once() {
    let (app, _) = installation().await;
    let page = app.visitor().sign_up("", "nonsense", "short").await;
    assert_eq!(page.status, 400);
    for text in [
        "Your name must",
        "The e-mail address must",
        "The password must have 8 to 256 characters",
    ] {
        page.expect_text(text);
    }
    assert_eq!(app.database.count("users").await, 0);
}

#[tokio::test]
async fn one_address_has_one_account_whatever_its_case() {
    let (app, _) = installation().await;
    let body = |email: &str| json!({"name": "Eve", "email": email, "password": GOOD});
    json_call(&app, "/auth/v1/signup", &body(EVE))
        .await
        .expect(201);
    json_call(&app, "/auth/v1/signup", &body("EVE@Example.com"))
        .await
        .expect_code(409, "email_taken");
    assert_eq!(app.database.count("users").await, 1);
    let raced = futures::future::join_all((0..10).map(|_| {
        let body = body("race@example.com");
        let app = &app;
        async move { json_call(app, "/auth/v1/signup", &body).await.status }
    }))
    .await;
    assert_eq!(
        raced.iter().filter(|status| **status == 201).count(),
        1,
        "{raced:?}"
    );
    assert_eq!(
        raced.iter().filter(|status| **status == 409).count(),
        9,
        "{raced:?}"
    );
}

#[tokio::test]
async fn a_new_code_is_mailed_on_request() {
    let (app, clock) = installation().await;
    let visitor = app.visitor();
    let page = sign_up(&visitor).await;
    app.newest_mail(EVE).await;
    clock.advance(TimeDelta::minutes(2));
    let form = page.form("/verify-email/resend");
    let page = visitor
        .send(&page, &form, &[("email", EVE)], form.buttons.first())
        .await;
    let code = app.newest_mail(EVE).await.code();
    visitor
        .submit(&page, "/verify-email", &[("code", &code)])
        .await;
    assert!(is_signed_in(&visitor).await);
    assert!(who(&app, &visitor).await.user.email_verified);
}

#[tokio::test]
async fn a_code_works_once() {
    let (app, _) = installation().await;
    let visitor = app.visitor();
    let page = sign_up(&visitor).await;
    let code = app.newest_mail(EVE).await.code();
    let second = app.visitor();
    let login = second.open("/login").await;
    let challenge = page.param("challenge").unwrap();
    let csrf = login.csrf_token("/login");
    let fields = [
        ("csrf_token", csrf.as_str()),
        ("challenge", &challenge),
        ("code", &code),
    ];
    visitor
        .submit(&page, "/verify-email", &[("code", &code)])
        .await;
    assert!(is_signed_in(&visitor).await);
    let page = second.post("/verify-email", &fields).await;
    assert_eq!(page.status, 400, "{}", page.url);
    assert!(!is_signed_in(&second).await);
}

#[tokio::test]
async fn the_link_proves_the_address_of_who_is_signed_in() {
    let (app, _) = installation().await;
    sign_up(&app.visitor()).await;
    let link = app.newest_mail(EVE).await.link();
    // In another browser: the page asks to sign in, and comes back.
    let visitor = app.visitor();
    let page = visitor.open(&link).await;
    page.expect_text("Sign in");
    let to_login = page
        .html
        .split("href=\"")
        .filter_map(|rest| rest.split('"').next())
        .find(|href| href.starts_with("/login"))
        .expect("a way to sign in")
        .replace("&amp;", "&");
    let page = visitor.open(&to_login).await;
    let page = visitor
        .submit(&page, "/login", &[("email", EVE), ("password", GOOD)])
        .await;
    let page = if page
        .forms()
        .iter()
        .any(|f| f.action == "/verify-email/link")
    {
        page
    } else {
        visitor.open(&link).await
    };
    visitor.submit(&page, "/verify-email/link", &[]).await;
    assert!(who(&app, &visitor).await.user.email_verified);
    // Once.
    assert_eq!(visitor.open(&link).await.status, 400);
}

#[tokio::test]
async fn an_unproven_account_signs_in_on_the_page_and_is_asked_for_the_code() {
    let (app, clock) = installation().await;
    sign_up(&app.visitor()).await;
    app.mails().await;
    clock.advance(a_while());
    let visitor = app.visitor();
    let page = visitor.log_in(EVE, GOOD).await;
    assert_eq!(page.url.path(), "/verify-email");
    let code = app.newest_mail(EVE).await.code();
    visitor
        .submit(&page, "/verify-email", &[("code", &code)])
        .await;
    assert!(who(&app, &visitor).await.user.email_verified);
    json_login(&app, EVE, GOOD).await.expect(200);
}

#[tokio::test]
async fn an_unproven_account_is_told_so_by_json_and_gets_a_code() {
    let (app, _) = installation().await;
    sign_up(&app.visitor()).await;
    app.mails().await;
    let answer = json_login(&app, EVE, GOOD).await;
    assert_eq!(refresh_cookie(&answer), None);
    let body = answer.expect_code(403, "email_not_verified");
    assert!(body["error"].as_str().unwrap().contains("erify"), "{body}");
    let mail = app.newest_mail(EVE).await;
    assert_eq!(mail.code().len(), 6);
    json_login(&app, EVE, "wrong password").await.expect(401);
    // Its link, opened where they sign in, proves the address, and the password stays.
    let visitor = app.visitor();
    visitor.log_in(EVE, GOOD).await;
    let page = visitor.open(&mail.link()).await;
    visitor.submit(&page, "/verify-email/link", &[]).await;
    json_login(&app, EVE, GOOD).await.expect(200);
}

#[tokio::test]
async fn an_account_of_a_partner_begins_with_a_mailed_code() {
    let (app, _) = installation().await;
    let partner = app.partner().await;
    let id = partner.connect_user("Cleo@example.com").await;
    let visitor = app.visitor();
    let page = visitor.ask_for_code("cleo@example.com").await;
    assert_eq!(page.url.path(), "/verify-email");
    let mails = app.mails().await;
    let mail = mails.last().expect("a mail");
    assert!(mail.to.eq_ignore_ascii_case("cleo@example.com"));
    visitor
        .submit(&page, "/verify-email", &[("code", &mail.code())])
        .await;
    let by = who(&app, &visitor).await;
    assert_eq!(by.user.id.to_string(), id);
    assert!(by.user.email_verified);
    // Now there may be a password: the first one needs no former.
    let page = visitor.open("/settings").await;
    let page = visitor
        .submit(&page, "/settings/password", &[("new_password", GOOD)])
        .await;
    assert!(page.status < 400, "{}", page.html);
    json_login(&app, "cleo@example.com", GOOD).await.expect(200);
}

#[tokio::test]
async fn an_account_of_a_partner_can_begin_with_the_link() {
    let (app, _) = installation().await;
    app.partner().await.connect_user("cleo@example.com").await;
    app.visitor().ask_for_code("cleo@example.com").await;
    let link = app.newest_mail("cleo@example.com").await.link();
    let visitor = app.visitor();
    let page = visitor.open(&link).await;
    visitor.submit(&page, "/verify-email/link", &[]).await;
    assert!(who(&app, &visitor).await.user.email_verified);
}

#[tokio::test]
async fn a_partner_does_not_touch_a_proven_account() {
    let (app, _) = installation().await;
    let ada = app.person("Ada").await;
    let id = app.partner().await.connect_user(&ada.email).await;
    assert_eq!(id, ada.id.to_string());
    assert!(is_signed_in(&ada.visitor).await);
    json_login(&app, &ada.email, &ada.password)
        .await
        .expect(200);
}

#[tokio::test]
async fn a_person_with_a_password_is_mailed_how_to_use_it_and_no_code() {
    // A code by mail alone would make the password idle.
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    let page = ada.visitor.ask_for_code(&ada.email).await;
    assert_eq!(page.url.path(), "/verify-email");
    let mail = app.newest_mail(&ada.email).await;
    assert_eq!(mail.link(), format!("{}/login", app.base_url));
    assert!(mail.text.contains("/forgot-password"), "{}", mail.text);
    assert!(!mail.text.contains("token="), "{}", mail.text);
}
