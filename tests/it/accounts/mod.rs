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
    visitor.sign_up("Eve Moreno", EVE, GOOD).await
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
