//! Refresh tokens: stolen, replayed, raced for, or used by somebody else.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use chrono::TimeDelta;
use cp_tests::RelyingParty;
use futures::future::join_all;
use serde_json::json;

use crate::stage::{Stage, Tokens, audited, refused};

async fn refreshed(by: &RelyingParty, token: &str) -> Tokens {
    Tokens::of(&by.refresh(token).await.expect(200))
}

#[tokio::test]
async fn a_replayed_refresh_token_ends_the_family() {
    // RFC 9700 section 4.14.2, RFC 6819 section 5.2.2.3: thief or owner, one of both is out.
    let stage = Stage::new().await;
    let first = stage.tokens().await;
    let second = refreshed(&stage.notes, &first.refresh).await;
    let third = refreshed(&stage.notes, &second.refresh).await;
    stage.notes.profile(&third.access).await.expect(200);
    let unharmed = stage.tokens().await;
    refused(
        stage.notes.refresh(&first.refresh).await,
        400,
        "invalid_grant",
    );
    for tokens in [&first, &second, &third] {
        stage.notes.profile(&tokens.access).await.expect(401);
        refused(
            stage.notes.refresh(&tokens.refresh).await,
            400,
            "invalid_grant",
        );
    }
    stage.notes.profile(&unharmed.access).await.expect(200);
    refreshed(&stage.notes, &unharmed.refresh).await;
    let actions = audited(&stage.app).await;
    assert!(
        actions.iter().any(|a| a == "oauth.refresh_replayed"),
        "{actions:?}"
    );
    let because: Option<String> =
        sqlx::query_scalar("select revoked_because from oauth_grants where revoked_at is not null")
            .fetch_one(&mut stage.app.database.connect().await)
            .await
            .unwrap();
    assert_eq!(because.as_deref(), Some("refresh_token_replayed"));
}

#[tokio::test]
async fn a_refresh_token_is_new_at_every_use() {
    // RFC 9700 section 2.2.2: rotation for public clients; here for all.
    for stage in [Stage::new().await, Stage::with_public_client().await] {
        let mut seen = BTreeSet::new();
        let mut tokens = stage.tokens().await;
        for _ in 0..4 {
            assert!(seen.insert(tokens.refresh.clone()));
            tokens = refreshed(&stage.notes, &tokens.refresh).await;
            stage.notes.profile(&tokens.access).await.expect(200);
        }
    }
}

#[tokio::test]
async fn a_lost_answer_can_be_fetched_again_for_a_minute() {
    // RFC 9700 section 4.14.2 and the contract: the same successor, never a second family.
    let stage = Stage::new().await;
    let first = stage.tokens().await;
    let second = refreshed(&stage.notes, &first.refresh).await;
    stage.clock.advance(TimeDelta::seconds(55));
    let again = refreshed(&stage.notes, &first.refresh).await;
    assert_eq!(again.refresh, second.refresh);
    assert_ne!(again.access, second.access, "a fresh access token");
    stage.notes.profile(&again.access).await.expect(200);
    stage.notes.profile(&second.access).await.expect(200);
    refreshed(&stage.notes, &again.refresh).await;
}

#[tokio::test]
async fn a_late_retry_is_a_replay() {
    // RFC 9700 section 4.14.2: the grace is 60 seconds from the first use, not from the last.
    let stage = Stage::new().await;
    let first = stage.tokens().await;
    let second = refreshed(&stage.notes, &first.refresh).await;
    stage.clock.advance(TimeDelta::seconds(40));
    refreshed(&stage.notes, &first.refresh).await;
    stage.clock.advance(TimeDelta::seconds(25));
    refused(
        stage.notes.refresh(&first.refresh).await,
        400,
        "invalid_grant",
    );
    refused(
        stage.notes.refresh(&second.refresh).await,
        400,
        "invalid_grant",
    );
}

#[tokio::test]
async fn a_retry_after_the_successor_was_used_is_a_replay() {
    // RFC 9700 section 4.14.2: who has used the successor did get the answer.
    let stage = Stage::new().await;
    let first = stage.tokens().await;
    let second = refreshed(&stage.notes, &first.refresh).await;
    let third = refreshed(&stage.notes, &second.refresh).await;
    refused(
        stage.notes.refresh(&first.refresh).await,
        400,
        "invalid_grant",
    );
    refused(
        stage.notes.refresh(&third.refresh).await,
        400,
        "invalid_grant",
    );
}

#[tokio::test]
async fn fifty_refreshes_at_once_get_the_same_successor() {
    // RFC 9700 section 4.14.2; platform-api.md 2.4: parallel requests of one honest client.
    let stage = Stage::new().await;
    let other = RelyingParty {
        base_url: stage.app.start_second_api().await,
        ..stage.notes.clone()
    };
    let tokens = stage.tokens().await;
    let answers = join_all((0..50).map(|number| {
        let by = if number % 2 == 0 {
            &stage.notes
        } else {
            &other
        };
        by.refresh(&tokens.refresh)
    }))
    .await;
    let mut successors = BTreeSet::new();
    let mut accesses = BTreeSet::new();
    for answer in answers {
        let got = Tokens::of(&answer.expect(200));
        successors.insert(got.refresh);
        accesses.insert(got.access);
    }
    assert_eq!(successors.len(), 1);
    assert_eq!(accesses.len(), 50, "each its own access token");
    let successor = successors.into_iter().next().unwrap();
    refreshed(&stage.notes, &successor).await;
    let live: i64 =
        sqlx::query_scalar("select count(*) from oauth_refresh_tokens where used_at is null")
            .fetch_one(&mut stage.app.database.connect().await)
            .await
            .unwrap();
    assert_eq!(live, 1);
}

#[tokio::test]
async fn another_clients_refresh_token_is_refused_and_unharmed() {
    // RFC 6749 section 10.4, RFC 6819 section 4.5.2: bound to its client; a thief without that
    // client's secret cannot even end it.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    for thief in [
        stage.app.relying_party().await,
        stage.app.public_relying_party().await,
    ] {
        refused(thief.refresh(&tokens.refresh).await, 400, "invalid_grant");
    }
    let next = refreshed(&stage.notes, &tokens.refresh).await;
    // Nor by its used predecessor.
    let thief = stage.app.public_relying_party().await;
    refused(thief.refresh(&tokens.refresh).await, 400, "invalid_grant");
    refreshed(&stage.notes, &next.refresh).await;
}

#[tokio::test]
async fn a_confidential_clients_refresh_token_needs_its_secret() {
    // RFC 6749 section 6, RFC 6819 section 5.2.2.2.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let without = RelyingParty {
        client_secret: None,
        ..stage.notes.clone()
    };
    refused(
        without.refresh(&tokens.refresh).await,
        401,
        "invalid_client",
    );
    refreshed(&stage.notes, &tokens.refresh).await;
}

#[tokio::test]
async fn other_texts_are_no_refresh_tokens() {
    // RFC 6819 section 4.5.3: guessing, and tokens of other kinds.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let code = stage.code().await;
    let wrong = tokens.refresh.to_lowercase();
    for text in [
        tokens.access.as_str(),
        &code,
        "irt_x",
        "x",
        &wrong,
        "' or 1=1 --",
    ] {
        refused(stage.notes.refresh(text).await, 400, "invalid_grant");
    }
    refreshed(&stage.notes, &tokens.refresh).await;
}

#[tokio::test]
async fn a_refresh_cannot_widen_the_scope() {
    // RFC 6749 section 6, RFC 9700 section 2.3.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    for scope in [
        "user:read projects:write",
        "projects:write",
        "everything",
        "user:read everything",
    ] {
        let body =
            json!({"grant_type": "refresh_token", "refresh_token": tokens.refresh, "scope": scope});
        refused(stage.notes.token(body).await, 400, "invalid_scope");
    }
    let body = json!({"grant_type": "refresh_token", "refresh_token": tokens.refresh, "scope": "organizations:read"});
    let narrow = stage.notes.token(body).await.expect(200);
    assert_eq!(narrow["scope"], "organizations:read");
    let narrow = Tokens::of(&narrow);
    stage
        .notes
        .profile(&narrow.access)
        .await
        .expect_code(403, "insufficient_scope");
    // The refresh token keeps what the person allowed.
    let wide = refreshed(&stage.notes, &narrow.refresh).await;
    stage.notes.profile(&wide.access).await.expect(200);
}

#[tokio::test]
async fn a_revoked_sign_in_is_over_whichever_token_was_named() {
    // RFC 7009 section 2.1, RFC 9700 section 4.14.
    let stage = Stage::new().await;
    for by_access in [true, false] {
        let first = stage.tokens().await;
        let second = refreshed(&stage.notes, &first.refresh).await;
        let named = if by_access {
            &second.access
        } else {
            &second.refresh
        };
        stage.notes.revoke(named).await.expect(200);
        stage.notes.profile(&second.access).await.expect(401);
        stage.notes.profile(&first.access).await.expect(401);
        refused(
            stage.notes.refresh(&second.refresh).await,
            400,
            "invalid_grant",
        );
        // Even the retry of a lost answer.
        refused(
            stage.notes.refresh(&first.refresh).await,
            400,
            "invalid_grant",
        );
    }
}

#[tokio::test]
async fn another_client_cannot_revoke() {
    // RFC 7009 section 2.1: verified to be the client's own, or it is left alone.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    for other in [
        stage.app.relying_party().await,
        stage.app.public_relying_party().await,
    ] {
        for token in [&tokens.access, &tokens.refresh] {
            other.revoke(token).await.expect(200);
        }
    }
    stage.notes.profile(&tokens.access).await.expect(200);
    refreshed(&stage.notes, &tokens.refresh).await;
}

#[tokio::test]
async fn another_client_learns_nothing_by_introspection() {
    // RFC 7662 sections 2.2 and 4: inactive, and nothing more, like a token that never was.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let own = stage.notes.introspect(&tokens.access).await.expect(200);
    assert_eq!(own["active"], true, "{own}");
    let other = stage.app.relying_party().await;
    for token in [tokens.access.as_str(), &tokens.refresh, "nonsense", "irt_x"] {
        let answer = other.introspect(token).await.expect(200);
        assert_eq!(answer, json!({"active": false}));
    }
}

#[tokio::test]
async fn introspection_is_not_for_the_public() {
    // RFC 7662 section 4: token scanning.
    let stage = Stage::with_public_client().await;
    let tokens = stage.tokens().await;
    refused(
        stage.notes.introspect(&tokens.access).await,
        401,
        "invalid_client",
    );
    let nobody = stage
        .notes
        .post("/api/oauth/v1/introspect", &json!({"token": tokens.access}))
        .await;
    assert!(matches!(nobody.status, 400 | 401), "{}", nobody.text);
    assert_eq!(nobody.body["active"], serde_json::Value::Null);
}

/// As Postgres writes `bytea`.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

#[tokio::test]
async fn nothing_that_opens_a_door_is_stored_as_it_is() {
    // RFC 9700 section 2.2 and RFC 6819 sections 4.3.2 and 4.5.2: a copy of the database.
    let stage = Stage::new().await;
    let code = stage.code().await;
    let tokens = stage.tokens().await;
    let next = refreshed(&stage.notes, &tokens.refresh).await;
    let cli = stage.app.public_relying_party().await;
    let device = cli
        .post(
            "/api/oauth/v1/device_authorization",
            &json!({"client_id": cli.client_id, "scope": "user:read"}),
        )
        .await
        .expect(200);
    let visitor = stage.app.visitor();
    visitor.forget_password(&stage.ada.email).await;
    let secrets = [
        code,
        tokens.access,
        tokens.refresh,
        next.access,
        next.refresh,
        stage.notes.client_secret.clone().unwrap(),
        stage.ada.visitor.cookie("session").unwrap(),
        device["device_code"].as_str().unwrap().to_owned(),
        stage.ada.password.clone(),
        stage.notes.code_verifier.clone(),
    ];
    let mut conn = stage.app.database.connect().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', schemaname, tablename) from pg_tables
         where schemaname not in ('pg_catalog', 'information_schema')",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    assert!(
        tables.iter().any(|t| t.ends_with("oauth_refresh_tokens")),
        "{tables:?}"
    );
    let mut looked_at = 0;
    for table in tables {
        let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "select t::text from {table} t"
        )))
        .fetch_all(&mut conn)
        .await
        .unwrap();
        for row in rows {
            looked_at += 1;
            for secret in &secrets {
                assert!(!row.contains(secret.as_str()), "{table}");
                let hex = hex(secret.as_bytes());
                assert!(!row.contains(&hex), "{table}: as bytes");
            }
        }
    }
    assert!(looked_at > 10, "{looked_at} rows");
}
