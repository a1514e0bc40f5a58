//! Requests per minute: per partner over all processes, and wrong secrets per address.

use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, TimeZone, Utc};
use cp_domain::NewPartner;
use cp_model::ManualClock;
use cp_tests::{Answer, App, AppOptions, PartnerClient};
use futures::future::join_all;

/// Stands at the 20th second of a minute, so that 40 are left.
fn clock() -> Arc<ManualClock> {
    ManualClock::at(Utc.with_ymd_and_hms(2026, 1, 21, 10, 30, 20).unwrap())
}

async fn app_with(clock: &Arc<ManualClock>, auth_failures_per_minute: u32) -> App {
    App::start_with(AppOptions {
        clock: clock.clone(),
        worker: false,
        auth_failures_per_minute,
        ..AppOptions::default()
    })
    .await
}

async fn partner_of(app: &App, rate_limit: u32) -> PartnerClient {
    app.partner_with(NewPartner {
        name: "Acme".into(),
        co_branded: true,
        white_label: true,
        rate_limit,
        trusted: false,
    })
    .await
}

/// Limit, remaining and reset, as the answer's headers tell.
fn told(answer: &Answer) -> [u64; 3] {
    ["limit", "remaining", "reset"].map(|name| {
        let name = format!("x-ratelimit-{name}");
        let value = answer.header(&name).unwrap_or_else(|| panic!("no {name}"));
        value.parse().expect("a number")
    })
}

#[tokio::test]
async fn each_answer_tells_what_is_left_and_the_next_minute_begins_anew() {
    let clock = clock();
    let app = app_with(&clock, 100).await;
    let partner = partner_of(&app, 5).await;
    let unlimited = partner_of(&app, 1_000).await;
    for remaining in [4, 3] {
        let answer = partner.get("/projects").await;
        assert_eq!(told(&answer), [5, remaining, 40]);
        answer.expect(200);
    }
    // What is refused for its input counts like everything else.
    let answer = partner.get("/x/metadata").await;
    assert_eq!(told(&answer), [5, 2, 40]);
    answer.expect(400);
    clock.advance(TimeDelta::milliseconds(10_500));
    let answer = partner.get("/nothing/of/the/kind").await;
    assert_eq!(answer.status, 404, "an unknown address is free");
    for remaining in [1, 0] {
        let answer = partner.get("/projects").await;
        assert_eq!(told(&answer), [5, remaining, 30]);
        answer.expect(200);
    }
    for _ in 0..3 {
        let answer = partner.get("/projects").await;
        assert_eq!(told(&answer), [5, 0, 30]);
        assert_eq!(answer.header("retry-after"), Some("30"));
        let body = answer.expect_code(429, "rate_limited");
        assert_eq!(body["success"], false);
        assert!(body["message"].as_str().unwrap().contains("30 s"), "{body}");
    }
    unlimited.get("/projects").await.expect(200);
    clock.advance(TimeDelta::seconds(30));
    let answer = partner.get("/projects").await;
    assert_eq!(told(&answer), [5, 4, 60]);
    answer.expect(200);
}

#[tokio::test]
async fn two_processes_share_one_limit() {
    let clock = clock();
    let app = app_with(&clock, 100).await;
    let second = app.start_second_api().await;
    for limit in [10, 120] {
        let one = partner_of(&app, limit).await;
        let two = one.through(&second);
        let count = usize::try_from(limit).unwrap() + 30;
        let answers = join_all((0..count).map(|number| {
            let by = if number % 2 == 0 { &one } else { &two };
            by.get("/projects")
        }))
        .await;
        let mut passed = 0;
        for answer in answers {
            if answer.status == 200 {
                passed += 1;
            } else {
                answer.expect_code(429, "rate_limited");
            }
        }
        assert!(passed <= limit, "{passed} passed of {limit}");
        // Each process may have been left with a share that it did not spend.
        let lost = 2 * (limit / 50);
        assert!(passed + lost >= limit, "{passed} passed of {limit}");
    }
}

#[tokio::test]
async fn addresses_that_guess_secrets_are_stopped_and_others_are_not() {
    let clock = clock();
    let app = app_with(&clock, 5).await;
    let partner = partner_of(&app, 10_000).await;
    partner.get("/projects").await.expect(200);
    let wrong = partner.with_secret("ifps_wrong");
    for _ in 0..5 {
        wrong
            .get("/projects")
            .await
            .expect_code(401, "unauthorized");
    }
    for _ in 0..3 {
        let answer = wrong.get("/projects").await;
        assert_eq!(answer.header("retry-after"), Some("40"));
        let body = answer.expect_code(429, "rate_limited");
        assert_eq!(body["success"], false);
    }
    // The partner sits behind the same address: one stale secret must not shut it out. Not even
    // when what the process remembers has to be asked for again.
    partner.get("/projects").await.expect(200);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    partner.get("/projects").await.expect(200);
    // A right secret that the process has not met lately is a guess like any other.
    let newcomer = partner_of(&app, 10_000).await;
    newcomer
        .get("/projects")
        .await
        .expect_code(429, "rate_limited");

    clock.advance(TimeDelta::seconds(40));
    newcomer.get("/projects").await.expect(200);
    wrong
        .get("/projects")
        .await
        .expect_code(401, "unauthorized");
}

#[tokio::test]
async fn guesses_are_counted_over_all_processes() {
    let clock = clock();
    let app = app_with(&clock, 6).await;
    let second = app.start_second_api().await;
    let wrong = partner_of(&app, 10_000).await.with_secret("ifps_wrong");
    let mut refused = 0;
    for number in 0..10 {
        let by = if number % 2 == 0 {
            wrong.clone()
        } else {
            wrong.through(&second)
        };
        refused += u32::from(by.get("/projects").await.status == 401);
    }
    assert_eq!(refused, 6);
}
