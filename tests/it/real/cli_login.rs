//! The sign-in of the command-line client, as contract/platform-api.md sections 2 to 6 tell it, and
//! written from that page alone: what it sends, what it reads, and how it reacts.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cp_tests::programs::{Dev, NO_POOL};
use cp_tests::{Answer, BACK, Callback, Page, Visitor};
use reqwest::header::{CONTENT_TYPE, SET_COOKIE};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::Connection as _;
use uuid::Uuid;

/// 5, "Client id".
const CLIENT_ID: &str = "clf_NK8cMUs41gm8ZcfdtSguVw";
/// 5, "Scopes asked".
const SCOPES: &str = "user:read organizations:read projects:read projects:write";

#[tokio::test]
async fn the_command_line_client_signs_people_in_as_its_page_tells() {
    let dev = Dev::start_with(&[NO_POOL]).await;
    login(&dev).await;
    a_session_outlives_its_access_tokens(&dev).await;
    login_email(&dev).await;
    login_device(&dev).await;
    login_user_api_key(&dev).await;
}

/// The client, and `~/.insforge/credentials.json`.
struct CommandLine {
    api_url: String,
    http: reqwest::Client,
    session: Session,
}

#[derive(Clone, Default)]
struct Session {
    access_token: Option<String>,
    refresh_token: Option<String>,
    user_api_key: Option<String>,
}

/// An error as the client prints it, and its exit code.
#[derive(Debug)]
struct Failed {
    text: String,
    exit: u8,
}

impl CommandLine {
    fn new(dev: &Dev) -> Self {
        Self {
            api_url: dev.base_url().to_owned(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            session: Session::default(),
        }
    }

    fn with_session(&self, session: Session) -> Self {
        Self {
            api_url: self.api_url.clone(),
            http: self.http.clone(),
            session,
        }
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.post(format!("{}{path}", self.api_url))
    }

    /// 2.3: the stored key before the stored access token.
    fn credential(&self) -> &str {
        let session = &self.session;
        let stored = session.user_api_key.as_deref();
        stored
            .or(session.access_token.as_deref())
            .expect("there is a session")
    }

    /// 2.2: `Content-Type: application/json` on every call with a bearer, also without a body.
    async fn get(&self, path: &str) -> Answer {
        let url = format!("{}{path}", self.api_url);
        let request = self.http.get(url).bearer_auth(self.credential());
        Answer::to(request.header(CONTENT_TYPE, "application/json")).await
    }

    /// 2.4: on 401 it refreshes and repeats, once.
    async fn call(&mut self, path: &str) -> Result<Value, Failed> {
        let mut answer = self.get(path).await;
        if answer.status == 401 {
            self.refresh().await?;
            answer = self.get(path).await;
        }
        match answer.status {
            200..=299 => Ok(answer.body),
            status => Err(Failed {
                text: shown(&answer.body),
                exit: if status == 403 { 5 } else { 1 },
            }),
        }
    }

    /// 5.3. Any failure ends the session; the server's reason is not shown.
    async fn refresh(&mut self) -> Result<(), Failed> {
        let over = || Failed {
            text: "log in again".into(),
            exit: 2,
        };
        let refresh_token = self.session.refresh_token.clone().ok_or_else(over)?;
        let body = json!({
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
            "client_id": CLIENT_ID,
        });
        let answer = Answer::to(self.post("/api/oauth/v1/token").json(&body)).await;
        if !(200..=299).contains(&answer.status) {
            return Err(over());
        }
        self.save(&answer.body);
        Ok(())
    }

    fn save(&mut self, tokens: &Value) {
        let text = |name: &str| tokens[name].as_str().map(str::to_owned);
        self.session.access_token = text("access_token");
        assert!(self.session.access_token.is_some(), "{tokens}");
        // Absent: the old one is kept.
        if let Some(refresh_token) = text("refresh_token") {
            self.session.refresh_token = Some(refresh_token);
        }
        assert!(tokens["expires_in"].is_u64(), "{tokens}");
    }

    /// `whoami`
    async fn whoami(&mut self) -> Result<String, Failed> {
        let profile = self.call("/auth/v1/profile").await?;
        Ok(identity(&profile))
    }

    /// `login`. `person` is what happens in the browser, which ends at the listener.
    async fn login(&mut self, person: impl AsyncFnOnce(&str) -> Page) -> Result<(), Failed> {
        let callback = Callback::listen().await;
        let code_verifier = random(32);
        let state = random(16);
        let query = [
            ("client_id", CLIENT_ID),
            ("redirect_uri", &callback.url),
            ("response_type", "code"),
            ("scope", SCOPES),
            (
                "code_challenge",
                &base64url(&Sha256::digest(&code_verifier)),
            ),
            ("code_challenge_method", "S256"),
            ("state", &state),
        ];
        let authorize = format!("{}/api/oauth/v1/authorize", self.api_url);
        let authorize = reqwest::Url::parse_with_params(&authorize, query).unwrap();
        let sent_to = person(authorize.as_str()).await;
        assert!(
            sent_to.url.as_str().starts_with(&callback.url),
            "{}",
            sent_to.url
        );
        let seen = self.http.get(sent_to.url).send().await.unwrap();
        assert!(seen.text().await.unwrap().contains(BACK));

        let returned = callback.next().await;
        if let Some(error) = returned.get("error") {
            let text = returned.get("error_description").unwrap_or(error).clone();
            return Err(failed(text));
        }
        assert_eq!(returned["state"], state, "unchanged");
        let body = json!({
            "grant_type": "authorization_code",
            "code": returned["code"],
            "redirect_uri": callback.url,
            "client_id": CLIENT_ID,
            "code_verifier": code_verifier,
        });
        let answer = Answer::to(self.post("/api/oauth/v1/token").json(&body)).await;
        if answer.status != 200 {
            return Err(failed(protocol_text(&answer.body)));
        }
        self.save(&answer.body);
        Ok(())
    }

    /// `login --email`
    async fn login_email(&mut self, email: &str, password: &str) -> Result<Value, Failed> {
        let body = json!({ "email": email, "password": password });
        let answer = Answer::to(self.post("/auth/v1/login").json(&body)).await;
        if !(200..=299).contains(&answer.status) {
            let text = answer.body["error"].as_str().expect("an error is shown");
            return Err(Failed {
                text: text.to_owned(),
                exit: 2,
            });
        }
        // 4.2: all headers as one text; the value runs to the first `;` and is not decoded.
        let cookies = answer.headers.get_all(SET_COOKIE);
        let cookies: Vec<&str> = cookies.iter().map(|c| c.to_str().unwrap()).collect();
        let cookies = cookies.join(", ");
        let (_, value) = cookies.split_once("refreshToken=").expect("the cookie");
        let value = value.split(';').next().unwrap_or_default();
        assert!(
            value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)),
            "used as it stands"
        );
        self.session.refresh_token = Some(value.to_owned());
        self.session.access_token = answer.body["token"].as_str().map(str::to_owned);
        Ok(answer.body)
    }

    /// `login --device`, its first part.
    async fn begin_device(&self, client_id: &str) -> Result<PendingLogin, Failed> {
        let body = json!({ "client_id": client_id, "scope": SCOPES });
        let path = "/api/oauth/v1/device_authorization";
        let answer = Answer::to(self.post(path).json(&body)).await;
        if answer.status != 200 {
            if answer.body["error"] == "unauthorized_client" {
                return Err(failed("device login is not enabled".into()));
            }
            return Err(failed(shown(&answer.body)));
        }
        let text = |name: &str| answer.body[name].as_str().expect("a text").to_owned();
        let seconds = |name: &str| answer.body[name].as_u64().map(Duration::from_secs);
        text("verification_uri");
        Ok(PendingLogin {
            device_code: text("device_code"),
            user_code: text("user_code"),
            link: text("verification_uri_complete"),
            expires_in: seconds("expires_in").expect("a number"),
            interval: seconds("interval").unwrap_or(Duration::from_secs(5)),
        })
    }

    /// One poll of the second part.
    async fn poll(&mut self, device: &PendingLogin) -> Polled {
        let body = json!({
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "device_code": device.device_code,
            "client_id": CLIENT_ID,
        });
        let answer = Answer::to(self.post("/api/oauth/v1/token").json(&body)).await;
        if answer.status == 200 {
            self.save(&answer.body);
            return Polled::SignedIn;
        }
        // 6.2: never a bare 429 or 5xx, which would end the login.
        assert_eq!(answer.status, 400, "{}", answer.text);
        match answer.body["error"].as_str() {
            Some("authorization_pending") => Polled::Pending,
            Some("slow_down") => Polled::SlowDown,
            Some(error) => Polled::Stopped {
                drops_the_code: matches!(error, "access_denied" | "expired_token"),
                text: protocol_text(&answer.body),
            },
            None => panic!("no error: {}", answer.text),
        }
    }
}

/// `~/.insforge/pending-device.json`
#[derive(Clone)]
struct PendingLogin {
    device_code: String,
    user_code: String,
    link: String,
    expires_in: Duration,
    interval: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum Polled {
    SignedIn,
    Pending,
    SlowDown,
    Stopped { drops_the_code: bool, text: String },
}

fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// So many random bytes, in base64url.
fn random(bytes: usize) -> String {
    let random = std::iter::repeat_with(|| Uuid::new_v4().into_bytes()).flatten();
    base64url(&random.take(bytes).collect::<Vec<u8>>())
}

/// 3.2: `<error>: <message>`, or one of them.
fn shown(body: &Value) -> String {
    let texts = [&body["error"], &body["message"]];
    let texts: Vec<&str> = texts.into_iter().filter_map(Value::as_str).collect();
    texts.join(": ")
}

/// 3.2: `error_description`, else `error`.
fn protocol_text(body: &Value) -> String {
    let text = body["error_description"]
        .as_str()
        .or(body["error"].as_str());
    text.expect("a text").to_owned()
}

/// Of a login. 3.2: with this word the client would end well, and silently.
#[track_caller]
fn failed(text: String) -> Failed {
    assert!(!text.contains("cancelled"), "{text}");
    Failed { text, exit: 1 }
}

/// 4.1 and 4.3: what `whoami` prints.
fn identity(profile: &Value) -> String {
    let user = profile.get("user").unwrap_or(profile);
    let text = |name: &str| {
        user[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name}: {user}"))
    };
    assert!(!text("id").is_empty());
    assert!(user["email_verified"].is_boolean(), "{user}");
    assert!(user.get("avatar_url").is_some(), "{user}");
    format!("{} <{}>", text("name"), text("email"))
}

const DEMO: &str = "Demo User <demo@insforge.local>";

/// Fills in the login page that a browser was sent to.
async fn sign_in(dev: &Dev, visitor: &Visitor, page: &Page) -> Page {
    let (email, password) = dev.demo_user();
    let values = [("email", &*email), ("password", &*password)];
    visitor.submit(page, "/login", &values).await
}

async fn login(dev: &Dev) {
    let visitor = dev.visitor();
    let mut client = CommandLine::new(dev);
    let first = client.login(async |authorize| {
        let page = visitor.open(authorize).await;
        let page = sign_in(dev, &visitor, &page).await;
        page.expect_text("InsForge CLI");
        visitor.press(&page, "/consent", "Allow", &[]).await
    });
    first.await.expect("a person signs in");
    assert_eq!(client.whoami().await.unwrap(), DEMO);

    // The next time they are signed in, and only allow it.
    let mut again = CommandLine::new(dev);
    let second = again.login(async |authorize| visitor.allow(authorize).await);
    second.await.expect("a person signs in");
    assert_eq!(again.whoami().await.unwrap(), DEMO);

    // Another computer, and the person denies it.
    let stranger = dev.visitor();
    let mut denied = CommandLine::new(dev);
    let refused = denied
        .login(async |authorize| {
            let page = stranger.open(&format!("{authorize}&prompt=consent")).await;
            let page = sign_in(dev, &stranger, &page).await;
            stranger.press(&page, "/consent", "Do not allow", &[]).await
        })
        .await
        .expect_err("it was denied");
    assert_eq!(refused.exit, 1);
    assert!(refused.text.contains("denied"), "{refused:?}");
    assert!(denied.session.access_token.is_none());

    // A code that is none.
    let body = json!({
        "grant_type": "authorization_code",
        "code": "iac_none",
        "redirect_uri": "http://127.0.0.1:1/callback",
        "client_id": CLIENT_ID,
        "code_verifier": random(32),
    });
    let answer = Answer::to(client.post("/api/oauth/v1/token").json(&body)).await;
    assert_eq!(
        (answer.status, answer.body["error"].as_str()),
        (400, Some("invalid_grant"))
    );
    failed(protocol_text(&answer.body));
}

/// 2.4
async fn a_session_outlives_its_access_tokens(dev: &Dev) {
    let (email, password) = dev.demo_user();
    let mut client = CommandLine::new(dev);
    client.login_email(&email, &password).await.unwrap();
    let expired = || Some("eyJhbGciOiJIUzI1NiJ9.e30.expired".to_owned());
    let first = client.session.clone();

    client.session.access_token = expired();
    assert_eq!(
        client.whoami().await.unwrap(),
        DEMO,
        "refreshed and repeated"
    );
    let second = client.session.clone();
    assert_ne!(second.access_token, expired());
    assert_ne!(second.refresh_token, first.refresh_token);

    // `link` makes its first two calls at once; each gets 401, each refreshes with the same token.
    let stale = Session {
        access_token: expired(),
        ..second.clone()
    };
    let (mut left, mut right) = (
        client.with_session(stale.clone()),
        client.with_session(stale),
    );
    let (one, other) = tokio::join!(left.whoami(), right.whoami());
    assert_eq!(
        (one.unwrap().as_str(), other.unwrap().as_str()),
        (DEMO, DEMO)
    );
    assert_eq!(
        left.session.refresh_token, right.session.refresh_token,
        "the same successor"
    );
    assert_ne!(left.session.refresh_token, second.refresh_token);
    // Whichever of them was saved, the session goes on.
    left.session.access_token = expired();
    assert_eq!(left.whoami().await.unwrap(), DEMO);

    // A token of long ago: somebody stole one. All of the session ends, with exit 2.
    let mut thief = client.with_session(Session {
        access_token: expired(),
        ..first
    });
    assert_eq!(thief.whoami().await.unwrap_err().exit, 2);
    assert_eq!(left.get("/auth/v1/profile").await.status, 401, "never 403");
    assert_eq!(left.whoami().await.unwrap_err().exit, 2);
}

async fn login_email(dev: &Dev) {
    let (email, password) = dev.demo_user();
    let mut client = CommandLine::new(dev);
    let answer = client
        .login_email(&email, &password)
        .await
        .expect("it is right");
    assert_eq!(cp_tests::fields(&answer), ["token", "user"], "bare");
    assert_eq!(identity(&answer), DEMO);
    assert_eq!(client.whoami().await.unwrap(), DEMO);
    // The cookie's value is a refresh token of the public client.
    client.refresh().await.expect("it is refreshed");
    assert_eq!(client.whoami().await.unwrap(), DEMO);

    for (email, password) in [
        (&*email, "wrong password"),
        ("nobody@example.com", &*password),
    ] {
        let refused = client
            .login_email(email, password)
            .await
            .expect_err("it is wrong");
        assert_eq!(refused.exit, 2);
        failed(refused.text);
    }
}

async fn login_device(dev: &Dev) {
    let visitor = dev.visitor();
    let mut client = CommandLine::new(dev);
    let device = client.begin_device(CLIENT_ID).await.expect("it begins");
    assert_eq!(device.expires_in, Duration::from_mins(15));
    let is_letters = |part: &str| part.len() == 4 && part.bytes().all(|b| b.is_ascii_uppercase());
    let parts = device.user_code.split_once('-').expect("BCDF-GHJK");
    assert!(
        is_letters(parts.0) && is_letters(parts.1),
        "{}",
        device.user_code
    );
    assert!(device.link.contains(&device.user_code), "{}", device.link);

    assert_eq!(client.poll(&device).await, Polled::Pending);
    assert_eq!(
        client.poll(&device).await,
        Polled::SlowDown,
        "sooner than its interval"
    );
    let page = visitor.open(&device.link).await;
    let page = sign_in(dev, &visitor, &page).await;
    visitor.decide_device(&page, "Allow").await;
    // For good: five seconds more.
    tokio::time::sleep(device.interval + Duration::from_secs(5)).await;
    assert_eq!(client.poll(&device).await, Polled::SignedIn);
    assert_eq!(client.whoami().await.unwrap(), DEMO);
    assert!(client.session.refresh_token.is_some());
    client.refresh().await.expect("it is refreshed");
    stops_with(client.poll(&device).await, "expired");

    // The terminal was closed; the person allows it; a later `login --device` takes the saved code.
    let saved = client.begin_device(CLIENT_ID).await.expect("it begins");
    let page = visitor.open(&saved.link).await;
    visitor.decide_device(&page, "Allow").await;
    let mut later = CommandLine::new(dev);
    assert_eq!(later.poll(&saved).await, Polled::SignedIn);
    assert_eq!(later.whoami().await.unwrap(), DEMO);

    let device = client.begin_device(CLIENT_ID).await.expect("it begins");
    let page = visitor.open(&device.link).await;
    visitor.decide_device(&page, "Do not allow").await;
    stops_with(client.poll(&device).await, "denied");

    let device = client.begin_device(CLIENT_ID).await.expect("it begins");
    let mut database = sqlx::PgConnection::connect(&dev.database_url())
        .await
        .unwrap();
    sqlx::query("update oauth_device_codes set expires_at = now() where state = 'pending'")
        .execute(&mut database)
        .await
        .expect("a code can be made old");
    stops_with(client.poll(&device).await, "expired");
    let unknown = PendingLogin {
        device_code: "idc_none".into(),
        ..device
    };
    stops_with(client.poll(&unknown).await, "expired");

    let other = dev
        .relying_party("https://app.example/callback", &["--public"])
        .await;
    let refused = client.begin_device(&other.client_id).await;
    assert_eq!(refused.err().unwrap().text, "device login is not enabled");
}

/// 6.2, and 3.2: the text, too, makes the client drop the code.
#[track_caller]
fn stops_with(polled: Polled, word: &str) {
    let Polled::Stopped {
        drops_the_code,
        text,
    } = polled
    else {
        panic!("{polled:?}");
    };
    assert!(drops_the_code, "{text}");
    assert!(text.to_lowercase().contains(word), "{text}");
    failed(text);
}

async fn login_user_api_key(dev: &Dev) {
    let visitor = dev.signed_in().await;
    let key = visitor.make_api_key("laptop").await;
    assert!(key.starts_with("uak_"), "refused locally otherwise");
    let client = CommandLine::new(dev);
    // 2.2: without a Content-Type, and without a refresh.
    let check = async |key: &str| {
        let request = client
            .http
            .get(format!("{}/auth/v1/profile", client.api_url));
        Answer::to(request.bearer_auth(key)).await
    };
    let profile = check(&key).await.expect(200);
    assert_eq!(identity(&profile), DEMO);

    let mut client = CommandLine::new(dev);
    client.session.user_api_key = Some(key.clone());
    assert_eq!(client.whoami().await.unwrap(), DEMO);

    // A wrong last character: its checksum fails, too.
    let last = if key.ends_with('A') { 'B' } else { 'A' };
    let wrong = format!("{}{last}", &key[..key.len() - 1]);
    for bad in [wrong.as_str(), "uak_", "uak_unknown"] {
        let answer = check(bad).await;
        assert_eq!(answer.status, 401, "neither 429 nor 5xx: {}", answer.text);
        failed(shown(&answer.body));
    }
    visitor.revoke_api_key().await;
    check(&key).await.expect(401);
    client.session.refresh_token = None;
    assert_eq!(client.whoami().await.unwrap_err().exit, 2);
}
