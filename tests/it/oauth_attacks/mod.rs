//! The attacks of RFC 9700 and RFC 6819, one test each. The first line of a test says where it is
//! described; each begins from something that works, so that the refusal means something.

mod access_tokens;
mod codes;
mod credentials;
mod enumeration;
mod foreign_forms;
mod forged_tokens;
mod guessing;
mod hijacking;
mod input;
mod mailed_links;
mod markup;
mod permissions;
mod redirects;
mod refresh_tokens;
mod sessions;

use cp_model::CLI_CLIENT_ID;
use cp_tests::{Answer, App, Page, Visitor};
use serde_json::json;

use crate::stage::{TOKEN, Tokens, get_profile, json_call, refresh_cookie};

const MALLORYS: &str = "mallory knows this one";

/// Mallory makes an account with Ada's address, which she cannot prove.
async fn squat(app: &App) -> (Visitor, Page) {
    let visitor = app.visitor();
    let page = visitor
        .sign_up("Mallory", "ada@example.com", MALLORYS)
        .await;
    (visitor, page)
}

/// The same by a program, which gets tokens.
async fn squat_by_json(app: &App) -> Tokens {
    let body = json!({"name": "Mallory", "email": "ada@example.com", "password": MALLORYS});
    let answer = json_call(app, "/auth/v1/signup", &body).await;
    let refresh = refresh_cookie(&answer).unwrap();
    let access = answer.expect(201)["token"].as_str().unwrap().to_owned();
    Tokens { access, refresh }
}

/// As the command-line client refreshes what began with a password.
async fn refresh_as_cli(app: &App, refresh_token: &str) -> Answer {
    let body = json!({"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": CLI_CLIENT_ID});
    json_call(app, TOKEN, &body).await
}

/// Somebody who has signed up on the page and waits for the code.
async fn sign_up(app: &App, email: &str) -> (Visitor, Page) {
    let visitor = app.visitor();
    let page = visitor.sign_up("Eve", email, "a long and new one").await;
    (visitor, page)
}

/// What people read, without what they typed themselves.
fn words(page: &Page, typed: &str) -> String {
    page.text().replace(typed, "<typed>")
}

/// Never 403, which would be final (platform-api.md 2.4), and RFC 6750's header.
async fn refuses(app: &App, bearer: &str, what: &str) {
    let answer = get_profile(app, bearer).await;
    assert_eq!(answer.status, 401, "{what}: {}", answer.text);
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    assert!(challenge.starts_with("Bearer "), "{what}: {challenge}");
    assert!(
        challenge.contains("error=\"invalid_token\""),
        "{what}: {challenge}"
    );
    assert_eq!(answer.body["code"], "unauthorized", "{what}");
}
