//! Clients that are not who they say, and secrets in the wrong places.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cp_model::ClientKind;
use cp_tests::{Answer, RelyingParty};
use serde_json::{Value, json};

use crate::stage::{Stage, TOKEN, form, installation_with, refused, wire};

fn code_grant(by: &RelyingParty, code: &str) -> Value {
    json!({
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": by.redirect_uri,
        "code_verifier": by.code_verifier,
    })
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

async fn with_header(by: &RelyingParty, body: &Value, authorization: &[&str]) -> Answer {
    let mut request = wire().post(format!("{}{TOKEN}", by.base_url)).json(body);
    for value in authorization {
        request = request.header("authorization", *value);
    }
    Answer::to(request).await
}

#[tokio::test]
async fn a_secret_in_the_address_is_refused() {
    // RFC 6749 section 2.3.1: must not be in the request URI; RFC 9700 section 4.3.
    let stage = Stage::new().await;
    let secret = stage.notes.client_secret.clone().unwrap();
    let code = stage.code().await;
    let mut body = code_grant(&stage.notes, &code);
    body["client_id"] = json!(stage.notes.client_id);
    let query = form(&[("client_secret", &secret)]);
    let path = format!("{TOKEN}?{query}");
    refused(stage.notes.post(&path, &body).await, 400, "invalid_request");
    // Not even beside the right one in the body.
    body["client_secret"] = json!(secret);
    refused(stage.notes.post(&path, &body).await, 400, "invalid_request");
    for name in [
        "code",
        "refresh_token",
        "code_verifier",
        "client_id",
        "grant_type",
    ] {
        let path = format!("{TOKEN}?{}", form(&[(name, "x")]));
        refused(stage.notes.post(&path, &body).await, 400, "invalid_request");
    }
    stage.notes.post(TOKEN, &body).await.expect(200);
}

#[tokio::test]
async fn a_wrong_secret_is_refused() {
    // RFC 6749 section 5.2.
    let stage = Stage::new().await;
    let code = stage.code().await;
    let right = stage.notes.client_secret.clone().unwrap();
    let another = stage.app.relying_party().await.client_secret.unwrap();
    let body = code_grant(&stage.notes, &code);
    let spaced = format!("{right} ");
    for secret in [
        "x",
        &right[..right.len() - 1],
        &spaced,
        &another,
        &right.to_uppercase(),
    ] {
        let wrong = RelyingParty {
            client_secret: Some(secret.into()),
            ..stage.notes.clone()
        };
        refused(wrong.token(body.clone()).await, 401, "invalid_client");
        let header = basic(&stage.notes.client_id, secret);
        let answer = with_header(&stage.notes, &body, &[&header]).await;
        let challenge = answer
            .header("www-authenticate")
            .unwrap_or_default()
            .to_owned();
        refused(answer, 401, "invalid_client");
        assert!(challenge.starts_with("Basic "), "{challenge}");
    }
    // A stranger could not burn the code.
    stage.notes.exchange(&code).await.expect(200);
}

#[tokio::test]
async fn a_confidential_client_without_its_secret_is_refused() {
    // RFC 6749 section 3.2.1, RFC 6819 section 4.4.1.
    let stage = Stage::new().await;
    let code = stage.code().await;
    let mut body = code_grant(&stage.notes, &code);
    body["client_id"] = json!(stage.notes.client_id);
    refused(stage.notes.post(TOKEN, &body).await, 401, "invalid_client");
    body["client_secret"] = json!("");
    refused(stage.notes.post(TOKEN, &body).await, 401, "invalid_client");
    body["client_secret"] = json!(null);
    refused(stage.notes.post(TOKEN, &body).await, 401, "invalid_client");
    let header = basic(&stage.notes.client_id, "");
    let answer = with_header(&stage.notes, &code_grant(&stage.notes, &code), &[&header]).await;
    refused(answer, 401, "invalid_client");
    stage.notes.exchange(&code).await.expect(200);
}

#[tokio::test]
async fn a_public_client_that_sends_a_secret_is_refused() {
    // RFC 6749 section 2.1: it has none; somebody is mistaken or guessing.
    let stage = Stage::with_public_client().await;
    let code = stage.code().await;
    let body = code_grant(&stage.notes, &code);
    let guessing = RelyingParty {
        client_secret: Some("ics_x".into()),
        ..stage.notes.clone()
    };
    refused(guessing.token(body.clone()).await, 401, "invalid_client");
    let header = basic(&stage.notes.client_id, "ics_x");
    refused(
        with_header(&stage.notes, &body, &[&header]).await,
        401,
        "invalid_client",
    );
    stage.notes.exchange(&code).await.expect(200);
}

#[tokio::test]
async fn two_ways_to_authenticate_are_one_too_many() {
    // RFC 6749 section 2.3: not more than one method in each request.
    let stage = Stage::new().await;
    let secret = stage.notes.client_secret.clone().unwrap();
    let code = stage.code().await;
    let header = basic(&stage.notes.client_id, &secret);
    let mut body = code_grant(&stage.notes, &code);
    body["client_secret"] = json!(secret);
    refused(
        with_header(&stage.notes, &body, &[&header]).await,
        400,
        "invalid_request",
    );
    body["client_id"] = json!(stage.notes.client_id);
    refused(
        with_header(&stage.notes, &body, &[&header]).await,
        400,
        "invalid_request",
    );
    let body = code_grant(&stage.notes, &code);
    refused(
        with_header(&stage.notes, &body, &[&header, &header]).await,
        400,
        "invalid_request",
    );
    with_header(&stage.notes, &body, &[&header])
        .await
        .expect(200);
}

#[tokio::test]
async fn a_client_cannot_speak_for_another_in_the_body() {
    // RFC 6749 section 4.1.3: the authenticated client is the one that counts.
    let stage = Stage::new().await;
    let thief = stage.app.relying_party().await;
    let code = stage.code().await;
    let header = basic(&thief.client_id, thief.client_secret.as_deref().unwrap());
    let mut body = code_grant(&stage.notes, &code);
    body["client_id"] = json!(stage.notes.client_id);
    let answer = with_header(&stage.notes, &body, &[&header]).await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert_eq!(stage.app.database.count("oauth_grants").await, 0);
}

#[tokio::test]
async fn unknown_clients_and_wrong_secrets_look_the_same() {
    // RFC 6819 section 4.3.5: nobody learns which clients exist.
    let stage = Stage::new().await;
    let ask = async |client_id: &str| {
        let mut asking = stage.notes.clone();
        asking.client_id = client_id.into();
        asking.client_secret = Some("ics_wrong".into());
        let body = refused(asking.exchange("iac_x").await, 401, "invalid_client");
        body["error_description"].clone()
    };
    let known = ask(&stage.notes.client_id).await;
    let public = stage.app.public_relying_party().await;
    for client_id in ["clf_nobody", "nonsense", "clf_%00", &public.client_id] {
        assert_eq!(ask(client_id).await, known, "{client_id}");
    }
}

#[tokio::test]
async fn guessing_secrets_is_stopped() {
    // RFC 6749 section 10.10, RFC 6819 section 4.3.5: counted per address.
    let (app, clock) = installation_with(|options| options.auth_failures_per_minute = 5).await;
    let notes = app.relying_party().await;
    let ada = app.person("Ada").await;
    let code = notes.code_for(&ada.visitor).await;
    let wrong = RelyingParty {
        client_secret: Some("ics_wrong".into()),
        ..notes.clone()
    };
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(wrong.exchange(&code).await.status);
    }
    assert!(statuses.starts_with(&[401; 5]), "{statuses:?}");
    assert!(statuses.ends_with(&[429; 6]), "{statuses:?}");
    let answer = wrong.exchange(&code).await;
    assert!(answer.header("retry-after").is_some());
    refused(answer, 429, "temporarily_unavailable");
    clock.advance(chrono::TimeDelta::minutes(1));
    refused(wrong.exchange("iac_x").await, 401, "invalid_client");
    let code = notes.code_for(&ada.visitor).await;
    notes.exchange(&code).await.expect(200);
}

#[tokio::test]
async fn a_grant_that_a_client_may_not_use_is_refused() {
    // RFC 6749 section 5.2, RFC 8628 section 3.2: unauthorized_client.
    let stage = Stage::new().await;
    let plain = stage
        .app
        .relying_party_with(ClientKind::Public, |new| new.device_grant = false)
        .await;
    let body = json!({"client_id": plain.client_id, "scope": "user:read"});
    let answer = plain
        .post("/api/oauth/v1/device_authorization", &body)
        .await;
    refused(answer, 400, "unauthorized_client");
}

#[tokio::test]
async fn a_confidential_client_asks_for_devices_with_its_secret() {
    // RFC 8628 section 3.1: client authentication as at the token endpoint.
    let stage = Stage::new().await;
    let path = "/api/oauth/v1/device_authorization";
    let mut body = json!({"client_id": stage.notes.client_id, "scope": "user:read"});
    refused(stage.notes.post(path, &body).await, 401, "invalid_client");
    body["client_secret"] = json!(stage.notes.client_secret);
    stage.notes.post(path, &body).await.expect(200);
}
