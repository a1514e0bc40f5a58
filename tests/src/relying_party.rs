//! An application that lets people sign in with us: what it sends, one method per call.

use cp_domain::oauth::NewOAuthClient;
use cp_model::{ClientKind, Scopes};
use cp_tokens::pkce;
use reqwest::Url;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::{Answer, App, Page, Visitor};

/// Where its people come back to.
pub const REDIRECT_URI: &str = "https://app.example/callback";

/// The scopes that it asks for.
pub const SCOPE: &str = "user:read organizations:read";

#[derive(Clone)]
pub struct RelyingParty {
    pub http: reqwest::Client,
    pub base_url: String,
    pub client_id: String,
    /// None: a public client.
    pub client_secret: Option<String>,
    pub redirect_uri: String,
    pub scope: String,
    pub state: String,
    pub code_verifier: String,
}

impl App {
    pub async fn relying_party(&self) -> RelyingParty {
        self.relying_party_with(ClientKind::Confidential, |_| {})
            .await
    }

    pub async fn public_relying_party(&self) -> RelyingParty {
        self.relying_party_with(ClientKind::Public, |_| {}).await
    }

    pub async fn relying_party_with(
        &self,
        kind: ClientKind,
        change: impl FnOnce(&mut NewOAuthClient),
    ) -> RelyingParty {
        let mut new = NewOAuthClient {
            name: "Acme Notes".into(),
            kind,
            redirect_uris: vec![REDIRECT_URI.into()],
            scopes: Scopes::all(),
            first_party: false,
            device_grant: true,
            rate_limit: 1_000_000,
            logo_url: None,
            color: None,
            homepage_url: None,
        };
        change(&mut new);
        let (client, secret) = self
            .control_plane
            .create_oauth_client(&new)
            .await
            .expect("a client can be made");
        RelyingParty {
            http: self.http.clone(),
            base_url: self.base_url.clone(),
            client_id: client.id.to_string(),
            client_secret: secret.map(|s| s.expose_secret().to_owned()),
            redirect_uri: client.redirect_uris[0].clone(),
            scope: SCOPE.into(),
            state: "af0ifjsldkj".into(),
            code_verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into(),
        }
    }
}

impl RelyingParty {
    pub fn authorize_params(&self) -> Vec<(&'static str, String)> {
        vec![
            ("client_id", self.client_id.clone()),
            ("redirect_uri", self.redirect_uri.clone()),
            ("response_type", "code".into()),
            ("scope", self.scope.clone()),
            ("state", self.state.clone()),
            ("code_challenge", pkce::code_challenge(&self.code_verifier)),
            ("code_challenge_method", "S256".into()),
        ]
    }

    /// Where it sends people.
    pub fn authorize_url(&self) -> String {
        self.authorize_url_with(&[])
    }

    /// The same with some parameters changed, added, or (with an empty value) left out.
    pub fn authorize_url_with(&self, changes: &[(&str, &str)]) -> String {
        let mut params: Vec<(String, String)> = self
            .authorize_params()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        for (name, value) in changes {
            match params.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => (*value).clone_into(known),
                None => params.push(((*name).to_owned(), (*value).to_owned())),
            }
        }
        params.retain(|(_, value)| !value.is_empty());
        let url = format!("{}/api/oauth/v1/authorize", self.base_url);
        Url::parse_with_params(&url, &params)
            .expect("parameters can be encoded")
            .into()
    }

    /// A person who is signed in allows it; gives the code.
    pub async fn code_for(&self, visitor: &Visitor) -> String {
        let page = self.authorize(visitor).await;
        page.param("code")
            .unwrap_or_else(|| panic!("no code in {}", page.url))
    }

    /// A person who is signed in allows it; gives where they come out.
    pub async fn authorize(&self, visitor: &Visitor) -> Page {
        let page = visitor.open(&self.authorize_url()).await;
        if page.is_elsewhere {
            return page;
        }
        visitor.press(&page, "/consent", "Allow", &[]).await
    }

    /// The token endpoint, with the client's credentials in the body.
    pub async fn token(&self, fields: Value) -> Answer {
        let mut body = fields;
        body["client_id"] = json!(self.client_id);
        if let Some(secret) = &self.client_secret {
            body["client_secret"] = json!(secret);
        }
        self.post("/api/oauth/v1/token", &body).await
    }

    /// A JSON request as it is.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::to(
            self.http
                .post(format!("{}{path}", self.base_url))
                .json(body),
        )
        .await
    }

    pub async fn exchange(&self, code: &str) -> Answer {
        self.token(json!({
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": self.code_verifier,
        }))
        .await
    }

    pub async fn refresh(&self, refresh_token: &str) -> Answer {
        self.token(json!({ "grant_type": "refresh_token", "refresh_token": refresh_token }))
            .await
    }

    /// Begins a device sign-in; gives the answer.
    pub async fn start_device(&self) -> Value {
        let mut body = json!({ "client_id": self.client_id, "scope": self.scope });
        if let Some(secret) = &self.client_secret {
            body["client_secret"] = json!(secret);
        }
        self.post("/api/oauth/v1/device_authorization", &body)
            .await
            .expect(200)
    }

    /// Signs the person in; gives the token answer.
    pub async fn tokens_for(&self, visitor: &Visitor) -> Value {
        let code = self.code_for(visitor).await;
        self.exchange(&code).await.expect(200)
    }

    pub async fn profile(&self, access_token: &str) -> Answer {
        Answer::to(
            self.http
                .get(format!("{}/auth/v1/profile", self.base_url))
                .bearer_auth(access_token),
        )
        .await
    }

    /// Revocation or introspection, with the client's credentials in the body.
    pub async fn about_token(&self, path: &str, token: &str) -> Answer {
        let mut body = json!({ "token": token, "client_id": self.client_id });
        if let Some(secret) = &self.client_secret {
            body["client_secret"] = json!(secret);
        }
        self.post(path, &body).await
    }

    pub async fn revoke(&self, token: &str) -> Answer {
        self.about_token("/api/oauth/v1/revoke", token).await
    }

    pub async fn introspect(&self, token: &str) -> Answer {
        self.about_token("/api/oauth/v1/introspect", token).await
    }
}
