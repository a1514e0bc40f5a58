//! The keys that sign authorizations: published, rotated, retired (partnership-api.md, "JWKS and
//! keys").

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use cp_model::Clock;
use cp_tests::{Answer, App, AppOptions, MovingClock, PartnerClient, eventually, fields};
use cp_tokens::TokenError;
use cp_tokens::keyring::{Expected, Jwks, KeyState, ProjectAuthorization, verify};
use serde_json::{Value, json};

struct Story {
    app: App,
    clock: Arc<MovingClock>,
    partner: PartnerClient,
    project: String,
    host: String,
}

impl Story {
    /// With an active project, and no worker that would rotate keys or lose machines when the
    /// clock moves.
    async fn start() -> Self {
        let clock = MovingClock::new();
        let mut app = App::start_with(AppOptions {
            clock: clock.clone(),
            ..AppOptions::default()
        })
        .await;
        let partner = app.partner().await;
        let project = partner.create_project("shop").await;
        assert_eq!(project["status"], "active", "{project}");
        app.settle().await;
        app.kill_worker();
        Self {
            app,
            clock,
            partner,
            project: project["id"].as_str().unwrap().to_owned(),
            host: project["access_host"].as_str().unwrap().to_owned(),
        }
    }

    async fn token(&self) -> String {
        self.token_through(&self.partner).await
    }

    async fn token_through(&self, partner: &PartnerClient) -> String {
        let path = format!("/{}/authorization", self.project);
        let body = partner.post(&path, &json!({})).await.expect(200);
        body["code"].as_str().unwrap().to_owned()
    }

    async fn jwks(&self) -> Answer {
        jwks(&self.app, &self.app.base_url).await
    }

    async fn kids(&self) -> Vec<String> {
        kids(&self.jwks().await.expect(200))
    }

    /// As a backend that fetches the key set now.
    async fn verify(&self, token: &str) -> Result<ProjectAuthorization, TokenError> {
        let jwks: Jwks = serde_json::from_str(&self.jwks().await.text).unwrap();
        let expected = Expected {
            issuer: &self.app.base_url,
            audience: &self.host,
        };
        verify(token, &jwks, expected, self.clock.now())
    }

    async fn rotate(&self, force: bool) {
        let control_plane = &self.app.control_plane;
        control_plane.rotate_signing_keys(force).await.unwrap();
    }

    async fn kid_in(&self, state: KeyState) -> String {
        let keys = self.app.control_plane.list_signing_keys().await.unwrap();
        let key = keys.into_iter().find(|key| key.state == state);
        key.unwrap_or_else(|| panic!("no key is {state}")).kid
    }
}

async fn jwks(app: &App, base_url: &str) -> Answer {
    Answer::to(app.http.get(format!("{base_url}/.well-known/jwks.json"))).await
}

fn kids(jwks: &Value) -> Vec<String> {
    let keys = jwks["keys"].as_array().unwrap().iter();
    keys.map(|key| key["kid"].as_str().unwrap().to_owned())
        .collect()
}

fn kid_of(token: &str) -> String {
    let header = jsonwebtoken::decode_header(token).unwrap();
    header.kid.expect("a kid")
}

#[tokio::test]
async fn the_key_set_is_public_and_says_how_long_it_may_be_kept() {
    let app = App::start_with(AppOptions {
        worker: false,
        ..AppOptions::default()
    })
    .await;
    let answer = jwks(&app, &app.base_url).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
    let etag = answer.header("etag").expect("an ETag").to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    let body = answer.expect(200);
    assert_eq!(fields(&body), ["keys"]);
    for key in body["keys"].as_array().unwrap() {
        assert_eq!(
            fields(key),
            ["alg", "e", "kid", "kty", "n", "use"],
            "the public half only"
        );
        assert_eq!(
            [&key["kty"], &key["alg"], &key["use"], &key["e"]],
            ["RSA", "RS256", "sig", "AQAB"]
        );
        // 2048 bits are 256 bytes, in base64url without padding 342 characters.
        assert!(key["n"].as_str().unwrap().len() >= 342);
    }

    let ask = async |known: &str| {
        let request = app
            .http
            .get(format!("{}/.well-known/jwks.json", app.base_url))
            .header("if-none-match", known);
        Answer::to(request).await
    };
    for known in [etag.as_str(), "*", &format!("\"x\", W/{etag}")] {
        let answer = ask(known).await;
        assert_eq!(answer.status, 304, "{known}");
        assert_eq!(answer.text, "");
        assert_eq!(answer.header("etag"), Some(etag.as_str()));
        assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
    }
    ask("\"older\"").await.expect(200);
}

#[tokio::test]
async fn a_key_is_published_before_it_signs_and_until_its_tokens_have_expired() {
    let story = Story::start().await;
    let second = story.app.start_second_api().await;
    let through_second = story.partner.through(&second);
    let old = story.token().await;
    let old_etag = story.jwks().await.header("etag").unwrap().to_owned();

    story.rotate(true).await;
    let next = story.kid_in(KeyState::Next).await;
    assert!(story.kids().await.contains(&next), "published at once");
    assert_ne!(story.jwks().await.header("etag"), Some(old_etag.as_str()));
    assert_eq!(kid_of(&story.token().await), kid_of(&old), "not in use yet");
    story
        .verify(&old)
        .await
        .expect("nothing has changed for it");
    // Not before one cache lifetime has passed, however often it is asked for.
    story.clock.advance(TimeDelta::seconds(301));
    story.rotate(true).await;
    assert_eq!(kid_of(&story.token().await), kid_of(&old));

    story.clock.advance(TimeDelta::minutes(15));
    let late = story.token().await;
    story.rotate(false).await;
    let new = story.token().await;
    assert_eq!(kid_of(&new), next);
    story.verify(&new).await.expect("the new key is published");
    story.verify(&late).await.expect("the old one still is");
    // Both processes agree, without either being told.
    eventually("both APIs sign alike", Duration::from_secs(5), async || {
        let other = story.token_through(&through_second).await;
        (kid_of(&other) == next).then_some(())
    })
    .await;
    let (ours, theirs) = (story.jwks().await, jwks(&story.app, &second).await);
    assert_eq!(ours.text, theirs.text);
    assert_eq!(ours.header("etag"), theirs.header("etag"));

    // Published for as long as anything it signed may be accepted, and no longer.
    // Time passes for the test, too: ten seconds of it.
    story.clock.advance(TimeDelta::seconds(590));
    story.rotate(false).await;
    story.verify(&late).await.expect("its last seconds");
    story.clock.advance(TimeDelta::seconds(11));
    story.rotate(false).await;
    let expired = story.verify(&late).await.unwrap_err();
    assert!(!matches!(expired, TokenError::UnknownKey), "{expired}");
    story.clock.advance(TimeDelta::minutes(2));
    story.rotate(false).await;
    assert!(!story.kids().await.contains(&kid_of(&late)));
    assert_eq!(story.kid_in(KeyState::Retired).await, kid_of(&late));
}

#[tokio::test]
async fn keys_rotate_by_themselves_after_their_lifetime() {
    let story = Story::start().await;
    let first = story.kid_in(KeyState::Active).await;
    story.rotate(false).await;
    assert_eq!(story.kid_in(KeyState::Active).await, first, "not due");
    story.clock.advance(TimeDelta::days(30));
    story.rotate(false).await;
    story.clock.advance(TimeDelta::minutes(16));
    story.rotate(false).await;
    assert_ne!(story.kid_in(KeyState::Active).await, first);
    assert_eq!(story.kid_in(KeyState::Retiring).await, first);
}

#[tokio::test]
async fn a_leaked_key_can_be_retired_at_once() {
    let story = Story::start().await;
    let second = story.app.start_second_api().await;
    let leaked = story.token().await;
    let retire = async |kid: &str| story.app.control_plane.retire_signing_key(kid).await;
    let refused = retire(&kid_of(&leaked)).await.unwrap_err().to_string();
    assert!(refused.contains("signing-key rotate"), "{refused}");
    assert!(retire("no-such-key").await.is_err());

    story.rotate(true).await;
    story.clock.advance(TimeDelta::minutes(16));
    let leaked = story.token().await;
    story.rotate(false).await;
    story.verify(&leaked).await.expect("still published");
    retire(&kid_of(&leaked)).await.unwrap();
    let refused = story.verify(&leaked).await.unwrap_err();
    assert!(matches!(refused, TokenError::UnknownKey), "{refused}");
    eventually("both APIs dropped it", Duration::from_secs(5), async || {
        let published = jwks(&story.app, &second).await;
        (!published.text.contains(&kid_of(&leaked))).then_some(())
    })
    .await;
    // Again is no error, and the new key goes on.
    retire(&kid_of(&leaked)).await.unwrap();
    let token = story.token().await;
    story.verify(&token).await.expect("the new key signs");
}

#[tokio::test]
async fn private_halves_are_sealed_and_go_with_retirement() {
    let story = Story::start().await;
    story.rotate(true).await;
    story.clock.advance(TimeDelta::minutes(16));
    story.rotate(false).await;
    let old = story.kid_in(KeyState::Retiring).await;
    let control_plane = &story.app.control_plane;
    control_plane.retire_signing_key(&old).await.unwrap();

    let mut conn = story.app.database.connect().await;
    let rows: Vec<(String, Value, Option<Vec<u8>>)> =
        sqlx::query_as("select kid, public_jwk, private_sealed from signing_keys")
            .fetch_all(&mut conn)
            .await
            .unwrap();
    assert!(rows.len() >= 2);
    for (kid, public, sealed) in rows {
        assert_eq!(fields(&public), ["alg", "e", "kid", "kty", "n", "use"]);
        assert_eq!(sealed.is_none(), kid == old, "{kid}");
        let Some(sealed) = sealed else { continue };
        // PKCS#8 in DER begins with a SEQUENCE and names rsaEncryption, 1.2.840.113549.1.1.1.
        let algorithm = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
        assert!(!sealed.windows(9).any(|bytes| bytes == algorithm), "{kid}");
        assert!(!sealed.windows(5).any(|bytes| bytes == b"BEGIN"), "{kid}");
    }
}
