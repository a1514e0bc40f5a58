//! The flow of the public document, field by field, and what is written down about it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta};
use cp_tests::{Answer, RelyingParty, fields};
use serde_json::{Value, json};

use super::DEVICE_GRANT;
use crate::stage::{
    Stage, TOKEN, Tokens, assert_refused_elsewhere, form, installation, refused, wire,
};

#[tokio::test]
async fn a_person_signs_in_to_an_application() {
    let stage = Stage::new().await;
    let visitor = stage.app.visitor();
    let page = visitor.open(&stage.notes.authorize_url()).await;
    assert_eq!(page.url.path(), "/login");
    page.expect_text("Acme Notes");
    let to = [
        ("email", stage.ada.email.as_str()),
        ("password", &stage.ada.password),
    ];
    let page = visitor.submit(&page, "/login", &to).await;
    let page = visitor.press(&page, "/consent", "Allow", &[]).await;
    assert!(
        page.url
            .as_str()
            .starts_with("https://app.example/callback?"),
        "{}",
        page.url
    );
    assert_eq!(page.param("state"), Some(stage.notes.state.clone()));
    let code = page.param("code").unwrap();

    let answer = stage.notes.exchange(&code).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("pragma"), Some("no-cache"));
    let body = answer.expect(200);
    assert_eq!(
        fields(&body),
        [
            "access_token",
            "expires_in",
            "refresh_token",
            "scope",
            "token_type"
        ]
    );
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["expires_in"], 3600);
    assert_eq!(body["scope"], "user:read organizations:read");
    let tokens = Tokens::of(&body);

    let profile = stage.notes.profile(&tokens.access).await.expect(200);
    assert_eq!(profile["user"]["email"], stage.ada.email);

    let refreshed = stage.notes.refresh(&tokens.refresh).await.expect(200);
    assert_eq!(refreshed["scope"], "user:read organizations:read");
    let refreshed = Tokens::of(&refreshed);
    assert_ne!(refreshed.refresh, tokens.refresh);
    stage.notes.profile(&refreshed.access).await.expect(200);

    stage.notes.revoke(&refreshed.refresh).await.expect(200);
    stage.notes.profile(&refreshed.access).await.expect(401);
}

#[tokio::test]
async fn the_access_token_has_exactly_the_documents_claims() {
    let stage = Stage::new().await;
    let token = stage.tokens().await.access;
    let part = |at: usize| -> Value {
        let text = token.split('.').nth(at).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    };
    let header = part(0);
    assert_eq!(header["alg"], "HS256");
    assert_eq!(header["typ"], "at+jwt");
    assert!(header["kid"].is_string());
    let claims = part(1);
    assert_eq!(
        fields(&claims),
        [
            "aud",
            "client_id",
            "email",
            "exp",
            "iat",
            "iss",
            "jti",
            "role",
            "scope",
            "sub"
        ]
    );
    assert_eq!(claims["sub"], stage.ada.id.to_string());
    assert_eq!(claims["email"], stage.ada.email);
    assert_eq!(claims["role"], "authenticated");
    assert_eq!(claims["client_id"], stage.notes.client_id);
    assert_eq!(claims["scope"], "user:read organizations:read");
    assert_eq!(claims["iss"], "insforge");
    assert_eq!(claims["aud"], "insforge-api");
    let lifetime = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(lifetime, 3600);
}

#[tokio::test]
async fn the_profile_has_the_shapes_of_both_documents() {
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let answer = stage.notes.profile(&tokens.access).await;
    let cache = answer.header("cache-control").map(str::to_owned);
    assert_eq!(cache.as_deref(), Some("no-store"));
    let body = answer.expect(200);
    assert_eq!(fields(&body), ["user"]);
    let user = &body["user"];
    assert_eq!(
        fields(user),
        [
            "avatar_url",
            "created_at",
            "email",
            "email_verified",
            "id",
            "name",
            "profile"
        ]
    );
    assert_eq!(user["id"], stage.ada.id.to_string());
    assert_eq!(user["name"], "Ada");
    assert_eq!(user["avatar_url"], Value::Null);
    assert_eq!(user["email_verified"], true);
    assert_eq!(fields(&user["profile"]), ["avatar_url", "name"]);
    assert_eq!(user["profile"]["name"], "Ada");
    let created = user["created_at"].as_str().unwrap();
    assert!(created.ends_with('Z'), "{created}");
    assert!(DateTime::parse_from_rfc3339(created).is_ok(), "{created}");
}

#[tokio::test]
async fn a_client_authenticates_in_each_way_and_body() {
    let stage = Stage::new().await;
    let by = &stage.notes;
    let secret = by.client_secret.as_deref().unwrap();
    let url = format!("{}{TOKEN}", by.base_url);
    let header = format!(
        "Basic {}",
        STANDARD.encode(format!("{}:{secret}", by.client_id))
    );
    for is_json in [true, false] {
        for is_basic in [true, false] {
            let code = stage.code().await;
            let mut pairs = vec![
                ("grant_type", "authorization_code"),
                ("code", code.as_str()),
                ("redirect_uri", &by.redirect_uri),
                ("code_verifier", &by.code_verifier),
            ];
            if !is_basic {
                pairs.push(("client_id", &by.client_id));
                pairs.push(("client_secret", secret));
            }
            let mut request = wire().post(&url);
            if is_basic {
                request = request.header("authorization", &header);
            }
            let request = if is_json {
                let object: serde_json::Map<String, Value> = pairs
                    .iter()
                    .map(|(n, v)| ((*n).to_owned(), json!(v)))
                    .collect();
                request.json(&object)
            } else {
                request
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(form(&pairs))
            };
            let answer = Answer::to(request).await;
            assert_eq!(
                answer.status, 200,
                "json {is_json}, basic {is_basic}: {}",
                answer.text
            );
            stage
                .notes
                .profile(&Tokens::of(&answer.body).access)
                .await
                .expect(200);
        }
    }
}

#[tokio::test]
async fn unknown_parameters_are_ignored() {
    // RFC 6749 sections 3.1 and 3.2: clients send `resource`, `audience`, `nonce`.
    let stage = Stage::new().await;
    let url = stage.notes.authorize_url_with(&[
        ("nonce", "n"),
        ("audience", "x"),
        ("access_type", "offline"),
    ]);
    let page = stage.ada.visitor.open(&url).await;
    let page = stage
        .ada
        .visitor
        .press(&page, "/consent", "Allow", &[])
        .await;
    let body = json!({
        "grant_type": "authorization_code",
        "code": page.param("code").unwrap(),
        "redirect_uri": stage.notes.redirect_uri,
        "code_verifier": stage.notes.code_verifier,
        "resource": "https://api.example",
        "more": {"nested": [1]},
    });
    stage.notes.token(body).await.expect(200);
}

#[tokio::test]
async fn every_error_of_the_documents_tables_is_answered() {
    let stage = Stage::new().await;
    // Authorization errors: by redirect.
    for (name, value, error) in [
        ("code_challenge", "", "invalid_request"),
        ("code_challenge_method", "plain", "invalid_request"),
        ("response_type", "", "invalid_request"),
        ("response_type", "token", "unsupported_response_type"),
        ("scope", "nonsense", "invalid_scope"),
    ] {
        stage.refuses_by_redirect(&[(name, value)], error).await;
    }
    let page = stage.ada.visitor.open(&stage.notes.authorize_url()).await;
    let page = stage
        .ada
        .visitor
        .press(&page, "/consent", "Do not allow", &[])
        .await;
    assert_refused_elsewhere(&page, &stage.notes, "access_denied");
    // Token errors: invalid_grant for expired, used and mismatching codes.
    let late = stage.code().await;
    stage.clock.advance(TimeDelta::seconds(61));
    refused(stage.notes.exchange(&late).await, 400, "invalid_grant");
    let used = stage.code().await;
    stage.notes.exchange(&used).await.expect(200);
    refused(stage.notes.exchange(&used).await, 400, "invalid_grant");
    let other = RelyingParty {
        code_verifier: "another-verifier-another-verifier-another-1".into(),
        ..stage.notes.clone()
    };
    refused(
        other.exchange(&stage.code().await).await,
        400,
        "invalid_grant",
    );
    // invalid_client.
    let wrong = RelyingParty {
        client_secret: Some("ics_wrong".into()),
        ..stage.notes.clone()
    };
    refused(wrong.exchange("iac_x").await, 401, "invalid_client");
    // invalid_request for what is missing.
    for body in [
        json!({}),
        json!({"grant_type": "authorization_code", "redirect_uri": "x", "code_verifier": "x"}),
        json!({"grant_type": "refresh_token"}),
        json!({"grant_type": DEVICE_GRANT}),
    ] {
        refused(stage.notes.token(body).await, 400, "invalid_request");
    }
    refused(
        stage
            .notes
            .post(
                TOKEN,
                &json!({"grant_type": "refresh_token", "refresh_token": "x"}),
            )
            .await,
        400,
        "invalid_request",
    );
    // unsupported_grant_type and invalid_scope (RFC 6749 section 5.2).
    refused(
        stage.notes.token(json!({"grant_type": "x"})).await,
        400,
        "unsupported_grant_type",
    );
    let tokens = stage.tokens().await;
    let body =
        json!({"grant_type": "refresh_token", "refresh_token": tokens.refresh, "scope": "x"});
    refused(stage.notes.token(body).await, 400, "invalid_scope");
}

#[tokio::test]
async fn revoking_says_yes_whatever_it_is_given() {
    // RFC 7009 section 2.2.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    for token in ["nonsense", "irt_x", "a.b.c"] {
        let answer = stage.notes.revoke(token).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    stage.notes.profile(&tokens.access).await.expect(200);
    let hinted = json!({
        "token": tokens.access,
        "token_type_hint": "refresh_token",
        "client_id": stage.notes.client_id,
        "client_secret": stage.notes.client_secret,
    });
    stage
        .notes
        .post("/api/oauth/v1/revoke", &hinted)
        .await
        .expect(200);
    stage.notes.profile(&tokens.access).await.expect(401);
    // Again is no error.
    stage.notes.revoke(&tokens.access).await.expect(200);
    let nothing =
        json!({"client_id": stage.notes.client_id, "client_secret": stage.notes.client_secret});
    refused(
        stage.notes.post("/api/oauth/v1/revoke", &nothing).await,
        400,
        "invalid_request",
    );
    let wrong = RelyingParty {
        client_secret: None,
        ..stage.notes.clone()
    };
    refused(wrong.revoke(&tokens.access).await, 401, "invalid_client");
}

#[tokio::test]
async fn introspection_tells_the_client_about_its_tokens() {
    // RFC 7662 section 2.2.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let body = stage.notes.introspect(&tokens.access).await.expect(200);
    assert_eq!(body["active"], true);
    assert_eq!(body["scope"], "user:read organizations:read");
    assert_eq!(body["client_id"], stage.notes.client_id);
    assert_eq!(body["sub"], stage.ada.id.to_string());
    assert_eq!(body["iss"], "insforge");
    assert_eq!(body["aud"], "insforge-api");
    assert_eq!(
        body["exp"].as_i64().unwrap() - body["iat"].as_i64().unwrap(),
        3600
    );
    let body = stage.notes.introspect(&tokens.refresh).await.expect(200);
    assert_eq!(body["active"], true, "{body}");
    let next = Tokens::of(&stage.notes.refresh(&tokens.refresh).await.expect(200));
    let body = stage.notes.introspect(&tokens.refresh).await.expect(200);
    assert_eq!(body, json!({"active": false}), "it was used");
    stage.notes.revoke(&next.refresh).await.expect(200);
    for token in [&next.access, &next.refresh, &tokens.access] {
        let body = stage.notes.introspect(token).await.expect(200);
        assert_eq!(body, json!({"active": false}));
    }
}

#[tokio::test]
async fn the_metadata_document_tells_what_is_there() {
    // RFC 8414 section 3.2, RFC 8628 section 4, RFC 9207 section 3.
    let (app, _) = installation().await;
    let url = format!("{}/.well-known/oauth-authorization-server", app.base_url);
    let answer = Answer::to(app.http.get(&url)).await;
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("application/json")
    );
    let body = answer.expect(200);
    assert_eq!(body["issuer"], app.base_url);
    assert_eq!(body["response_types_supported"], json!(["code"]));
    assert_eq!(body["code_challenge_methods_supported"], json!(["S256"]));
    assert_eq!(
        body["grant_types_supported"],
        json!(["authorization_code", "refresh_token", DEVICE_GRANT])
    );
    assert_eq!(
        body["scopes_supported"],
        json!([
            "user:read",
            "organizations:read",
            "projects:read",
            "projects:write"
        ])
    );
    for method in ["none", "client_secret_basic", "client_secret_post"] {
        let methods = body["token_endpoint_auth_methods_supported"]
            .as_array()
            .unwrap();
        assert!(methods.contains(&json!(method)), "{methods:?}");
    }
    assert_eq!(body["authorization_response_iss_parameter_supported"], true);
    // OpenID Connect is not claimed.
    assert_eq!(body["id_token_signing_alg_values_supported"], Value::Null);
    for name in [
        "token",
        "revocation",
        "introspection",
        "device_authorization",
    ] {
        let endpoint = body[format!("{name}_endpoint")].as_str().unwrap();
        let answer = Answer::to(app.http.post(endpoint).json(&json!({}))).await;
        assert!(
            matches!(answer.status, 400 | 401),
            "{name}: {}",
            answer.text
        );
        assert!(answer.body["error"].is_string(), "{name}");
    }
    let authorize = body["authorization_endpoint"].as_str().unwrap();
    let answer = Answer::to(wire().get(authorize)).await;
    assert_eq!(answer.status, 400, "a page that says what is missing");
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
}

#[tokio::test]
async fn consent_is_remembered_until_it_is_taken_back() {
    let stage = Stage::new().await;
    stage.code().await;
    let visitor = &stage.ada.visitor;
    let page = visitor.open(&stage.notes.authorize_url()).await;
    assert!(
        page.param("code").is_some(),
        "not asked again: {}",
        page.url
    );
    // Over sessions, too.
    let other = stage.app.visitor();
    let page = other.open(&stage.notes.authorize_url()).await;
    let to = [
        ("email", stage.ada.email.as_str()),
        ("password", &stage.ada.password),
    ];
    let page = other.submit(&page, "/login", &to).await;
    assert!(page.param("code").is_some(), "{}", page.url);
    let page = visitor.open("/settings").await;
    page.expect_text("Acme Notes");
    let page = visitor
        .submit(&page, "/settings/apps/disconnect", &[])
        .await;
    assert!(page.status < 400, "{}", page.html);
    let page = visitor.open("/settings").await;
    assert!(
        page.forms()
            .iter()
            .all(|f| f.action != "/settings/apps/disconnect")
    );
    let page = visitor.open(&stage.notes.authorize_url()).await;
    page.form("/consent");
}

#[tokio::test]
async fn every_change_is_in_the_audit_log() {
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    stage.notes.revoke(&tokens.refresh).await.expect(200);
    let page = stage.ada.visitor.open("/settings").await;
    stage
        .ada
        .visitor
        .submit(&page, "/settings/api-keys", &[("key_name", "laptop")])
        .await;
    let page = stage.ada.visitor.open("/settings").await;
    stage
        .ada
        .visitor
        .submit(&page, "/settings/api-keys/revoke", &[])
        .await;
    let entries: Vec<(String, String, String)> =
        sqlx::query_as("select action, actor, details::text from audit_log order by at, id")
            .fetch_all(&mut stage.app.database.connect().await)
            .await
            .unwrap();
    let actor = format!("user:{}", stage.ada.id);
    for (what, by) in [
        ("oauth_client.created", "operator"),
        ("user.created", "operator"),
        ("oauth.authorized", actor.as_str()),
        ("oauth.token_issued", ""),
        ("oauth.revoked", ""),
        ("api_key.created", &actor),
        ("api_key.revoked", &actor),
    ] {
        assert!(
            entries
                .iter()
                .any(|(action, who, _)| action.starts_with(what) && who.starts_with(by)),
            "{what} by {by}: {entries:?}"
        );
    }
    for (_, _, details) in entries {
        for secret in [
            &tokens.refresh,
            &tokens.access,
            stage.notes.client_secret.as_ref().unwrap(),
        ] {
            assert!(!details.contains(secret.as_str()), "{details}");
        }
    }
}
