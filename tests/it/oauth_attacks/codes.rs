//! Authorization codes: stolen, replayed, injected, too late, or without their proof.

use std::sync::Arc;

use chrono::TimeDelta;
use cp_model::ClientKind;
use cp_tests::RelyingParty;
use cp_tokens::pkce;
use futures::future::join_all;
use serde_json::json;

use crate::stage::{Stage, Tokens, audited, refused};

#[tokio::test]
async fn a_code_is_used_once_and_its_replay_ends_what_came_of_it() {
    // RFC 6749 section 4.1.2, RFC 9700 section 4.2.4, RFC 6819 section 4.4.1.1.
    let stage = Stage::new().await;
    let code = stage.code().await;
    let tokens = Tokens::of(&stage.notes.exchange(&code).await.expect(200));
    stage.notes.profile(&tokens.access).await.expect(200);
    refused(stage.notes.exchange(&code).await, 400, "invalid_grant");
    stage.notes.profile(&tokens.access).await.expect(401);
    refused(
        stage.notes.refresh(&tokens.refresh).await,
        400,
        "invalid_grant",
    );
    let actions = audited(&stage.app).await;
    assert!(
        actions.iter().any(|a| a == "oauth.code_replayed"),
        "{actions:?}"
    );
    // Her other sign-ins have nothing to do with it.
    let others = stage.tokens().await;
    stage.notes.profile(&others.access).await.expect(200);
}

#[tokio::test]
async fn a_replayed_code_ends_tokens_that_were_refreshed_since() {
    // RFC 9700 section 4.2.4: all tokens that were issued on the base of the code.
    let stage = Stage::new().await;
    let code = stage.code().await;
    let first = Tokens::of(&stage.notes.exchange(&code).await.expect(200));
    let second = Tokens::of(&stage.notes.refresh(&first.refresh).await.expect(200));
    stage.clock.advance(TimeDelta::minutes(10));
    refused(stage.notes.exchange(&code).await, 400, "invalid_grant");
    stage.notes.profile(&second.access).await.expect(401);
    refused(
        stage.notes.refresh(&second.refresh).await,
        400,
        "invalid_grant",
    );
}

#[tokio::test]
async fn another_client_cannot_use_a_code() {
    // RFC 6749 section 4.1.3, RFC 6819 section 4.4.1.1: bound to the client that it was issued to.
    let stage = Stage::new().await;
    for thief in [
        stage.app.relying_party().await,
        stage.app.public_relying_party().await,
    ] {
        let code = stage.code().await;
        refused(thief.exchange(&code).await, 400, "invalid_grant");
        assert_eq!(stage.app.database.count("oauth_grants").await, 0);
    }
}

#[tokio::test]
async fn a_stolen_code_in_the_thiefs_own_session_is_refused() {
    // RFC 9700 section 4.5 (code injection): the client's verifier is the thief's session's.
    let stage = Stage::new().await;
    let stolen = stage.code().await;
    let session_of_thief = RelyingParty {
        code_verifier: "thief-thief-thief-thief-thief-thief-thief-thief".into(),
        ..stage.notes.clone()
    };
    refused(
        session_of_thief.exchange(&stolen).await,
        400,
        "invalid_grant",
    );
    // And the code is burnt: it is in wrong hands.
    refused(stage.notes.exchange(&stolen).await, 400, "invalid_grant");
}

#[tokio::test]
async fn a_code_comes_with_the_redirect_uri_that_it_was_sent_to() {
    // RFC 6749 section 4.1.3, RFC 6819 section 4.4.1.7: the counterfeit redirect URI.
    let stage = Stage::new().await;
    for redirect_uri in [
        "https://app.example/other",
        "https://app.example/callback/",
        "https://APP.example/callback",
        "https://evil.example/",
    ] {
        let code = stage.code().await;
        let body = json!({
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": stage.notes.code_verifier,
        });
        refused(stage.notes.token(body).await, 400, "invalid_grant");
    }
    let two = stage
        .app
        .relying_party_with(ClientKind::Confidential, |new| {
            new.redirect_uris.push("https://app.example/second".into());
        })
        .await;
    let code = two.code_for(&stage.ada.visitor).await;
    let mut other = two.clone();
    other.redirect_uri = "https://app.example/second".into();
    refused(other.exchange(&code).await, 400, "invalid_grant");
}

#[tokio::test]
async fn a_code_without_its_redirect_uri_is_refused() {
    // RFC 6749 section 4.1.3: required where the authorization request had it, and it always has.
    let stage = Stage::new().await;
    let code = stage.code().await;
    let body = json!({
        "grant_type": "authorization_code",
        "code": code,
        "code_verifier": stage.notes.code_verifier,
    });
    let answer = stage.notes.token(body).await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    let error = answer.body["error"].as_str().unwrap();
    assert!(
        ["invalid_grant", "invalid_request"].contains(&error),
        "{error}"
    );
}

#[tokio::test]
async fn a_code_lives_for_a_minute() {
    // RFC 6749 section 4.1.2, RFC 6819 section 5.1.5.3: short expiry.
    let stage = Stage::new().await;
    let code = stage.code().await;
    stage.clock.advance(TimeDelta::seconds(50));
    stage.notes.exchange(&code).await.expect(200);
    let code = stage.code().await;
    stage.clock.advance(TimeDelta::seconds(61));
    refused(stage.notes.exchange(&code).await, 400, "invalid_grant");
}

#[tokio::test]
async fn guessed_and_foreign_texts_are_no_codes() {
    // RFC 6819 section 4.4.1.3: guessing; and secrets of other kinds.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let code = stage.code().await;
    let mut close = code.clone();
    let last = if close.ends_with('0') { "1" } else { "0" };
    close.replace_range(close.len() - 1.., last);
    let spaced = format!(" {code}");
    let again = code.to_uppercase();
    for text in [
        "iac_guess",
        "x",
        "' or 1=1 --",
        &tokens.refresh,
        &tokens.access,
        &close,
        &spaced,
        &again,
    ] {
        refused(stage.notes.exchange(text).await, 400, "invalid_grant");
    }
    stage.notes.exchange(&code).await.expect(200);
}

#[tokio::test]
async fn an_authorization_without_a_challenge_is_refused() {
    // RFC 9700 section 2.1.1, RFC 7636 section 4.4.1: PKCE for confidential clients, too.
    for stage in [Stage::new().await, Stage::with_public_client().await] {
        stage
            .refuses_by_redirect(&[("code_challenge", "")], "invalid_request")
            .await;
        stage
            .refuses_by_redirect(
                &[("code_challenge", ""), ("code_challenge_method", "")],
                "invalid_request",
            )
            .await;
    }
}

#[tokio::test]
async fn a_plain_challenge_is_refused() {
    // RFC 7636 sections 4.3 and 7.2, RFC 9700 section 2.1.1: a missing method means `plain`.
    let stage = Stage::new().await;
    for method in ["plain", "", "PLAIN", "s256", "S512", "none"] {
        stage
            .refuses_by_redirect(&[("code_challenge_method", method)], "invalid_request")
            .await;
    }
}

#[tokio::test]
async fn a_challenge_that_is_no_hash_is_refused() {
    // RFC 7636 section 4.2: 43 characters of base64url.
    let stage = Stage::new().await;
    for challenge in [
        "x",
        "short-challenge",
        &"A".repeat(42),
        &"A".repeat(44),
        &"=".repeat(43),
        &"A".repeat(128),
    ] {
        stage
            .refuses_by_redirect(&[("code_challenge", challenge)], "invalid_request")
            .await;
    }
}

#[tokio::test]
async fn a_code_without_its_verifier_is_refused() {
    // RFC 7636 section 4.6, RFC 9700 section 4.8: downgrade by leaving the verifier away.
    for stage in [Stage::new().await, Stage::with_public_client().await] {
        for verifier in [json!(null), json!("")] {
            let code = stage.code().await;
            let body = json!({
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": stage.notes.redirect_uri,
                "code_verifier": verifier,
            });
            let answer = stage.notes.token(body).await;
            assert_eq!(answer.status, 400, "{}", answer.text);
            let error = answer.body["error"].as_str().unwrap();
            assert!(
                ["invalid_grant", "invalid_request"].contains(&error),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn a_wrong_verifier_is_refused_and_burns_the_code() {
    // RFC 7636 section 4.6; RFC 6819 section 4.4.1.3: no second guess.
    let stage = Stage::new().await;
    let challenge = pkce::code_challenge(&stage.notes.code_verifier);
    let changed = stage.notes.code_verifier.replace('d', "e");
    for verifier in [
        changed.as_str(),
        // What the thief has seen in the address bar.
        &challenge,
        &stage.notes.code_verifier[..42],
        &"a".repeat(129),
        "a",
    ] {
        let code = stage.code().await;
        let wrong = RelyingParty {
            code_verifier: verifier.into(),
            ..stage.notes.clone()
        };
        refused(wrong.exchange(&code).await, 400, "invalid_grant");
        refused(stage.notes.exchange(&code).await, 400, "invalid_grant");
    }
}

#[tokio::test]
async fn of_a_hundred_exchanges_at_once_at_most_one_wins() {
    // RFC 6749 section 4.1.2, RFC 6819 section 4.4.1.1: single use holds in a race, over processes.
    let stage = Stage::new().await;
    let second = stage.app.start_second_api().await;
    let other = RelyingParty {
        base_url: second,
        ..stage.notes.clone()
    };
    let code = Arc::new(stage.code().await);
    let answers = join_all((0..100).map(|number| {
        let by = if number % 2 == 0 {
            &stage.notes
        } else {
            &other
        };
        by.exchange(&code)
    }))
    .await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 200);
    assert_eq!(won.len(), 1, "one of a hundred");
    for answer in lost {
        refused(answer, 400, "invalid_grant");
    }
    assert_eq!(stage.app.database.count("oauth_grants").await, 1);
    // The others were replays: what the first got is dead.
    let tokens = Tokens::of(&won[0].body);
    stage.notes.profile(&tokens.access).await.expect(401);
}

#[tokio::test]
async fn a_code_for_somebody_disabled_since_is_worthless() {
    // RFC 9700 section 2.2: nothing is issued for who may not sign in any more.
    let stage = Stage::new().await;
    let code = stage.code().await;
    let cp = &stage.app.control_plane;
    cp.disable_user(&stage.ada.email, true).await.unwrap();
    refused(stage.notes.exchange(&code).await, 400, "invalid_grant");
}

#[tokio::test]
async fn a_code_from_before_a_password_reset_is_worthless() {
    // RFC 6819 section 4.4.1.1: who reset the password wants everybody else out.
    let stage = Stage::new().await;
    let code = stage.code().await;
    let visitor = stage.app.visitor();
    visitor.forget_password(&stage.ada.email).await;
    let link = stage.app.newest_mail(&stage.ada.email).await.link();
    visitor.reset_password(&link, "a new and long one").await;
    refused(stage.notes.exchange(&code).await, 400, "invalid_grant");
}

#[tokio::test]
async fn the_code_is_in_the_query_of_a_redirect_and_nothing_else_is() {
    // RFC 9700 section 2.1.2, 4.3.1: no token in the address, no other response mode.
    let stage = Stage::new().await;
    for (name, value) in [("response_mode", "fragment"), ("response_mode", "query")] {
        let page = stage
            .ada
            .visitor
            .open(&stage.notes.authorize_url_with(&[(name, value)]))
            .await;
        let page = if page.is_elsewhere {
            page
        } else {
            stage
                .ada
                .visitor
                .press(&page, "/consent", "Allow", &[])
                .await
        };
        assert_eq!(page.url.fragment(), None);
        let mut names: Vec<String> = page
            .url
            .query_pairs()
            .map(|(n, _)| n.into_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["code", "iss", "state"], "{}", page.url);
    }
}

#[tokio::test]
async fn the_implicit_grant_does_not_exist() {
    // RFC 9700 section 2.1.2.
    let stage = Stage::new().await;
    for response_type in [
        "token",
        "id_token",
        "code token",
        "token code",
        "none",
        "CODE",
    ] {
        stage
            .refuses_by_redirect(
                &[("response_type", response_type)],
                "unsupported_response_type",
            )
            .await;
    }
}

#[tokio::test]
async fn a_password_is_no_grant() {
    // RFC 9700 section 2.4: resource owner password credentials must not be used.
    let stage = Stage::new().await;
    for grant_type in [
        "password",
        "client_credentials",
        "implicit",
        "refresh_token ",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
    ] {
        let body = json!({
            "grant_type": grant_type,
            "username": stage.ada.email,
            "password": stage.ada.password,
            "scope": "user:read",
        });
        refused(stage.notes.token(body).await, 400, "unsupported_grant_type");
    }
}
