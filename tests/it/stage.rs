//! What the scenarios about signing in begin with: an installation whose time can be moved, a
//! person, and an application.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use cp_domain::Caller;
use cp_model::{ClientKind, RequestId};
use cp_tests::{
    Answer, App, AppOptions, MovingClock, Page, Person, RelyingParty, Visitor, eventually,
};
use reqwest::Url;
use reqwest::header::COOKIE;
use serde_json::{Value, json};

pub const TOKEN: &str = "/api/oauth/v1/token";
pub const AUTHORIZE: &str = "/api/oauth/v1/authorize";

/// The cookie of a browser session where the installation is not served by https.
pub const SESSION: &str = "session";

pub struct Stage {
    pub app: App,
    pub clock: Arc<MovingClock>,
    /// Signed in in her browser.
    pub ada: Person,
    pub notes: RelyingParty,
}

impl Stage {
    pub async fn new() -> Self {
        Self::with(ClientKind::Confidential).await
    }

    /// The same with an application that cannot keep a secret.
    pub async fn with_public_client() -> Self {
        Self::with(ClientKind::Public).await
    }

    async fn with(kind: ClientKind) -> Self {
        let (app, clock) = installation().await;
        let ada = app.person("Ada").await;
        let notes = app.relying_party_with(kind, |_| {}).await;
        Self {
            app,
            clock,
            ada,
            notes,
        }
    }

    pub async fn code(&self) -> String {
        self.notes.code_for(&self.ada.visitor).await
    }

    /// The token answer after a sign-in.
    pub async fn tokens(&self) -> Tokens {
        Tokens::of(&self.notes.tokens_for(&self.ada.visitor).await)
    }

    /// What the authorization endpoint does, one step only.
    pub async fn look(&self, changes: &[(&str, &str)]) -> Page {
        self.ada
            .visitor
            .look(&self.notes.authorize_url_with(changes))
            .await
    }

    /// Refused on a page, without a way to anywhere (RFC 6749 section 4.1.2.1).
    pub async fn refuses_on_a_page(&self, changes: &[(&str, &str)]) {
        let page = self.look(changes).await;
        assert_is_error_page(&page, &format!("{changes:?}"));
    }

    /// Refused by way of the application, which is told what is wrong.
    pub async fn refuses_by_redirect(&self, changes: &[(&str, &str)], error: &str) -> Page {
        let page = self
            .ada
            .visitor
            .open(&self.notes.authorize_url_with(changes))
            .await;
        assert_refused_elsewhere(&page, &self.notes, error);
        page
    }
}

pub fn assert_is_error_page(page: &Page, what: &str) {
    assert_eq!(page.status, 400, "{what}: {}", page.html);
    assert_eq!(page.header("location"), None, "{what}");
    assert!(!page.is_elsewhere, "{what}");
    let kind = page.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/html"), "{what}: {kind}");
    // No way on that could be taken by mistake either.
    assert!(!page.html.contains("http-equiv"), "{what}");
}

#[track_caller]
pub fn assert_refused_elsewhere(page: &Page, by: &RelyingParty, error: &str) {
    assert!(
        page.is_elsewhere,
        "{} {}\n{}",
        page.status, page.url, page.html
    );
    assert!(
        page.url.as_str().starts_with(&by.redirect_uri),
        "{}",
        page.url
    );
    assert_eq!(page.param("error").as_deref(), Some(error), "{}", page.url);
    assert_eq!(page.param("state").as_deref(), Some(by.state.as_str()));
    assert_eq!(page.param("iss").as_deref(), Some(by.base_url.as_str()));
    assert_eq!(page.param("code"), None);
    let description = page.param("error_description").expect("says why");
    assert!(!description.to_lowercase().contains("cancelled"));
}

/// Without a worker, so that mails wait until the scenario fetches them.
pub async fn installation() -> (App, Arc<MovingClock>) {
    installation_with(|_| {}).await
}

pub async fn installation_with(change: impl FnOnce(&mut AppOptions)) -> (App, Arc<MovingClock>) {
    let clock = MovingClock::new();
    // Limits are counted in windows that begin with a quarter of an hour: stand at its beginning,
    // or a scenario could run over its end.
    let window = 15 * 60;
    let past = Utc::now().timestamp().rem_euclid(window);
    clock.advance(TimeDelta::seconds(window - past + 5));
    let mut options = AppOptions {
        clock: clock.clone(),
        worker: false,
        ..AppOptions::default()
    };
    change(&mut options);
    (App::start_with(options).await, clock)
}

/// A request of nobody in particular, for verbs of the domain.
pub fn caller() -> Caller {
    Caller {
        request_id: RequestId::generate(),
        address: None,
    }
}

#[derive(Debug, Clone)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
}

impl Tokens {
    #[track_caller]
    pub fn of(body: &Value) -> Self {
        let text = |name: &str| {
            body[name]
                .as_str()
                .unwrap_or_else(|| panic!("no {name} in {body}"))
                .to_owned()
        };
        Self {
            access: text("access_token"),
            refresh: text("refresh_token"),
        }
    }
}

/// A refusal of the OAuth interface, in the form of RFC 6749 section 5.2.
#[track_caller]
pub fn refused(answer: Answer, status: u16, error: &str) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.body["error"], error, "{}", answer.text);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let description = answer.body["error_description"].as_str().expect("says why");
    assert!(!description.is_empty());
    // The command-line client takes this word as the person's own wish and says nothing.
    assert!(
        !answer.text.to_lowercase().contains("cancelled"),
        "{}",
        answer.text
    );
    assert_eq!(answer.body["access_token"], Value::Null);
    answer.body
}

/// A client that follows nothing and keeps nothing.
pub fn wire() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client can be built")
}

/// `application/x-www-form-urlencoded`.
pub fn form(fields: &[(&str, &str)]) -> String {
    Url::parse_with_params("http://x/", fields)
        .expect("fields can be encoded")
        .query()
        .unwrap_or_default()
        .to_owned()
}

/// A form as any program could send it, with these cookies and headers and nothing besides.
pub async fn send_form(
    base_url: &str,
    path: &str,
    cookies: &BTreeMap<String, String>,
    headers: &[(&str, &str)],
    fields: &[(&str, &str)],
) -> Answer {
    let mut request = wire()
        .post(format!("{base_url}{path}"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form(fields));
    if !cookies.is_empty() {
        let pairs: Vec<String> = cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
        request = request.header(COOKIE, pairs.join("; "));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::to(request).await
}

/// Actions in the audit log, oldest first.
pub async fn audited(app: &App) -> Vec<String> {
    sqlx::query_scalar("select action from audit_log order by at, id")
        .fetch_all(&mut app.database.connect().await)
        .await
        .unwrap()
}

/// Whether somebody is signed in in this browser.
pub async fn is_signed_in(visitor: &Visitor) -> bool {
    let page = visitor.look("/settings").await;
    match page.status {
        200 => true,
        302 | 303 => {
            assert!(page.header("location").unwrap().starts_with("/login"));
            false
        }
        other => panic!("{other}: {}", page.html),
    }
}

/// The JSON interface of accounts.
pub async fn json_call(app: &App, path: &str, body: &Value) -> Answer {
    Answer::to(app.http.post(format!("{}{path}", app.base_url)).json(body)).await
}

pub async fn json_login(app: &App, email: &str, password: &str) -> Answer {
    json_call(
        app,
        "/auth/v1/login",
        &json!({ "email": email, "password": password }),
    )
    .await
}

pub async fn get_profile(app: &App, bearer: &str) -> Answer {
    Answer::to(
        app.http
            .get(format!("{}/auth/v1/profile", app.base_url))
            .bearer_auth(bearer),
    )
    .await
}

/// The value of the cookie `refreshToken`, as the command-line client finds it
/// (platform-api.md, 4.2).
pub fn refresh_cookie(answer: &Answer) -> Option<String> {
    let all: Vec<&str> = answer
        .headers
        .get_all("set-cookie")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    let text = all.join(", ");
    let (_, rest) = text.split_once("refreshToken=")?;
    let value = rest.split(';').next()?;
    (!value.is_empty()).then(|| value.to_owned())
}

/// Processes remember a client or a person for up to a second.
pub async fn soon<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    eventually(what, std::time::Duration::from_secs(5), look).await
}

/// Enough for one window of any throttle to pass.
pub fn a_while() -> TimeDelta {
    TimeDelta::minutes(16)
}
