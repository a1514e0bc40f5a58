//! OAuth clients that we did not write, against `dev`: the scripts of tests/clients (JavaScript and
//! Python; tests/clients/story.mjs tells how they speak), and the crate `oauth2`. The person who signs
//! in and allows is a browser without scripts.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use cp_tests::programs::{Dev, NO_POOL};
use cp_tests::{Callback, RelyingParty, SCOPE, Visitor};
use oauth2::basic::{BasicClient, BasicTokenResponse};
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken,
    DeviceAuthorizationUrl, HttpRequest, HttpResponse, IntrospectionUrl, PkceCodeChallenge,
    RedirectUrl, RevocationUrl, Scope, StandardDeviceAuthorizationResponse, StandardRevocableToken,
    TokenIntrospectionResponse as _, TokenResponse as _, TokenUrl,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Nobody listens there: the scripts are given the address that a person would be sent to.
const REDIRECT_URI: &str = "https://app.example/callback";

/// All there is of OAuth 2.0 here; not every library knows all of it.
const EVERYTHING: [&str; 7] = [
    "discovery",
    "code",
    "profile",
    "refresh",
    "introspection",
    "revocation",
    "device",
];

#[tokio::test]
async fn clients_in_other_languages_sign_people_in() {
    let dev = Dev::start_with(&[NO_POOL]).await;
    let stage = Stage::set(&dev).await;
    stage.plays("openid-client.mjs", &EVERYTHING).await;
    stage.plays("oauth4webapi.mjs", &EVERYTHING).await;
    let code = ["code", "profile", "refresh", "revocation"];
    let twice: Vec<String> = ["basic, form", "body, json"]
        .iter()
        .flat_map(|label| code.map(|step| format!("{step} ({label})")))
        .collect();
    let twice: Vec<&str> = twice.iter().map(String::as_str).collect();
    stage.plays("simple-oauth2.mjs", &twice).await;
    stage
        .plays("passport-oauth2.mjs", &["code", "profile", "refresh"])
        .await;
    stage.plays("authlib_client.py", &EVERYTHING).await;
    let known = ["code", "profile", "refresh", "revocation", "device"];
    stage.plays("requests_oauthlib_client.py", &known).await;
}

/// A client of each kind, and a person.
struct Stage<'a> {
    dev: &'a Dev,
    visitor: Visitor,
    confidential: RelyingParty,
    public: RelyingParty,
}

impl<'a> Stage<'a> {
    async fn set(dev: &'a Dev) -> Self {
        let limit = ["--rate-limit", "100000"];
        let options = |kind| [&[kind, "--device"], &limit[..]].concat();
        Self {
            dev,
            visitor: dev.signed_in().await,
            confidential: dev
                .relying_party(REDIRECT_URI, &options("--confidential"))
                .await,
            public: dev.relying_party(REDIRECT_URI, &options("--public")).await,
        }
    }

    /// # Panics
    /// When the script fails, with its reason, or has not done these steps.
    async fn plays(&self, script: &str, steps: &[&str]) {
        let config = json!({
            "base_url": self.dev.base_url(),
            "client_id": self.confidential.client_id,
            "client_secret": self.confidential.client_secret,
            "public_client_id": self.public.client_id,
            "redirect_uri": REDIRECT_URI,
        });
        let mut script = Script::start(self.dev, script, &config);
        let played = tokio::time::timeout(Duration::from_mins(1), async {
            loop {
                let said = script.next().await;
                if let Some(url) = said["authorize"].as_str() {
                    let back = self.visitor.allow(url).await;
                    script.answer(back.url.as_str()).await;
                } else if said["device"].is_object() {
                    approve(&self.visitor, &said["device"]).await;
                    script.answer("approved").await;
                } else {
                    assert_eq!(said["ok"], json!(steps), "{}", script.name);
                    return;
                }
            }
        });
        let played = played.await;
        assert!(played.is_ok(), "{} does not end", script.name);
    }
}

/// Opens the link that a device shows, and allows it.
async fn approve(visitor: &Visitor, begun: &Value) {
    let link = begun["verification_uri_complete"].as_str().expect("a link");
    let page = visitor.open(link).await;
    let page = visitor.decide_device(&page, "Allow").await;
    page.expect_text("The device is connected");
}

/// A running script: it asks in JSON lines. Dropped, it is killed.
struct Script {
    name: String,
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Script {
    fn start(dev: &Dev, name: &str, config: &Value) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = root.join("clients").join(name);
        let program = if path.extension().is_some_and(|end| end == "py") {
            root.join("../.venv/bin/python")
        } else {
            PathBuf::from("node")
        };
        let mut child = Command::new(&program)
            .arg(path)
            .current_dir(dev.home().path())
            // Not as an argument: others on this computer can read those.
            .env("OAUTH_CONFIG", config.to_string())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NO_PROXY", "127.0.0.1")
            .env("no_proxy", "127.0.0.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e} (scripts/setup --test)", program.display()));
        Self {
            name: name.to_owned(),
            stdin: child.stdin.take().expect("its input is piped"),
            lines: BufReader::new(child.stdout.take().expect("its output is piped")).lines(),
            child,
        }
    }

    /// What it asks or reports next.
    async fn next(&mut self) -> Value {
        let line = self.lines.next_line().await.expect("it writes text");
        if let Some(line) = line {
            return serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        }
        let mut reason = String::new();
        let mut stderr = self.child.stderr.take().expect("its errors are piped");
        stderr.read_to_string(&mut reason).await.expect("text");
        panic!("{}: {reason}", self.name)
    }

    async fn answer(&mut self, line: &str) {
        let line = format!("{line}\n");
        let written = self.stdin.write_all(line.as_bytes()).await;
        written.expect("it reads");
    }
}

/// Everything that the crate knows, configured from our metadata document.
#[tokio::test]
async fn the_crate_oauth2_signs_people_in() {
    let dev = Dev::start_with(&[NO_POOL]).await;
    let visitor = dev.signed_in().await;
    let callback = Callback::listen().await;
    let options = ["--confidential", "--device"];
    // Registered without a port: any of the loopback address is meant.
    let party = dev
        .relying_party("http://127.0.0.1/callback", &options)
        .await;
    let http = |request| send(party.http.clone(), request);
    let metadata = discover(&dev).await;
    let url = |name: &str| metadata[name].as_str().expect("a URL").to_owned();
    let client = BasicClient::new(ClientId::new(party.client_id.clone()))
        .set_client_secret(ClientSecret::new(
            party.client_secret.clone().expect("a secret"),
        ))
        .set_auth_uri(AuthUrl::new(url("authorization_endpoint")).unwrap())
        .set_token_uri(TokenUrl::new(url("token_endpoint")).unwrap())
        .set_redirect_uri(RedirectUrl::new(callback.url.clone()).unwrap())
        .set_introspection_url(IntrospectionUrl::new(url("introspection_endpoint")).unwrap())
        .set_device_authorization_url(
            DeviceAuthorizationUrl::new(url("device_authorization_endpoint")).unwrap(),
        )
        // It revokes over TLS only, and is right; `send` is the proxy that would stand before us.
        .set_revocation_url(
            RevocationUrl::new(url("revocation_endpoint").replacen("http:", "https:", 1)).unwrap(),
        );

    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let (authorize, state) = client
        .authorize_url(CsrfToken::new_random)
        .add_scopes(SCOPE.split(' ').map(|scope| Scope::new(scope.into())))
        .set_pkce_challenge(challenge)
        .url();
    let back = visitor.allow(authorize.as_str()).await;
    assert_eq!(back.param("state").as_ref(), Some(state.secret()));
    assert_eq!(back.param("iss").as_deref(), metadata["issuer"].as_str());
    let code = AuthorizationCode::new(back.param("code").expect("a code"));
    let tokens = client
        .exchange_code(code)
        .set_pkce_verifier(verifier)
        .request_async(&http)
        .await
        .expect("the code is exchanged");
    assert_eq!(tokens.expires_in(), Some(Duration::from_hours(1)));
    has_scopes(&tokens);
    let profile = party
        .profile(tokens.access_token().secret())
        .await
        .expect(200);

    // With the secret in the body this time.
    let client = client.set_auth_type(AuthType::RequestBody);
    let refresh_token = tokens.refresh_token().expect("a refresh token");
    let fresh = client
        .exchange_refresh_token(refresh_token)
        .request_async(&http)
        .await
        .expect("the refresh token is exchanged");
    has_scopes(&fresh);
    let successor = fresh.refresh_token().expect("a refresh token");
    assert_ne!(successor.secret(), refresh_token.secret());

    let known = client
        .introspect(fresh.access_token())
        .request_async(&http)
        .await;
    let known = known.expect("the token is introspected");
    assert!(known.active());
    assert_eq!(known.sub(), profile["user"]["id"].as_str());
    assert_eq!(
        known.client_id().map(|id| id.as_str()),
        Some(party.client_id.as_str())
    );

    let revocable = StandardRevocableToken::RefreshToken(successor.clone());
    let revoked = client.revoke_token(revocable).expect("it is over TLS");
    revoked.request_async(&http).await.expect("it is revoked");
    let known = client
        .introspect(fresh.access_token())
        .request_async(&http)
        .await;
    assert!(!known.expect("the token is introspected").active());
    party
        .profile(fresh.access_token().secret())
        .await
        .expect(401);

    let begun: StandardDeviceAuthorizationResponse = client
        .exchange_device_code()
        .add_scopes(SCOPE.split(' ').map(|scope| Scope::new(scope.into())))
        .request_async(&http)
        .await
        .expect("the device flow begins");
    assert_eq!(begun.interval(), Duration::from_secs(5));
    let link = begun.verification_uri_complete().expect("a link");
    let shown = json!({
        "verification_uri_complete": link.secret(),
        "user_code": begun.user_code().secret(),
    });
    // The person is slower than the first poll.
    let allowed = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        approve(&visitor, &shown).await;
    };
    let exchange = client.exchange_device_access_token(&begun);
    let polls = exchange.request_async(&http, tokio::time::sleep, Some(Duration::from_secs(30)));
    let (tokens, ()) = tokio::join!(polls, allowed);
    has_scopes(&tokens.expect("the device code is exchanged"));
}

/// RFC 8414, by hand: the crate does not know it.
async fn discover(dev: &Dev) -> Value {
    let url = format!("{}/.well-known/oauth-authorization-server", dev.base_url());
    let answer = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = answer.get(url).send().await.expect("dev answers");
    let metadata: Value = answer.json().await.expect("the metadata are JSON");
    assert_eq!(metadata["issuer"], dev.base_url());
    metadata
}

fn has_scopes(tokens: &BasicTokenResponse) {
    let scopes = tokens.scopes().expect("the answer names the scopes");
    let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    assert_eq!(scopes.join(" "), SCOPE);
}

async fn send(http: reqwest::Client, request: HttpRequest) -> Result<HttpResponse, reqwest::Error> {
    let mut request = reqwest::Request::try_from(request)?;
    let _ = request.url_mut().set_scheme("http");
    let response = http.execute(request).await?;
    let mut answer = HttpResponse::default();
    *answer.status_mut() = response.status();
    *answer.headers_mut() = response.headers().clone();
    *answer.body_mut() = response.bytes().await?.to_vec();
    Ok(answer)
}
