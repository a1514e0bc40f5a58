//! More than a person allowed: scopes, consents, prompts.

use chrono::TimeDelta;
use cp_model::{ClientKind, Scope, Scopes};
use cp_tests::Page;
use serde_json::json;

use crate::stage::{Stage, assert_refused_elsewhere, get_profile, refused};

fn asks(page: &Page) -> bool {
    !page.is_elsewhere && page.forms().iter().any(|form| form.action == "/consent")
}

#[tokio::test]
async fn a_client_cannot_ask_for_more_than_it_was_registered_for() {
    // RFC 6749 section 3.3, RFC 9700 section 2.3.
    let stage = Stage::new().await;
    let small = stage
        .app
        .relying_party_with(ClientKind::Confidential, |new| {
            new.scopes = [Scope::UserRead].into_iter().collect::<Scopes>();
        })
        .await;
    let url = small.authorize_url_with(&[("scope", "user:read")]);
    assert!(asks(&stage.ada.visitor.open(&url).await));
    for scope in [
        "user:read projects:write",
        "projects:write",
        "organizations:read user:read",
    ] {
        let page = stage
            .ada
            .visitor
            .open(&small.authorize_url_with(&[("scope", scope)]))
            .await;
        assert_refused_elsewhere(&page, &small, "invalid_scope");
    }
    let body = json!({"client_id": small.client_id, "client_secret": small.client_secret, "scope": "projects:write"});
    let answer = small
        .post("/api/oauth/v1/device_authorization", &body)
        .await;
    refused(answer, 400, "invalid_scope");
}

#[tokio::test]
async fn unknown_scopes_are_refused() {
    // RFC 6749 section 4.1.2.1: invalid_scope, not silently less or more.
    let stage = Stage::new().await;
    for scope in [
        "everything",
        "user:read everything",
        "USER:READ",
        "user:*",
        "*",
        "user:read,projects:read",
        "openid",
        "user:read\tprojects:read",
    ] {
        stage
            .refuses_by_redirect(&[("scope", scope)], "invalid_scope")
            .await;
    }
    let page = stage
        .ada
        .visitor
        .open(&stage.notes.authorize_url_with(&[("scope", "")]))
        .await;
    assert!(page.is_elsewhere);
    assert!(matches!(
        page.param("error").as_deref(),
        Some("invalid_scope" | "invalid_request")
    ));
}

#[tokio::test]
async fn a_code_cannot_be_exchanged_for_other_scopes() {
    // RFC 6749 section 3.3: `scope` at the token endpoint widens nothing.
    let stage = Stage::new().await;
    let code = stage.code().await;
    let body = json!({
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": stage.notes.redirect_uri,
        "code_verifier": stage.notes.code_verifier,
        "scope": "user:read organizations:read projects:read projects:write",
    });
    let answer = stage.notes.token(body).await;
    if answer.status == 200 {
        assert_eq!(answer.body["scope"], "user:read organizations:read");
    } else {
        refused(answer, 400, "invalid_scope");
    }
}

#[tokio::test]
async fn consent_is_asked_for_again_when_more_is_wanted() {
    // RFC 6749 section 10.2 and contract oauth.md: remembered per person, client and scopes.
    let stage = Stage::new().await;
    stage.code().await;
    let visitor = &stage.ada.visitor;
    let ask = async |scope: &str| {
        visitor
            .open(&stage.notes.authorize_url_with(&[("scope", scope)]))
            .await
    };
    assert!(ask("user:read organizations:read").await.is_elsewhere);
    assert!(ask("user:read").await.is_elsewhere, "less is allowed, too");
    let more = ask("user:read projects:write").await;
    assert!(asks(&more), "{}", more.url);
    more.expect_text(Scope::ProjectsWrite.in_plain_words());
    // Looking at the question is no answer.
    assert!(asks(&ask("user:read projects:write").await));
}

#[tokio::test]
async fn one_persons_consent_is_not_anothers() {
    // RFC 6749 section 10.2.
    let stage = Stage::new().await;
    stage.code().await;
    let bob = stage.app.person("Bob").await;
    assert!(asks(&bob.visitor.open(&stage.notes.authorize_url()).await));
    let other = stage.app.relying_party().await;
    assert!(asks(&stage.ada.visitor.open(&other.authorize_url()).await));
}

#[tokio::test]
async fn a_public_client_is_asked_about_each_time() {
    // RFC 8252 section 8.6, RFC 6749 section 10.2: anybody may use its id.
    let stage = Stage::with_public_client().await;
    stage.code().await;
    assert!(asks(
        &stage.ada.visitor.open(&stage.notes.authorize_url()).await
    ));
    let page = stage
        .ada
        .visitor
        .open(&stage.notes.authorize_url_with(&[("prompt", "none")]))
        .await;
    assert!(page.is_elsewhere);
    assert_eq!(page.param("code"), None, "{}", page.url);
}

#[tokio::test]
async fn a_program_of_ours_is_asked_about_like_any_other() {
    // RFC 8252 section 8.6, RFC 6749 section 10.2: whoever made it, nothing is allowed in silence.
    let stage = Stage::new().await;
    let visitor = &stage.ada.visitor;
    for (kind, asks_again) in [
        (ClientKind::Confidential, false),
        (ClientKind::Public, true),
    ] {
        let ours = stage
            .app
            .relying_party_with(kind, |new| new.first_party = true)
            .await;
        let silent = ours.authorize_url_with(&[("prompt", "none")]);
        let page = visitor.open(&silent).await;
        assert_refused_elsewhere(&page, &ours, "consent_required");
        let page = visitor.open(&ours.authorize_url()).await;
        assert!(asks(&page), "{kind:?}: {}", page.url);
        visitor.press(&page, "/consent", "Allow", &[]).await;
        let page = visitor.open(&ours.authorize_url()).await;
        assert_eq!(asks(&page), asks_again, "{kind:?}: {}", page.url);
    }
}

#[tokio::test]
async fn a_refusal_tells_the_application_and_gives_nothing() {
    // RFC 6749 section 4.1.2.1.
    let stage = Stage::new().await;
    let visitor = &stage.ada.visitor;
    let page = visitor.open(&stage.notes.authorize_url()).await;
    let page = visitor.press(&page, "/consent", "Do not allow", &[]).await;
    assert_refused_elsewhere(&page, &stage.notes, "access_denied");
    assert_eq!(
        stage.app.database.count("oauth_authorization_codes").await,
        0
    );
    assert_eq!(stage.app.database.count("oauth_consents").await, 0);
    assert!(
        asks(&visitor.open(&stage.notes.authorize_url()).await),
        "and asks again"
    );
}

#[tokio::test]
async fn a_decision_that_is_none_is_no_approval() {
    // RFC 6749 section 10.2: approve, or nothing.
    let stage = Stage::new().await;
    let visitor = &stage.ada.visitor;
    let page = visitor.open(&stage.notes.authorize_url()).await;
    let form = page.form("/consent");
    for fields in [
        vec![],
        vec![("decision", "")],
        vec![("decision", "yes")],
        vec![("decision", "APPROVE")],
    ] {
        let answer = visitor.send(&page, &form, &fields, None).await;
        assert!(!answer.is_elsewhere, "{fields:?}: {}", answer.url);
        assert_eq!(answer.status, 400, "{fields:?}");
    }
    assert_eq!(
        stage.app.database.count("oauth_authorization_codes").await,
        0
    );
}

#[tokio::test]
async fn prompt_none_shows_nothing() {
    // OpenID Connect Core section 3.1.2.6, whose words we use; RFC 9700 section 4.11.2: only to
    // registered addresses.
    let stage = Stage::new().await;
    let silent = stage.notes.authorize_url_with(&[("prompt", "none")]);
    let page = stage.app.visitor().open(&silent).await;
    assert_refused_elsewhere(&page, &stage.notes, "login_required");
    let page = stage.ada.visitor.open(&silent).await;
    assert!(page.is_elsewhere);
    let error = page.param("error").unwrap();
    assert!(
        ["consent_required", "interaction_required"].contains(&error.as_str()),
        "{error}"
    );
    stage.code().await;
    let page = stage.ada.visitor.open(&silent).await;
    assert!(page.param("code").is_some(), "{}", page.url);
    for prompt in ["none login", "none consent", "nonsense", "login none"] {
        stage
            .refuses_by_redirect(&[("prompt", prompt)], "invalid_request")
            .await;
    }
}

#[tokio::test]
async fn prompt_login_and_consent_ask_again() {
    // OpenID Connect Core section 3.1.2.1.
    let stage = Stage::new().await;
    stage.code().await;
    let visitor = &stage.ada.visitor;
    let page = visitor
        .open(&stage.notes.authorize_url_with(&[("prompt", "consent")]))
        .await;
    assert!(asks(&page), "{}", page.url);
    let page = visitor
        .open(&stage.notes.authorize_url_with(&[("prompt", "login")]))
        .await;
    assert_eq!(page.url.path(), "/login", "{}", page.url);
    let to = [
        ("email", stage.ada.email.as_str()),
        ("password", &stage.ada.password),
    ];
    let page = visitor.submit(&page, "/login", &to).await;
    assert!(page.is_elsewhere, "once is enough: {}", page.url);
}

#[tokio::test]
async fn prompt_login_cannot_be_gone_round() {
    // OpenID Connect Core section 3.1.2.1: only a sign-in after the request came will do.
    let stage = Stage::new().await;
    stage.code().await;
    let visitor = &stage.ada.visitor;
    let url = stage.notes.authorize_url_with(&[("prompt", "login")]);
    let page = visitor.open(&url).await;
    assert_eq!(page.url.path(), "/login", "{}", page.url);
    // Where the login page leads, without signing in there.
    let back = page.param("return_to").unwrap();
    let page = visitor.open(&back).await;
    assert_eq!(page.url.path(), "/login", "{}", page.url);
    let to = [
        ("email", stage.ada.email.as_str()),
        ("password", &stage.ada.password),
    ];
    let page = visitor.submit(&page, "/login", &to).await;
    assert!(page.param("code").is_some(), "{}", page.url);
    // The next request needs a sign-in of its own.
    let page = visitor.open(&url).await;
    assert_eq!(page.url.path(), "/login", "{}", page.url);
}

#[tokio::test]
async fn prompt_login_asks_once_and_then_for_consent() {
    // OpenID Connect Core section 3.1.2.1: also for who is not signed in, or has allowed nothing.
    let stage = Stage::new().await;
    let url = stage.notes.authorize_url_with(&[("prompt", "login")]);
    for visitor in [&stage.app.visitor(), &stage.ada.visitor] {
        let page = visitor.open(&url).await;
        assert_eq!(page.url.path(), "/login", "{}", page.url);
        let to = [
            ("email", stage.ada.email.as_str()),
            ("password", &stage.ada.password),
        ];
        let page = visitor.submit(&page, "/login", &to).await;
        assert!(asks(&page), "{}", page.url);
    }
    let page = stage.ada.visitor.open(&url).await;
    let page = stage
        .ada
        .visitor
        .submit(
            &page,
            "/login",
            &[
                ("email", &stage.ada.email),
                ("password", &stage.ada.password),
            ],
        )
        .await;
    let page = stage
        .ada
        .visitor
        .press(&page, "/consent", "Allow", &[])
        .await;
    assert!(page.param("code").is_some(), "{}", page.url);
}

#[tokio::test]
async fn the_consent_page_says_who_asks_for_what() {
    // RFC 6749 section 10.2, RFC 8252 section 8.6: name, scopes, and where one will be sent.
    let stage = Stage::new().await;
    let page = stage.ada.visitor.open(&stage.notes.authorize_url()).await;
    for text in [
        "Acme Notes",
        Scope::UserRead.in_plain_words(),
        Scope::OrganizationsRead.in_plain_words(),
        "app.example",
        &stage.ada.email,
    ] {
        page.expect_text(text);
    }
    assert!(!page.text().contains(Scope::ProjectsWrite.in_plain_words()));
}

#[tokio::test]
async fn a_withdrawn_consent_is_asked_for_again() {
    // RFC 6819 section 5.1.5.1: people can take it back.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let visitor = &stage.ada.visitor;
    let page = visitor.open("/settings").await;
    visitor
        .submit(&page, "/settings/apps/disconnect", &[])
        .await;
    get_profile(&stage.app, &tokens.access).await.expect(401);
    refused(
        stage.notes.refresh(&tokens.refresh).await,
        400,
        "invalid_grant",
    );
    assert!(asks(&visitor.open(&stage.notes.authorize_url()).await));
}

#[tokio::test]
async fn a_code_from_before_a_withdrawal_is_worthless() {
    // RFC 6819 section 5.1.5.1: what was on the way comes to nothing.
    let stage = Stage::new().await;
    stage.tokens().await;
    let code = stage.code().await;
    let visitor = &stage.ada.visitor;
    let page = visitor.open("/settings").await;
    visitor
        .submit(&page, "/settings/apps/disconnect", &[])
        .await;
    refused(stage.notes.exchange(&code).await, 400, "invalid_grant");
}

#[tokio::test]
async fn a_device_code_is_of_use_to_its_own_client_and_once() {
    // RFC 8628 section 3.4 and 5.2.
    let stage = Stage::new().await;
    let device = stage.notes.start_device().await;
    let device_code = device["device_code"].as_str().unwrap();
    let visitor = &stage.ada.visitor;
    let page = visitor.open("/device").await;
    let page = visitor
        .submit(
            &page,
            "/device",
            &[("user_code", device["user_code"].as_str().unwrap())],
        )
        .await;
    // It shows what it is about (RFC 8628 section 5.4).
    for text in ["Acme Notes", Scope::UserRead.in_plain_words(), "127.0.0.1"] {
        page.expect_text(text);
    }
    visitor.press(&page, "/device/decision", "Allow", &[]).await;
    let poll = json!({"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": device_code});
    for thief in [
        stage.app.relying_party().await,
        stage.app.public_relying_party().await,
    ] {
        let answer = thief.token(poll.clone()).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert_eq!(answer.body["access_token"], json!(null));
    }
    stage.clock.advance(TimeDelta::seconds(6));
    let tokens = stage.notes.token(poll.clone()).await.expect(200);
    assert_eq!(tokens["scope"], stage.notes.scope);
    stage.clock.advance(TimeDelta::seconds(6));
    refused(stage.notes.token(poll).await, 400, "expired_token");
    // A decision is made once.
    let page = visitor.press(&page, "/device/decision", "Allow", &[]).await;
    assert!(page.status >= 400, "{}", page.status);
}

#[tokio::test]
async fn one_person_cannot_decide_for_another() {
    // RFC 8628 section 3.3: whoever decided first, decided.
    let stage = Stage::new().await;
    let device = stage.notes.start_device().await;
    let user_code = device["user_code"].as_str().unwrap();
    let bob = stage.app.person("Bob").await;
    let question = async |visitor: &cp_tests::Visitor| {
        let page = visitor.open("/device").await;
        visitor
            .submit(&page, "/device", &[("user_code", user_code)])
            .await
    };
    let of_ada = question(&stage.ada.visitor).await;
    let of_bob = question(&bob.visitor).await;
    stage
        .ada
        .visitor
        .press(&of_ada, "/device/decision", "Do not allow", &[])
        .await;
    let late = bob
        .visitor
        .press(&of_bob, "/device/decision", "Allow", &[])
        .await;
    assert!(late.status >= 400, "{}", late.status);
    let poll = json!({
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": device["device_code"],
    });
    refused(stage.notes.token(poll).await, 400, "access_denied");
}
