//! What is thrown away, and what stays: events and the keys that they are known by go, what was
//! counted of them does not.

use std::time::{Duration, Instant};

use chrono::{Days, TimeDelta};
use cp_model::Clock as _;

use super::Story;

impl Story {
    async fn rows(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query)
            .fetch_one(&mut self.app.database.connect().await)
            .await
            .unwrap()
    }

    async fn keep_house(&self) {
        self.app.control_plane.keep_house().await.unwrap();
    }
}

const EVENTS: &str = "select count(*) from usage_events";
const KEYS: &str = "select count(*) from usage_event_keys";
const OF_NO_DAY: &str = "select count(*) from usage_events_default";
const PARTITIONS: &str =
    "select count(*) from pg_inherits where inhparent = 'usage_events'::regclass";

#[tokio::test]
async fn old_events_go_and_what_was_counted_of_them_stays() {
    let story = Story::start().await;
    story.keep_house().await;
    let told = [
        story.event("1", "ai_tokens", 5),
        story.event("2", "database_bytes", 700),
        story.service.event(
            "3",
            story.project,
            "mcp_calls",
            9,
            story.now() - Days::new(34),
        ),
    ];
    assert_eq!(story.service.tell(&told).await["accepted"], 3);
    // On a day for which nobody has made a partition.
    let first = story.today() - Days::new(40);
    story.clock.advance(TimeDelta::days(20));
    let late = story.event("4", "ai_tokens", 60);
    assert_eq!(
        story.service.tell(std::slice::from_ref(&late)).await["accepted"],
        1
    );
    assert_eq!(story.rows(OF_NO_DAY).await, 1);
    let range = format!(
        "?start_date={first}&end_date={}&granularity=day",
        story.today()
    );
    let figures = async || {
        let of_project = story.project_usage(story.project, &range).await;
        let of_partner = story.partner_usage(&range).await;
        (
            of_project["daily_usage"].clone(),
            of_partner["daily_usage"].clone(),
        )
    };
    let before = figures().await;
    story.keep_house().await;
    assert_eq!((story.rows(EVENTS).await, story.rows(KEYS).await), (4, 4));
    let partitions = story.rows(PARTITIONS).await;

    // The keys of those that nobody may send again are gone, their events not yet.
    story.clock.advance(TimeDelta::days(21));
    story.keep_house().await;
    assert_eq!((story.rows(EVENTS).await, story.rows(KEYS).await), (4, 1));
    assert_eq!(story.service.tell(&[late]).await["duplicates"], 1);
    let again = story.service.tell(&told).await;
    assert_eq!(
        (
            &again["accepted"],
            again["refused"].as_array().map(Vec::len)
        ),
        (&0.into(), Some(3))
    );

    // 91 days after the first ones.
    story.clock.advance(TimeDelta::days(50));
    story.keep_house().await;
    assert_eq!((story.rows(EVENTS).await, story.rows(KEYS).await), (1, 0));
    assert!(
        story.rows(PARTITIONS).await < partitions,
        "whole days are dropped"
    );
    story.clock.advance(TimeDelta::days(20));
    story.keep_house().await;
    assert_eq!(
        story.rows(EVENTS).await,
        0,
        "of days without a partition, too"
    );
    assert_eq!(figures().await, before, "what was counted stays");

    // A day has its partition before it begins.
    story.clock.advance(TimeDelta::days(2));
    assert_eq!(
        story
            .service
            .tell(&[story.event("5", "ai_tokens", 1)])
            .await["accepted"],
        1
    );
    assert_eq!(story.rows(OF_NO_DAY).await, 0);
}

#[tokio::test]
async fn keeping_house_twice_or_with_the_clock_behind_changes_nothing() {
    let story = Story::start().await;
    assert_eq!(
        story
            .service
            .tell(&[story.event("1", "ai_tokens", 5)])
            .await["accepted"],
        1
    );
    for days in [0, 0, 300, -600, 301, -1] {
        story.clock.advance(TimeDelta::days(days));
        story.keep_house().await;
    }
    assert_eq!(story.clock.now().date_naive(), story.today());
    assert_eq!(story.partner_usage("").await["summary"]["ai_tokens"], 5);
}

/// Somebody reads usage for long: whoever counts does not wait behind the house-keeping that waits
/// for them.
#[tokio::test]
async fn partitions_that_cannot_be_made_soon_are_not_waited_for() {
    let story = Story::start().await;
    let mut reader = story.app.database.connect().await;
    sqlx::query("begin").execute(&mut reader).await.unwrap();
    sqlx::query("select count(*) from usage_events, usage_daily")
        .execute(&mut reader)
        .await
        .unwrap();
    story.clock.advance(TimeDelta::days(20));
    let before = story.rows(PARTITIONS).await;
    let keeping = async {
        let began = Instant::now();
        let kept = story.app.control_plane.keep_house().await;
        (kept, began.elapsed())
    };
    let counting = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let event = story.event("1", "ai_tokens", 5);
        story.service.tell(&[event]).await
    };
    let ((kept, took), counted) = tokio::join!(keeping, counting);
    assert!(kept.is_err(), "the reader still reads");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(counted["accepted"], 1);
    assert_eq!(story.rows(PARTITIONS).await, before);
    sqlx::query("commit").execute(&mut reader).await.unwrap();
    story.keep_house().await;
    assert!(story.rows(PARTITIONS).await != before);
}
