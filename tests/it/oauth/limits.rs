//! The limits of the public document, over processes.

use chrono::TimeDelta;
use cp_model::{CLI_CLIENT_ID, ClientKind};
use cp_tests::{Answer, RelyingParty};
use futures::future::join_all;
use serde_json::json;

use super::{DEVICE, DEVICE_GRANT, command_line};
use crate::stage::{Stage, installation, refused, wire};

/// Limit, remaining and reset, as the answer's headers tell.
fn told(headers: &reqwest::header::HeaderMap) -> [u64; 3] {
    ["limit", "remaining", "reset"].map(|name| {
        let name = format!("x-ratelimit-{name}");
        let value = headers.get(&name).unwrap_or_else(|| panic!("no {name}"));
        value.to_str().unwrap().parse().expect("a number")
    })
}

#[tokio::test]
async fn the_authorization_endpoint_takes_a_hundred_a_minute_from_one_address() {
    let stage = Stage::new().await;
    let second = stage.app.start_second_api().await;
    let other = RelyingParty {
        base_url: second,
        ..stage.notes.clone()
    };
    let first = stage.look(&[]).await;
    let [limit, remaining, reset] = told(&first.headers);
    assert_eq!(limit, 100);
    assert!((90..100).contains(&remaining), "{remaining}");
    assert!((1..=60).contains(&reset), "{reset}");
    let http = wire();
    let answers = join_all((0..130).map(|number| {
        let by = if number % 2 == 0 {
            &stage.notes
        } else {
            &other
        };
        Answer::to(http.get(by.authorize_url()))
    }))
    .await;
    let passed = answers.iter().filter(|a| a.status == 303).count();
    // Each process may be left with a share of two that it did not spend.
    assert!((95..=99).contains(&passed), "{passed} and one before");
    let refused = answers.iter().find(|a| a.status != 303).unwrap();
    assert_eq!(refused.status, 429);
    assert!(refused.header("retry-after").is_some());
    assert!(
        refused
            .header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    assert_eq!(told(&refused.headers)[..2], [100, 0]);
    stage.clock.advance(TimeDelta::minutes(1));
    assert_eq!(stage.look(&[]).await.status, 200);
}

#[tokio::test]
async fn the_token_endpoint_takes_fifty_a_minute_from_one_client() {
    let (app, clock) = installation().await;
    let second = app.start_second_api().await;
    let notes = app
        .relying_party_with(ClientKind::Confidential, |new| new.rate_limit = 50)
        .await;
    let unlimited = app.relying_party().await;
    let other = RelyingParty {
        base_url: second,
        ..notes.clone()
    };
    let answers = join_all((0..80).map(|number| {
        let by = if number % 2 == 0 { &notes } else { &other };
        by.exchange("iac_x")
    }))
    .await;
    let passed = answers.iter().filter(|a| a.status == 400).count();
    assert!((48..=50).contains(&passed), "{passed}");
    for answer in &answers {
        assert_eq!(told(&answer.headers)[0], 50);
    }
    let answer = answers.into_iter().find(|a| a.status != 400).unwrap();
    assert!(answer.header("retry-after").is_some());
    refused(answer, 429, "temporarily_unavailable");
    refused(unlimited.exchange("iac_x").await, 400, "invalid_grant");
    clock.advance(TimeDelta::minutes(1));
    let answer = notes.exchange("iac_x").await;
    assert_eq!(told(&answer.headers)[..2], [50, 49]);
    refused(answer, 400, "invalid_grant");
}

#[tokio::test]
async fn a_public_clients_limit_is_not_used_up_by_strangers() {
    // Anybody knows the command-line client's id: it is counted per client and address.
    let (app, _) = installation().await;
    let cli = command_line(&app).await;
    let mut limited = 0;
    for _ in 0..60 {
        let answer = cli.refresh("irt_x").await;
        limited += u32::from(answer.status == 429);
    }
    assert_eq!(limited, 10);
    let notes = app.relying_party().await;
    refused(notes.exchange("iac_x").await, 400, "invalid_grant");
    let counters: Vec<String> =
        sqlx::query_scalar("select key from rate_limit_windows where key like '%' || $1 || '%'")
            .bind(CLI_CLIENT_ID)
            .fetch_all(&mut app.database.connect().await)
            .await
            .unwrap();
    assert!(
        counters.iter().any(|key| key.contains("127.0.0.1")),
        "{counters:?}"
    );
}

#[tokio::test]
async fn the_profile_is_read_a_hundred_times_a_minute_with_one_token() {
    let stage = Stage::new().await;
    let second = stage.app.start_second_api().await;
    let other = RelyingParty {
        base_url: second,
        ..stage.notes.clone()
    };
    let tokens = stage.tokens().await;
    let another = stage.tokens().await;
    let answers = join_all((0..130).map(|number| {
        let by = if number % 2 == 0 {
            &stage.notes
        } else {
            &other
        };
        by.profile(&tokens.access)
    }))
    .await;
    let passed = answers.iter().filter(|a| a.status == 200).count();
    assert!((96..=100).contains(&passed), "{passed}");
    let mut remaining: Vec<u64> = answers.iter().map(|a| told(&a.headers)[1]).collect();
    remaining.sort_unstable();
    assert_eq!(remaining[0], 0);
    let answer = answers.into_iter().find(|a| a.status != 200).unwrap();
    assert!(answer.header("retry-after").is_some());
    answer.expect_code(429, "rate_limited");
    stage.notes.profile(&another.access).await.expect(200);
    stage.clock.advance(TimeDelta::minutes(1));
    let answer = stage.notes.profile(&tokens.access).await;
    assert_eq!(told(&answer.headers)[0], 100);
    answer.expect(200);
}

#[tokio::test]
async fn devices_are_counted_apart_from_refreshes() {
    // Devices that wait must not use up what refreshes need, nor the reverse.
    let (app, _) = installation().await;
    let client = async || {
        app.relying_party_with(ClientKind::Public, |new| new.rate_limit = 10)
            .await
    };
    let poll = json!({"grant_type": DEVICE_GRANT, "device_code": "idc_x"});
    let waiting = client().await;
    for _ in 0..5 {
        waiting.start_device().await;
        refused(waiting.token(poll.clone()).await, 400, "expired_token");
    }
    let body = json!({"client_id": waiting.client_id, "scope": waiting.scope});
    let answer = waiting.post(DEVICE, &body).await;
    refused(answer, 429, "temporarily_unavailable");
    refused(waiting.token(poll).await, 400, "slow_down");
    let answer = waiting.refresh("irt_x").await;
    assert_eq!(told(&answer.headers)[..2], [10, 9]);
    refused(answer, 400, "invalid_grant");

    let refreshing = client().await;
    for _ in 0..10 {
        refused(refreshing.refresh("irt_x").await, 400, "invalid_grant");
    }
    let answer = refreshing.refresh("irt_x").await;
    refused(answer, 429, "temporarily_unavailable");
    refreshing.start_device().await;
}

#[tokio::test]
async fn limits_are_told_with_refusals_too() {
    // seeds/oauth-server.md, Rate Limits: on every answer.
    let mut stage = Stage::new().await;
    stage.notes.scope = "projects:read".into();
    let token = stage.tokens().await.access;
    let answer = stage.notes.profile(&token).await;
    assert_eq!(told(&answer.headers)[..2], [100, 99]);
    answer.expect_code(403, "insufficient_scope");

    let url = format!("{}/auth/v1/refresh", stage.app.base_url);
    let refresh = stage.app.http.post(url);
    let answer = Answer::to(refresh.header("cookie", "refreshToken=irt_x")).await;
    assert_eq!(told(&answer.headers)[..2], [50, 49]);
    answer.expect(401);

    let body = json!({"client_id": CLI_CLIENT_ID, "scope": "everything"});
    let answer = stage.notes.post(DEVICE, &body).await;
    assert_eq!(told(&answer.headers)[..2], [50, 49]);
    refused(answer, 400, "invalid_scope");
}
