//! Accounts: signing up and in, proving an address, passwords, API keys, sessions, mails, and what
//! operators do.

mod api_keys;
mod mails;
mod operators;
mod passwords;
mod sessions;
mod signing_up;

use cp_domain::UserCaller;
use cp_domain::people::NewApiKey;
use cp_model::Scopes;
use cp_tests::{App, Page, Visitor};
use secrecy::ExposeSecret as _;

use crate::stage::{SESSION, caller};

const EVE: &str = "eve@example.com";
const GOOD: &str = "a long and new one";

async fn sign_up(visitor: &Visitor) -> Page {
    let page = visitor.open("/signup").await;
    let to = [("name", "Eve Moreno"), ("email", EVE), ("password", GOOD)];
    visitor.submit(&page, "/signup", &to).await
}

async fn log_in(visitor: &Visitor, email: &str, password: &str) -> Page {
    let page = visitor.open("/login").await;
    let to = [("email", email), ("password", password)];
    visitor.submit(&page, "/login", &to).await
}

fn csrf(page: &Page, action: &str) -> String {
    let form = page.form(action);
    let field = form.fields.iter().find(|(name, _)| name == "csrf_token");
    field.expect("a token").1.clone()
}

/// Asks for a code on the login page.
async fn ask_for_code(visitor: &Visitor, email: &str) -> Page {
    let page = visitor.open("/login").await;
    let token = csrf(&page, "/login");
    visitor
        .post("/login/code", &[("csrf_token", &token), ("email", email)])
        .await
}

/// Who is signed in in this browser.
async fn who(app: &App, visitor: &Visitor) -> UserCaller {
    let cookie = visitor.cookie(SESSION).expect("a cookie");
    app.control_plane
        .browser_session(&cookie, &caller())
        .await
        .unwrap()
        .expect("somebody is signed in")
}

async fn new_key(
    app: &App,
    by: &UserCaller,
    scopes: Option<Scopes>,
    days: Option<u32>,
) -> (cp_model::ApiKeyId, String) {
    let new = NewApiKey {
        name: "laptop".into(),
        scopes,
        expires_in_days: days,
    };
    let (summary, secret) = app.control_plane.create_api_key(by, &new).await.unwrap();
    (summary.id, secret.expose_secret().to_owned())
}
