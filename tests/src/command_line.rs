//! The command-line client, version 0.2.8, as contract/platform-api.md tells it: what it sends with which headers, which
//! credential it takes, and how it comes by a new one (sections 2 to 6). Scenarios call it as its commands do, and see
//! afterwards what was sent.

use std::sync::{Mutex, MutexGuard};

use cp_model::CLI_CLIENT_ID;
use reqwest::header::{ACCEPT, CONTENT_TYPE, SET_COOKIE};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{Answer, App, Person};

/// 5, "Scopes asked".
pub const CLI_SCOPES: &str = "user:read organizations:read projects:read projects:write";

const TOKEN: &str = "/api/oauth/v1/token";

/// `~/.insforge/credentials.json`
#[derive(Clone, Default)]
pub struct StoredSession {
    pub access_token: Option<String>,
    pub refresh_token: Option<String>,
    pub user_api_key: Option<String>,
}

pub struct CommandLineClient {
    http: reqwest::Client,
    base_url: String,
    session: Mutex<StoredSession>,
    sent: Mutex<Vec<String>>,
    refreshed_with: Mutex<Vec<String>>,
}

impl App {
    /// Without a session.
    pub fn command_line(&self) -> CommandLineClient {
        self.command_line_at(&self.base_url)
    }

    /// With another `INSFORGE_API_URL`.
    pub fn command_line_at(&self, base_url: &str) -> CommandLineClient {
        CommandLineClient {
            http: self.http.clone(),
            base_url: base_url.to_owned(),
            session: Mutex::default(),
            sent: Mutex::default(),
            refreshed_with: Mutex::default(),
        }
    }

    /// Somebody's, after `login --email` and one refresh, so that it may do what the four scopes allow and nothing more.
    /// Nothing counts as sent since.
    pub async fn command_line_of(&self, person: &Person) -> CommandLineClient {
        let client = self.command_line();
        let answer = client.log_in(&person.email, &person.password).await;
        answer.expect(200);
        let cookie = client.session().refresh_token.expect("a cookie");
        client.refresh(&cookie).await.expect(200);
        client.forget_sent();
        client
    }
}

impl CommandLineClient {
    /// What was sent, as `GET /organizations/v1`, without the refreshes that a 401 led to.
    pub fn sent(&self) -> Vec<String> {
        lock(&self.sent).clone()
    }

    fn forget_sent(&self) {
        lock(&self.sent).clear();
        lock(&self.refreshed_with).clear();
    }

    /// The refresh tokens with which it came by new ones after a 401.
    pub fn refreshed_with(&self) -> Vec<String> {
        lock(&self.refreshed_with).clone()
    }

    pub fn session(&self) -> StoredSession {
        lock(&self.session).clone()
    }

    pub fn set_session(&self, session: StoredSession) {
        *lock(&self.session) = session;
    }

    /// 2.3: the key before the access token.
    fn credential(&self) -> Option<String> {
        let session = self.session();
        session.user_api_key.or(session.access_token)
    }

    /// 2.1: base URL and path are joined as text.
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        lock(&self.sent).push(format!("{method} {path}"));
        self.http
            .request(method, format!("{}{path}", self.base_url))
    }

    // ---- Calls with a bearer (2.2, 2.4) ----

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    /// Without a body.
    pub async fn post(&self, path: &str) -> Answer {
        self.call(Method::POST, path, None).await
    }

    pub async fn post_json(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }

    /// On 401 it refreshes and repeats the identical request, once; the second outcome is final. A key is not refreshed.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let body = body.map(|body| body.to_string());
        let send = async || {
            let request = self
                .http
                .request(method.clone(), format!("{}{path}", self.base_url));
            let credential = self.credential().expect("there is a session");
            let request = request
                .bearer_auth(credential)
                .header(CONTENT_TYPE, "application/json");
            Answer::to(match &body {
                Some(body) => request.body(body.clone()),
                None => request,
            })
            .await
        };
        lock(&self.sent).push(format!("{method} {path}"));
        let stored = self.session().refresh_token;
        let answer = send().await;
        let is_key = self.session().user_api_key.is_some();
        match stored {
            Some(refresh_token) if answer.status == 401 && !is_key => {
                if self.refresh(&refresh_token).await.status == 200 {
                    send().await
                } else {
                    answer
                }
            }
            _ => answer,
        }
    }

    /// 5.3. Without a refresh token in the answer the old one is kept.
    async fn refresh(&self, refresh_token: &str) -> Answer {
        lock(&self.refreshed_with).push(refresh_token.to_owned());
        let body = json!({
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
            "client_id": CLI_CLIENT_ID,
        });
        let url = format!("{}{TOKEN}", self.base_url);
        let answer = Answer::to(self.http.post(url).json(&body)).await;
        if answer.status == 200 {
            self.save(&answer.body);
        }
        answer
    }

    fn save(&self, tokens: &Value) {
        let text = |name: &str| tokens[name].as_str().map(str::to_owned);
        let mut session = lock(&self.session);
        session.access_token = text("access_token");
        if let Some(next) = text("refresh_token") {
            session.refresh_token = Some(next);
        }
    }

    // ---- Calls that are different ----

    /// 4.2: the cookie is found in all headers taken as one text, and used as it stands.
    pub async fn log_in(&self, email: &str, password: &str) -> Answer {
        let body = json!({ "email": email, "password": password });
        let request = self.request(Method::POST, "/auth/v1/login");
        let answer = Answer::to(request.json(&body)).await;
        if answer.status == 200 {
            let cookies = answer.headers.get_all(SET_COOKIE).iter();
            let cookies: Vec<_> = cookies.filter_map(|c| c.to_str().ok()).collect();
            let cookies = cookies.join(", ");
            let cookie = cookies.split_once("refreshToken=").map(|(_, rest)| rest);
            let value = cookie.and_then(|rest| rest.split(';').next());
            self.set_session(StoredSession {
                access_token: answer.body["token"].as_str().map(str::to_owned),
                refresh_token: value.map(str::to_owned),
                user_api_key: None,
            });
        }
        answer
    }

    /// 5.2 and 6.2: a JSON body, no client authentication. What it gets is the session from then on.
    pub async fn token(&self, mut body: Value) -> Answer {
        body["client_id"] = json!(CLI_CLIENT_ID);
        let answer = Answer::to(self.request(Method::POST, TOKEN).json(&body)).await;
        if answer.status == 200 {
            self.save(&answer.body);
        }
        answer
    }

    /// 6.1
    pub async fn ask_for_device(&self) -> Answer {
        let body = json!({ "client_id": CLI_CLIENT_ID, "scope": CLI_SCOPES });
        let path = "/api/oauth/v1/device_authorization";
        Answer::to(self.request(Method::POST, path).json(&body)).await
    }

    /// 5.1: an address that it opens in the person's browser.
    pub fn open(&self, path: &str, query: &[(&str, &str)]) -> String {
        lock(&self.sent).push(format!("GET {path}"));
        let url = format!("{}{path}", self.base_url);
        let url = reqwest::Url::parse_with_params(&url, query);
        url.expect("parameters can be encoded").into()
    }

    /// 4.3: with the key itself, without a content type, without a refresh.
    pub async fn profile_of_key(&self, key: &str) -> Answer {
        let request = self.request(Method::GET, "/auth/v1/profile");
        Answer::to(request.bearer_auth(key)).await
    }

    /// 14: a bearer when there is one; nothing of the answer is read.
    pub async fn tell_agent_connected(&self, body: &Value) -> Answer {
        let request = self.request(Method::POST, "/tracking/v1/agent-connected");
        let request = match self.credential() {
            Some(credential) => request.bearer_auth(credential),
            None => request,
        };
        Answer::to(request.json(body)).await
    }

    /// 15: no content type, no refresh.
    pub async fn integration(&self, path: &str) -> Answer {
        let credential = self.credential().expect("there is a session");
        let request = self.request(Method::GET, path).bearer_auth(credential);
        Answer::to(request.header(ACCEPT, "application/json")).await
    }
}

/// Held for no longer than a line.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder panics")
}
