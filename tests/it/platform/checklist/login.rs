//! `login`, `whoami`, `list` (contract/platform-api.md 4 to 6).

use chrono::TimeDelta;
use cp_tests::{CLI_SCOPES, Callback};
use cp_tokens::pkce;
use reqwest::Method;
use serde_json::json;

use super::forms::{DEVICE, LOGIN, ORGANIZATIONS, PROFILE, PROJECTS, TOKENS};
use super::{Story, id_of, shown};

const CODE_VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const STATE: &str = "AbCdEfGhIjKlMnOpQrStUg";

#[tokio::test]
async fn login() {
    let story = Story::of("login").await;
    let callback = Callback::listen().await;
    let authorize = story.cli.open(
        "/api/oauth/v1/authorize",
        &[
            ("client_id", cp_model::CLI_CLIENT_ID),
            ("redirect_uri", &callback.url),
            ("response_type", "code"),
            ("scope", CLI_SCOPES),
            ("code_challenge", &pkce::code_challenge(CODE_VERIFIER)),
            ("code_challenge_method", "S256"),
            ("state", STATE),
        ],
    );
    story.person.log_in().await;
    let back = story.person.visitor.allow(&authorize).await;
    let url = back.url.as_str();
    assert!(url.starts_with(&callback.url), "any port: {url}");
    assert_eq!(back.param("state").as_deref(), Some(STATE), "unchanged");
    let redeem = json!({
        "grant_type": "authorization_code",
        "code": back.param("code").expect("a code"),
        "redirect_uri": callback.url,
        "code_verifier": CODE_VERIFIER,
    });
    let tokens = story.cli.token(redeem.clone()).await.shaped(200, &TOKENS);
    assert_eq!(tokens["scope"], CLI_SCOPES);
    let profile = story
        .cli
        .get("/auth/v1/profile")
        .await
        .shaped(200, &PROFILE);
    assert_eq!(profile["user"]["email"], story.person.email);
    // With the code it is over: an OAuth error, whose description is shown.
    let again = story.cli.token(redeem).await;
    assert_eq!(again.status, 400, "{}", again.text);
    assert_eq!(again.body["error"], "invalid_grant");
    let text = again.body["error_description"].as_str().unwrap();
    assert!(!text.is_empty() && !text.contains("cancelled"), "{text}");
}

#[tokio::test]
async fn login_device() {
    let story = Story::of("login --device").await;
    let device = story.cli.ask_for_device().await.shaped(200, &DEVICE);
    assert_eq!(device["expires_in"], 900);
    let link = device["verification_uri_complete"].as_str().unwrap();
    let user_code = device["user_code"].as_str().unwrap();
    assert!(link.contains(user_code), "{link}");
    let poll = async || {
        let body = json!({
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "device_code": device["device_code"],
        });
        story.cli.token(body).await
    };
    // It waits one interval first.
    let interval = TimeDelta::seconds(device["interval"].as_i64().unwrap_or(5));
    story.clock.advance(interval);
    let pending = poll().await.expect(400);
    assert_eq!(pending["error"], "authorization_pending");
    let hasty = poll().await.expect(400);
    assert_eq!(hasty["error"], "slow_down", "never 429");
    // The terminal is closed; the person allows it; the next run takes the saved code.
    story.person.log_in().await;
    let page = story.person.visitor.open(link).await;
    story.person.visitor.decide_device(&page, "Allow").await;
    story.clock.advance(interval + TimeDelta::seconds(5));
    poll().await.shaped(200, &TOKENS);
    let profile = story
        .cli
        .get("/auth/v1/profile")
        .await
        .shaped(200, &PROFILE);
    assert_eq!(profile["user"]["id"], story.ada.user);
    // With `invalid_grant` the client would keep the dead code.
    story.clock.advance(interval + TimeDelta::seconds(5));
    let used = poll().await.expect(400);
    assert_eq!(used["error"], "expired_token");
}

#[tokio::test]
async fn login_email() {
    let story = Story::of("login --email").await;
    let (email, password) = (&story.person.email, &story.person.password);
    let answer = story.cli.log_in(email, password).await;
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("application/json"), "{kind}");
    let answer = answer.shaped(200, &LOGIN);
    assert_eq!(answer["user"]["name"], "Ada");
    assert_eq!(cp_tests::fields(&answer), ["token", "user"], "bare");
    let cookie = story.cli.session().refresh_token.expect("the cookie");
    let is_safe = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    assert!(cookie.bytes().all(is_safe), "used as it stands: {cookie}");
    for (email, password) in [(&**email, "wrong"), ("nobody@example.com", password)] {
        shown(story.cli.log_in(email, password).await, 401);
    }
    // The cookie's value is a refresh token of the public client: the first 401 is got over.
    story.clock.advance(TimeDelta::minutes(61));
    let expired = story.cli.session();
    let cli = story.app.command_line();
    cli.set_session(expired);
    cli.get("/auth/v1/profile").await.shaped(200, &PROFILE);
    assert_eq!(cli.refreshed_with(), [cookie]);
}

#[tokio::test]
async fn login_user_api_key() {
    let story = Story::of("login --user-api-key").await;
    story.person.log_in().await;
    let key = story.person.visitor.make_api_key("laptop").await;
    assert!(key.starts_with("uak_"), "refused locally otherwise");
    let profile = story.cli.profile_of_key(&key).await.shaped(200, &PROFILE);
    assert_eq!(profile["user"]["id"], story.ada.user);
    story.person.visitor.revoke_api_key().await;
    for bad in [&*key, "uak_", "uak_unknown"] {
        shown(story.cli.profile_of_key(bad).await, 401);
    }
}

#[tokio::test]
async fn whoami() {
    let story = Story::of("whoami").await;
    let profile = story
        .cli
        .get("/auth/v1/profile")
        .await
        .shaped(200, &PROFILE);
    let user = &profile["user"];
    assert_eq!(
        (&user["id"], &user["name"], &user["email"]),
        (
            &json!(story.ada.user),
            &json!("Ada"),
            &json!(story.person.email)
        )
    );
}

#[tokio::test]
async fn list() {
    let story = Story::of("list").await;
    let team = story.ada.create_organization("Moreno Labs").await;
    let project = story.project().await;
    let listed = story.cli.get("/organizations/v1").await;
    let listed = listed.shaped(200, &ORGANIZATIONS);
    let ids: Vec<_> = listed["organizations"]
        .as_array()
        .unwrap()
        .iter()
        .map(id_of)
        .collect();
    assert_eq!(ids.len(), 2);
    assert!(ids.contains(&team), "{ids:?}");
    // All of them at once, with a token that has just expired: each call refreshes by itself, with the same token.
    story.clock.advance(TimeDelta::minutes(61));
    let stored = story.cli.session().refresh_token.unwrap();
    let path = |id: &String| format!("/organizations/v1/{id}/projects");
    let (first, second) = (path(&ids[0]), path(&ids[1]));
    let (first, second) = tokio::join!(story.cli.get(&first), story.cli.get(&second));
    let mut seen = Vec::new();
    for answer in [first, second] {
        let listed = answer.shaped(200, &PROJECTS);
        seen.extend(listed["projects"].as_array().unwrap().iter().map(id_of));
    }
    assert_eq!(seen, [project]);
    assert_eq!(story.cli.refreshed_with(), [stored.clone(), stored]);
}

/// Not a row: what every row does when a bearer is refused for good (2.4).
#[tokio::test]
async fn a_bearer_that_is_not_known_is_401_on_every_call_of_the_checklist() {
    let story = Story::of("whoami").await;
    story.cli.get("/auth/v1/profile").await.expect(200);
    let open = ["/auth/v1/login", "/api/oauth/", "/tracking/", "/platform/"];
    let calls = super::ROWS.iter().flat_map(|row| row.calls);
    let nowhere = uuid::Uuid::now_v7().to_string();
    for call in calls {
        let (method, path) = call.trim_start_matches("? ").split_once(' ').unwrap();
        if open.iter().any(|open| path.starts_with(open)) {
            continue;
        }
        let parts = path.split('/').map(|part| match part.strip_prefix('{') {
            Some(_) => &*nowhere,
            None => part,
        });
        let path = parts.collect::<Vec<_>>().join("/");
        let method: Method = method.parse().unwrap();
        let stranger = story.app.member_with("-", "uak_unknown");
        shown(
            cp_tests::Answer::to(stranger.request(method, &path)).await,
            401,
        );
    }
}
