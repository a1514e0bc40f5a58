//! Access tokens that are not for this, or not any more.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::TimeDelta;
use cp_domain::DomainError;
use cp_domain::people::NewApiKey;
use cp_model::Scope;
use cp_tests::Answer;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::{refuses, squat_by_json};
use crate::stage::{Stage, caller, get_profile, installation, soon};

#[tokio::test]
async fn an_expired_token_is_refused() {
    // RFC 6749 section 1.5, RFC 6750 section 3.1; one hour, as the public document says.
    let stage = Stage::new().await;
    let token = stage.tokens().await.access;
    stage.clock.advance(TimeDelta::minutes(59));
    get_profile(&stage.app, &token).await.expect(200);
    stage.clock.advance(TimeDelta::seconds(61));
    refuses(&stage.app, &token, "after an hour").await;
    let introspected = stage.notes.introspect(&token).await.expect(200);
    assert_eq!(introspected, json!({"active": false}));
}

#[tokio::test]
async fn secrets_of_other_kinds_are_no_access_tokens() {
    // RFC 9700 section 2.3, RFC 6819 section 4.6: token substitution.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    get_profile(&stage.app, &tokens.access).await.expect(200);
    let code = stage.code().await;
    let cli = stage.app.public_relying_party().await;
    let device = cli.start_device().await;
    let cookie = stage.ada.visitor.cookie(crate::stage::SESSION).unwrap();
    let partner = stage.app.partner().await;
    let project = partner.begin_project("shop").await;
    let key = partner.metadata(&project.to_string()).await;
    let api_key = key.body["project"]["api_key"]
        .as_str()
        .unwrap_or("ik_0123456789abcdef0123456789abcdef")
        .to_owned();
    for (what, secret) in [
        ("a refresh token", tokens.refresh.as_str()),
        ("a code", &code),
        ("a device code", device["device_code"].as_str().unwrap()),
        ("a user code", device["user_code"].as_str().unwrap()),
        (
            "a client's secret",
            stage.notes.client_secret.as_deref().unwrap(),
        ),
        ("a browser's cookie", &cookie),
        ("a partner's secret", &partner.secret),
        ("a project's key", &api_key),
        ("a client's id", &stage.notes.client_id),
    ] {
        refuses(&stage.app, secret, what).await;
    }
}

#[tokio::test]
async fn a_projects_authorization_is_no_access_token() {
    // RFC 8725 section 3.12: a JWT that we signed for somebody else's eyes.
    let (app, _) = crate::stage::installation_with(|options| options.worker = true).await;
    let partner = app.partner().await;
    let project = partner.create_active_project("shop").await;
    let answer = partner
        .post(&format!("/{project}/authorization"), &json!({}))
        .await
        .expect(200);
    let text = answer.to_string();
    let start = text
        .find("eyJ")
        .unwrap_or_else(|| panic!("no JWT in {text}"));
    let token: String = text[start..]
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .collect();
    assert_eq!(token.matches('.').count(), 2, "{token}");
    refuses(&app, &token, "a project's authorization").await;
}

#[tokio::test]
async fn an_access_token_opens_nothing_but_the_platform() {
    // RFC 9700 section 2.3: nor does it serve as a cookie, a refresh token, or a client's secret.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let visitor = stage.app.visitor();
    visitor.set_cookie(crate::stage::SESSION, &tokens.access);
    assert!(!crate::stage::is_signed_in(&visitor).await);
    visitor.set_cookie(crate::stage::SESSION, &tokens.refresh);
    assert!(!crate::stage::is_signed_in(&visitor).await);
    let answer = Answer::to(
        stage
            .app
            .http
            .get(format!("{}/auth/v1/profile", stage.app.base_url))
            .header(
                "cookie",
                format!("session={0}; token={0}; access_token={0}", tokens.access),
            ),
    )
    .await;
    assert_eq!(answer.status, 401, "a cookie is no bearer");
    let page = Answer::to(
        crate::stage::wire()
            .get(format!("{}/settings", stage.app.base_url))
            .bearer_auth(&tokens.access),
    )
    .await;
    assert_eq!(page.status, 303, "pages know no bearer");
}

#[tokio::test]
async fn a_bearer_in_the_address_or_the_body_is_not_seen() {
    // RFC 6750 sections 2.2, 2.3 and 5.3, RFC 9700 section 4.3.2.
    let stage = Stage::new().await;
    let token = stage.tokens().await.access;
    let url = format!("{}/auth/v1/profile", stage.app.base_url);
    for name in [
        "access_token",
        "token",
        "bearer",
        "authorization",
        "api_key",
    ] {
        let answer = Answer::to(stage.app.http.get(format!("{url}?{name}={token}"))).await;
        assert_eq!(answer.status, 401, "{name}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(!challenge.contains("error="), "nobody tried: {challenge}");
        let body = crate::stage::form(&[(name, &token)]);
        let answer = Answer::to(
            stage
                .app
                .http
                .get(&url)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body),
        )
        .await;
        assert_eq!(answer.status, 401, "{name}");
    }
}

#[tokio::test]
async fn one_bearer_is_read_and_two_are_not() {
    // RFC 6750 section 2: not more than one method in a request.
    let stage = Stage::new().await;
    let token = stage.tokens().await.access;
    let url = format!("{}/auth/v1/profile", stage.app.base_url);
    for (value, status) in [
        (format!("Bearer {token}"), 200),
        (format!("bearer {token}"), 200),
        (format!("Basic {token}"), 401),
        (
            format!("Basic {}", STANDARD.encode(format!("x:{token}"))),
            401,
        ),
        (format!("Token {token}"), 401),
        (token.clone(), 401),
        (format!("Bearer{token}"), 401),
        (format!("Bearer {token}, Bearer {token}"), 401),
    ] {
        let answer = Answer::to(stage.app.http.get(&url).header("authorization", &value)).await;
        assert_eq!(answer.status, status, "{}", &value[..10]);
    }
    let twice = stage
        .app
        .http
        .get(&url)
        .header("authorization", format!("Bearer {token}"))
        .header("authorization", "Bearer x");
    let answer = Answer::to(twice).await;
    assert!(matches!(answer.status, 400 | 401), "{}", answer.status);
}

#[tokio::test]
async fn a_token_without_the_scope_is_told_which_one() {
    // RFC 6750 section 3.1: 403 insufficient_scope.
    let mut stage = Stage::new().await;
    stage.notes.scope = "projects:read".into();
    let token = stage.tokens().await.access;
    let answer = get_profile(&stage.app, &token).await;
    let challenge = answer.header("www-authenticate").unwrap().to_owned();
    answer.expect_code(403, "insufficient_scope");
    assert!(
        challenge.contains("error=\"insufficient_scope\""),
        "{challenge}"
    );
    assert!(challenge.contains("scope=\"user:read\""), "{challenge}");
}

#[tokio::test]
async fn an_api_key_without_the_scope_is_refused() {
    // RFC 6750 section 3.1; contract oauth.md: scopes hold for keys as for tokens.
    let stage = Stage::new().await;
    let cookie = stage.ada.visitor.cookie(crate::stage::SESSION).unwrap();
    let cp = &stage.app.control_plane;
    let by = cp
        .browser_session(&cookie, &caller())
        .await
        .unwrap()
        .unwrap();
    for (scopes, status) in [
        (Some([Scope::ProjectsRead].into_iter().collect()), 403),
        (Some([Scope::UserRead].into_iter().collect()), 200),
        (None, 200),
    ] {
        let new = NewApiKey {
            name: "laptop".into(),
            scopes,
            expires_in_days: None,
        };
        let (_, key) = cp.create_api_key(&by, &new).await.unwrap();
        let answer = get_profile(&stage.app, key.expose_secret()).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
}

#[tokio::test]
async fn a_token_of_an_unproven_account_tells_who_it_is_and_no_more() {
    // RFC 9700 section 4.16: until the address is proven, it may be a stranger's.
    let (app, _) = installation().await;
    let token = squat_by_json(&app).await.access;
    get_profile(&app, &token).await.expect(200);
    let cp = &app.control_plane;
    let by = cp.authenticate_bearer(&token, &caller()).await.unwrap();
    for scope in Scope::ALL {
        match by.require(*scope) {
            Ok(()) => assert_eq!(*scope, Scope::UserRead),
            Err(error) => assert!(matches!(error, DomainError::EmailNotVerified), "{error}"),
        }
    }
    let refused = cp.list_api_keys(&by).await.unwrap_err();
    assert!(matches!(refused, DomainError::EmailNotVerified));
    // With the proof it is as good as any.
    cp.verify_user("ada@example.com").await.unwrap();
    let by = cp.authenticate_bearer(&token, &caller()).await.unwrap();
    by.require(Scope::ProjectsWrite).unwrap();
    cp.list_api_keys(&by).await.unwrap();
}

#[tokio::test]
async fn somebody_disabled_is_out_at_once() {
    // RFC 9700 section 2.2, RFC 7009 section 1: tokens, keys and sessions end with the account.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let cookie = stage.ada.visitor.cookie(crate::stage::SESSION).unwrap();
    let cp = &stage.app.control_plane;
    let by = cp
        .browser_session(&cookie, &caller())
        .await
        .unwrap()
        .unwrap();
    let new = NewApiKey {
        name: "laptop".into(),
        scopes: None,
        expires_in_days: None,
    };
    let key = cp.create_api_key(&by, &new).await.unwrap().1;
    for bearer in [tokens.access.as_str(), key.expose_secret()] {
        get_profile(&stage.app, bearer).await.expect(200);
    }
    cp.disable_user(&stage.ada.email, true).await.unwrap();
    for bearer in [tokens.access.as_str(), key.expose_secret()] {
        refuses(&stage.app, bearer, "disabled").await;
    }
    assert!(!crate::stage::is_signed_in(&stage.ada.visitor).await);
    crate::stage::refused(
        stage.notes.refresh(&tokens.refresh).await,
        400,
        "invalid_grant",
    );
    let introspected = stage.notes.introspect(&tokens.access).await.expect(200);
    assert_eq!(introspected["active"], false);
}

#[tokio::test]
async fn a_disabled_application_is_out_soon() {
    // RFC 9700 section 4.16 of old and RFC 6819 section 5.2.3.6: a client can be locked out.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let code = stage.code().await;
    let cp = &stage.app.control_plane;
    let id = stage.notes.client_id.parse().unwrap();
    cp.disable_oauth_client(&id, true).await.unwrap();
    soon("its access tokens are dead", async || {
        (get_profile(&stage.app, &tokens.access).await.status == 401).then_some(())
    })
    .await;
    soon("it cannot refresh", async || {
        let answer = stage.notes.refresh(&tokens.refresh).await;
        (answer.status == 401 && answer.body["error"] == "invalid_client").then_some(())
    })
    .await;
    crate::stage::refused(stage.notes.exchange(&code).await, 401, "invalid_client");
    soon("people are not sent to it", async || {
        let page = stage.look(&[]).await;
        (page.status == 400 && page.header("location").is_none()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_withdrawn_application_is_out_at_once() {
    // RFC 7009 section 2: revoking the grant ends its access tokens, too.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let other = stage.app.relying_party().await;
    let kept = other.tokens_for(&stage.ada.visitor).await;
    let page = stage.ada.visitor.open("/settings").await;
    page.expect_text("Acme Notes");
    let by = stage
        .app
        .control_plane
        .browser_session(&stage.ada.visitor.cookie("session").unwrap(), &caller())
        .await
        .unwrap()
        .unwrap();
    let id = stage.notes.client_id.parse().unwrap();
    stage
        .app
        .control_plane
        .disconnect_app(&by, &id)
        .await
        .unwrap();
    refuses(&stage.app, &tokens.access, "withdrawn").await;
    crate::stage::refused(
        stage.notes.refresh(&tokens.refresh).await,
        400,
        "invalid_grant",
    );
    other
        .profile(kept["access_token"].as_str().unwrap())
        .await
        .expect(200);
    // And it has to ask again.
    let page = stage.ada.visitor.open(&stage.notes.authorize_url()).await;
    assert!(!page.is_elsewhere, "{}", page.url);
}
