//! What backends tell of themselves: asked for in turn, each moment once, on its day.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::routing::get;
use axum::{Json, Router};
use chrono::{DateTime, Days, TimeDelta, Utc};
use cp_domain::usage::{Collection, Stats};
use cp_model::{ProjectId, ProjectStatus};
use cp_tests::{Answer, eventually};
use cp_tokens::keyring::{Expected, Jwks, ProjectAuthorization, verify};
use cp_worker::WorkerConfig;
use serde::Deserialize;
use serde_json::{Value, json};

use super::reference::{read_days, read_project};
use super::{Story, midnight};

const HOUR: TimeDelta = TimeDelta::hours(1);
const MCP: usize = 3;

impl Story {
    /// With an active project and no worker: nobody collects but the scenario. The project was made
    /// at noon of this day, three hours ago.
    async fn start_collecting() -> Self {
        let mut story = Self::start_working().await;
        story.app.kill_worker();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let noon = midnight(story.today() + Days::new(1)) + TimeDelta::hours(12);
        story.clock.hold();
        story.clock.set(noon + TimeDelta::hours(2));
        story.app.set_created_at(story.project, noon).await;
        // On a slow machine the worker may have planned one before it ended.
        sqlx::query("delete from usage_collections")
            .execute(&mut story.app.database.connect().await)
            .await
            .expect("plans can be dropped");
        // Plans the first question, at some moment of the coming hour.
        assert!(story.due().await.is_empty());
        story.clock.advance(HOUR);
        story
    }

    async fn due(&self) -> Vec<Collection> {
        self.app
            .control_plane
            .take_due_collections(HOUR, 10)
            .await
            .unwrap()
    }

    async fn the_due_one(&self) -> Collection {
        let mut due = self.due().await;
        assert_eq!(due.len(), 1);
        due.remove(0)
    }

    async fn record(&self, collection: &Collection, stats: [i64; 3]) {
        let [mcp_usage_count, database_size_bytes, storage_size_bytes] = stats;
        let stats = Stats {
            mcp_usage_count,
            database_size_bytes,
            storage_size_bytes,
        };
        self.app
            .control_plane
            .record_collection(collection, &stats, HOUR)
            .await
            .unwrap();
    }

    async fn fail(&self, collection: &Collection) {
        self.app
            .control_plane
            .mark_collection_failed(collection, "no answer\nat all", HOUR)
            .await
            .unwrap();
    }

    /// Database, files, MCP calls of the last seven days; the partner's are the same.
    async fn seen(&self) -> [i64; 3] {
        let usage = self.project_usage(self.project, "").await;
        let amounts = read_project(&usage);
        let of_partner = super::reference::read_partner(&self.partner_usage("").await);
        assert_eq!(amounts[..8], of_partner[..8]);
        [amounts[0], amounts[1], amounts[MCP]]
    }
}

#[tokio::test]
async fn a_window_is_counted_once_even_if_told_twice() {
    let story = Story::start_collecting().await;
    let first = story.the_due_one().await;
    assert_eq!(first.project, story.project);
    assert_eq!(first.from, story.now() - TimeDelta::hours(3));
    assert_eq!(first.until, story.now() - TimeDelta::seconds(30));
    assert!(story.due().await.is_empty(), "it is nobody else's");
    story.record(&first, [7, 1_000, 50]).await;
    story.record(&first, [7, 1_000, 50]).await;
    assert_eq!(story.seen().await, [1_000, 50, 7]);

    assert!(story.due().await.is_empty(), "not within the hour");
    story.clock.advance(HOUR - TimeDelta::seconds(1));
    assert!(story.due().await.is_empty(), "not within the hour");
    story.clock.advance(TimeDelta::seconds(1));
    let second = story.the_due_one().await;
    assert_eq!(
        second.from, first.until,
        "no moment is left out or asked for twice"
    );
    // A collector that was taken for dead tells of the window as the next one does.
    story.clock.advance(TimeDelta::minutes(3));
    let again = story.the_due_one().await;
    assert_eq!(again.from, second.from);
    assert!(again.until > second.until);
    story.record(&again, [3, 900, 80]).await;
    story.record(&second, [2, 5_000, 5_000]).await;
    assert_eq!(story.seen().await, [1_000, 80, 10]);
    assert_eq!(story.due().await.len(), 0);
}

#[tokio::test]
async fn counts_that_went_back_never_subtract() {
    let story = Story::start_collecting().await;
    let first = story.the_due_one().await;
    story.record(&first, [7, 1_000, 50]).await;
    for stats in [
        [-5, 10, 10],
        [0, 0, 0],
        [-1, -1, -1],
        [i64::MIN, i64::MIN, i64::MIN],
    ] {
        story.clock.advance(HOUR);
        story.record(&story.the_due_one().await, stats).await;
    }
    let usage = story.project_usage(story.project, "").await;
    assert_eq!(read_project(&usage)[MCP], 7);
    assert_eq!(story.seen().await, [1_000, 50, 7]);
    // What cannot be is on no bill, and what can be is, however much.
    for _ in 0..3 {
        story.clock.advance(HOUR);
        story
            .record(&story.the_due_one().await, [i64::MAX; 3])
            .await;
    }
    assert_eq!(story.seen().await, [1_000, 50, 7]);
    story.clock.advance(HOUR);
    let (size, count) = (1_000_000_000_000_000, 10_000_000_000_000);
    story
        .record(&story.the_due_one().await, [count, size, size])
        .await;
    assert_eq!(story.seen().await, [size, size, count + 7]);
}

#[tokio::test]
async fn missed_days_are_caught_up_on_each_with_its_counts() {
    let story = Story::start_collecting().await;
    let born = story.today();
    story.clock.advance(TimeDelta::days(3));
    let mut windows: Vec<(DateTime<Utc>, DateTime<Utc>)> = Vec::new();
    for calls in 1.. {
        let due = story.due().await;
        let Some(collection) = due.first() else {
            break;
        };
        assert!(calls < 10, "it never ends");
        windows.push((collection.from, collection.until));
        story.record(collection, [calls, 1_000, 50]).await;
    }
    let midnights = (1..=3).map(|n| midnight(born + Days::new(n)));
    let mut expected = vec![story.now() - TimeDelta::hours(75)];
    expected.extend(midnights);
    let from: Vec<DateTime<Utc>> = windows.iter().map(|window| window.0).collect();
    assert_eq!(from, expected);
    assert!(
        windows.windows(2).all(|two| two[0].1 == two[1].0),
        "{windows:?}"
    );
    let usage = story.project_usage(story.project, "").await;
    // Its machine ran before; the story has made the project younger than that.
    let days = read_days(&usage).split_off(&born);
    let calls: Vec<i64> = days.values().map(|amounts| amounts[MCP]).collect();
    assert_eq!(calls, [1, 2, 3, 4]);
    // How big it was then, nobody knows; it is told for now alone.
    let sizes: Vec<i64> = days.values().map(|amounts| amounts[0]).collect();
    assert_eq!(sizes, [0, 0, 0, 1_000]);
}

#[tokio::test]
async fn what_is_too_late_for_an_event_is_not_asked_for() {
    let story = Story::start_collecting().await;
    story.clock.advance(TimeDelta::days(60));
    let collection = story.the_due_one().await;
    assert_eq!(collection.from, story.now() - TimeDelta::days(35));
    assert_eq!(
        collection.until,
        midnight(collection.from.date_naive() + Days::new(1))
    );
}

#[tokio::test]
async fn failures_back_off_and_lose_nothing() {
    let story = Story::start_collecting().await;
    let first = story.the_due_one().await;
    story.fail(&first).await;
    // One minute, doubling up to the usual hour.
    for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
        let pause = TimeDelta::minutes(minutes);
        story.clock.advance(pause - TimeDelta::seconds(1));
        assert!(story.due().await.is_empty(), "not within {minutes} minutes");
        story.clock.advance(TimeDelta::seconds(1));
        let next = story.the_due_one().await;
        assert_eq!(next.from, first.from);
        story.fail(&next).await;
    }
    let said: String = sqlx::query_scalar("select last_error from usage_collections")
        .fetch_one(&mut story.app.database.connect().await)
        .await
        .unwrap();
    assert_eq!(said, "no answer at all");
    // A day has passed meanwhile, perhaps: one window for each.
    story.clock.advance(HOUR);
    while let Some(collection) = story.due().await.first() {
        story.record(collection, [1, 1, 1]).await;
    }
    assert!(story.seen().await[2] >= 1);
    let attempts: i32 = sqlx::query_scalar("select attempts from usage_collections")
        .fetch_one(&mut story.app.database.connect().await)
        .await
        .unwrap();
    assert_eq!(attempts, 0, "a success ends the backing off");
}

#[tokio::test]
async fn a_clock_that_goes_back_collects_nothing_twice() {
    let story = Story::start_collecting().await;
    story
        .record(&story.the_due_one().await, [7, 1_000, 50])
        .await;
    let until = story.now() - TimeDelta::seconds(30);
    story.clock.advance(-TimeDelta::hours(5));
    assert!(story.due().await.is_empty());
    sqlx::query("update usage_collections set next_attempt_at = $1")
        .bind(story.now())
        .execute(&mut story.app.database.connect().await)
        .await
        .unwrap();
    assert!(story.due().await.is_empty(), "there is nothing to ask for");
    assert_eq!(story.seen().await, [1_000, 50, 7]);
    // The clock is right again: what came since is asked for.
    story.clock.advance(HOUR * 7);
    let next = story.the_due_one().await;
    assert_eq!(next.from, until);
    story.record(&next, [2, 1_000, 50]).await;
    assert_eq!(story.seen().await, [1_000, 50, 9]);
}

#[tokio::test]
async fn only_what_is_active_is_asked_and_what_is_deleted_is_forgotten() {
    let story = Story::start_working().await;
    let id = story.project.to_string();
    assert!(story.due().await.is_empty());
    story.clock.advance(HOUR * 2);
    assert_eq!(story.due().await.len(), 1);
    story.partner.pause(&id).await.expect(200);
    story.clock.advance(HOUR * 2);
    assert!(
        story.due().await.is_empty(),
        "a paused backend cannot answer"
    );
    story.partner.restore(&id).await.expect(200);
    assert_eq!(story.due().await.len(), 1, "its hours are caught up on");
    story.partner.delete_project(&id).await.expect(200);
    story
        .app
        .wait_for_status(story.project, ProjectStatus::Deleted)
        .await;
    story.clock.advance(HOUR * 2);
    assert!(story.due().await.is_empty());
    story.app.control_plane.keep_house().await.unwrap();
    assert_eq!(story.app.database.count("usage_collections").await, 0);
}

/// A backend that notes what it was asked.
#[derive(Clone, Default)]
struct Backend(Arc<Mutex<Vec<Asked>>>);

#[derive(Debug, Clone)]
struct Asked {
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    token: String,
    /// Whether it answered well.
    well: bool,
}

#[derive(Deserialize)]
struct Window {
    start_date: DateTime<Utc>,
    end_date: DateTime<Utc>,
}

impl Backend {
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/api/usage/stats", get(Self::stats))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    /// One call a question; each third answer is no usage.
    #[allow(clippy::unused_async, reason = "axum wants handlers to be async")]
    async fn stats(
        State(this): State<Self>,
        Query(window): Query<Window>,
        headers: HeaderMap,
    ) -> Json<Value> {
        let token = headers["authorization"].to_str().unwrap();
        let mut asked = this.0.lock().unwrap();
        let well = asked.len() % 3 != 1;
        asked.push(Asked {
            from: window.start_date,
            until: window.end_date,
            token: token.trim_start_matches("Bearer ").to_owned(),
            well,
        });
        Json(if well {
            json!({ "mcp_usage_count": 1, "database_size_bytes": 4_096, "storage_size_bytes": 17, "more": [] })
        } else {
            json!({ "mcp_usage_count": "many" })
        })
    }

    fn asked(&self) -> Vec<Asked> {
        self.0.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn the_worker_asks_every_active_backend_with_a_signed_token() {
    let mut story = Story::start_working().await;
    story.app.kill_worker();
    story.app.set_created_at(story.project, story.now()).await;
    let backend = Backend::default();
    let host = backend.start().await;
    // Another project's backend is silent: nobody listens there.
    let silent = story.app.copy_project(story.project, "silent").await;
    for (project, host) in [
        (story.project, host.as_str()),
        (silent, "http://127.0.0.1:9"),
    ] {
        sqlx::query("update projects set status = 'active', access_host = $2 where id = $1")
            .bind(project.0)
            .bind(host)
            .execute(&mut story.app.database.connect().await)
            .await
            .unwrap();
    }
    let config = |name: &str| WorkerConfig {
        usage_every: Duration::from_secs(2),
        ..story.app.worker_config(name)
    };
    // Two at once, of which one is killed.
    let (first, second) = (
        story.app.start_worker(config("one")),
        story.app.start_worker(config("two")),
    );
    let until = async |count: usize| {
        eventually("it is asked", Duration::from_secs(90), async || {
            let well = backend.asked().iter().filter(|asked| asked.well).count();
            (well >= count).then_some(())
        })
        .await;
    };
    until(2).await;
    first.kill();
    until(4).await;
    second.stop().await;
    tokio::time::sleep(Duration::from_millis(200)).await;

    let asked = backend.asked();
    let well: Vec<&Asked> = asked.iter().filter(|asked| asked.well).collect();
    let told = i64::try_from(well.len()).unwrap();
    let calls = story.seen().await;
    assert_eq!(calls[..2], [4_096, 17]);
    // The last answer may have come to a worker that was killed or stopped.
    assert!(
        (told - 2..=told).contains(&calls[2]),
        "{calls:?} {asked:#?}"
    );
    let failed = asked.iter().filter(|asked| !asked.well);
    assert!(failed.count() > 0, "some answers were no usage");
    assert!(
        asked.iter().all(|asked| asked.from <= asked.until),
        "{asked:#?}"
    );
    let jwks = story
        .app
        .http
        .get(format!("{}/.well-known/jwks.json", story.app.base_url));
    let jwks: Jwks = serde_json::from_str(&Answer::to(jwks).await.text).unwrap();
    let expected = Expected {
        issuer: &story.app.base_url,
        audience: &host,
    };
    let claims: ProjectAuthorization =
        verify(&asked[0].token, &jwks, expected, story.now()).unwrap();
    assert_eq!(ProjectId(claims.project_id), story.project);
    let error: Option<String> =
        sqlx::query_scalar("select last_error from usage_collections where project_id = $1")
            .bind(silent.0)
            .fetch_one(&mut story.app.database.connect().await)
            .await
            .unwrap();
    assert!(error.unwrap().contains("no answer"));
}
