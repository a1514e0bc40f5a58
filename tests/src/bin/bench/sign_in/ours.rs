//! Our side: an application whose person has signed in many times, each through the pages.

use std::sync::Arc;

use cp_tests::programs::Dev;
use cp_tests::{REDIRECT_URI, RelyingParty, SCOPE, Visitor};
use serde_json::Value;

use super::load::{CONNECTIONS, Family, Server};

pub struct DemoUser {
    pub email: String,
    pub password: String,
}

pub fn demo_user(dev: &Dev) -> DemoUser {
    let demo = std::fs::read(dev.data().join("demo.json")).expect("demo.json is there");
    let demo: Value = serde_json::from_slice(&demo).expect("demo.json is JSON");
    DemoUser {
        email: text(&demo["user"]["email"]),
        password: text(&demo["user"]["password"]),
    }
}

/// A family for each connection, of a client whose rate limit the bench cannot reach.
pub async fn families(dev: &Dev) -> Vec<Family> {
    let (server, application) = application(dev).await;
    let browser = signed_in(dev).await;
    let mut families = Vec::new();
    for _ in 0..CONNECTIONS {
        let tokens = application.tokens_for(&browser).await;
        families.push(Family {
            server: server.clone(),
            refresh_token: text(&tokens["refresh_token"]),
            access_tokens: Vec::new(),
        });
    }
    families
}

async fn application(dev: &Dev) -> (Arc<Server>, RelyingParty) {
    let create = [
        "oauth-client",
        "create",
        "--name=Bench",
        "--confidential",
        "--redirect-uri",
        REDIRECT_URI,
        // The most that there is: 16,666 a second.
        "--rate-limit=1000000",
        "--json",
    ];
    let client = dev.home().operator(&create).await.json();
    let (client_id, client_secret) = (text(&client["id"]), text(&client["secret"]));
    let server = Server {
        address: dev.listen(),
        token_path: "/api/oauth/v1/token",
        introspection_path: "/api/oauth/v1/introspect",
        client_id: client_id.clone(),
        client_secret: client_secret.clone(),
    };
    let application = RelyingParty {
        http: dev.partner.http.clone(),
        base_url: dev.partner.base_url.clone(),
        client_id,
        client_secret: Some(client_secret),
        redirect_uri: REDIRECT_URI.to_owned(),
        scope: SCOPE.to_owned(),
        state: "af0ifjsldkj".to_owned(),
        code_verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned(),
    };
    (Arc::new(server), application)
}

async fn signed_in(dev: &Dev) -> Visitor {
    let user = demo_user(dev);
    let browser = Visitor::new(&dev.partner.base_url);
    let login = browser.open("/login").await;
    let values = [("email", &*user.email), ("password", &*user.password)];
    let page = browser.submit(&login, "/login", &values).await;
    assert_eq!(page.status, 200, "{}", page.html);
    browser
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
        .to_owned()
}
