//! What machines tell of how busy they are, and what people are told of it (contract/platform-api.md 13).

use std::sync::Arc;

use chrono::TimeDelta;
use cp_model::MachineId;
use cp_model::agent_protocol::{MachineSample, ObservedState, ReportRequest};
use cp_tests::{App, AppOptions, Member, MovingClock, Person};
use serde_json::{Value, json};

struct World {
    app: App,
    clock: Arc<MovingClock>,
    person: Person,
    ada: Member,
    project: String,
    machine: MachineId,
}

impl World {
    async fn start() -> Self {
        let clock = MovingClock::new();
        let app = App::start_with(AppOptions {
            clock: clock.clone(),
            ..AppOptions::default()
        })
        .await;
        let person = app.stranger("ada").await;
        let ada = app.member_of(&person).await;
        let project = ada.create_project(&ada.home().await, "shop").await;
        let machine = app.machine_of(project.parse().unwrap()).await.unwrap().id;
        Self {
            app,
            clock,
            person,
            ada,
            project,
            machine,
        }
    }

    /// As the machine's agent does, and the minute is over.
    async fn report(&self, state: ObservedState, memory: f64, cpu: f64) {
        let machine = self.app.machine_of(self.project.parse().unwrap()).await;
        let report = ReportRequest {
            generation: machine.unwrap().desired_generation,
            state,
            restarts: 0,
            backend_version: None,
            backend_release: None,
            rolled_back_from: None,
            message: None,
            agent_version: "test".into(),
            sample: Some(MachineSample {
                cpu_usage: cpu,
                memory_usage: memory,
                disk_usage: 50.0,
                network_in: 1000.0,
                network_out: 10.0,
            }),
        };
        let done = self.app.control_plane.record_report(self.machine, &report);
        done.await.unwrap();
    }

    /// Her sign-in may be over by then.
    async fn advance(&mut self, by: TimeDelta) {
        self.clock.advance(by);
        self.ada = self.app.member_of(&self.person).await;
    }

    async fn metrics(&self, query: &str) -> Value {
        let path = format!("/projects/v1/{}/metrics{query}", self.project);
        self.ada.get(&path).await.expect(200)
    }

    async fn incident(&self) -> Value {
        let path = format!("/projects/v1/{}/diagnose/incident", self.project);
        self.ada.get(&path).await.expect(200)
    }
}

fn values(metrics: &Value, name: &str) -> Vec<f64> {
    let all = metrics["metrics"].as_array().unwrap();
    let series = all.iter().find(|series| series["metric"] == name);
    let points = series.unwrap()["data"].as_array().unwrap();
    points
        .iter()
        .map(|p| p["value"].as_f64().unwrap())
        .collect()
}

#[tokio::test]
async fn minutes_and_ten_minutes_are_means_and_old_ones_make_room() {
    let mut world = World::start().await;
    let none = world.metrics("?range=1h").await;
    assert_eq!(none["range"], "1h");
    assert_eq!(none["project_id"], world.project);
    assert_eq!(none["metrics"].as_array().unwrap().len(), 5);
    assert!(values(&none, "cpu_usage").is_empty());

    for minute in 0..30 {
        world
            .report(ObservedState::Serving, 40.0, f64::from(minute))
            .await;
        world.advance(TimeDelta::minutes(1)).await;
    }
    let hour = world.metrics("?range=1h").await;
    let cpu = values(&hour, "cpu_usage");
    assert_eq!(cpu, (0..30).map(f64::from).collect::<Vec<_>>());
    let all = hour["metrics"].as_array().unwrap();
    let times = |series: &Value| -> Vec<Value> {
        let points = series["data"].as_array().unwrap();
        points.iter().map(|p| p["timestamp"].clone()).collect()
    };
    assert!(all.iter().all(|series| times(series) == times(&all[0])));
    assert!(
        all.iter()
            .all(|series| series["instance_id"] == json!(world.machine))
    );
    // The same in slots of ten minutes: three or four of them, whose mean is that of all.
    let day = values(
        &world.metrics("?range=24h&metrics=cpu_usage").await,
        "cpu_usage",
    );
    assert!((3..=4).contains(&day.len()), "{day:?}");
    assert!(day.windows(2).all(|pair| pair[0] < pair[1]), "{day:?}");

    // Two reports within a minute count as their mean.
    world.report(ObservedState::Serving, 40.0, 10.0).await;
    world.report(ObservedState::Serving, 40.0, 30.0).await;
    let cpu = values(&world.metrics("").await, "cpu_usage");
    let mean = cpu.last().unwrap();
    assert!(
        (mean - 20.0).abs() < 1e-9 || cpu[cpu.len() - 2..] == [10.0, 30.0],
        "{cpu:?}"
    );

    // A day later the minutes are gone from view, and the ten minutes are not.
    world.advance(TimeDelta::hours(24)).await;
    world.report(ObservedState::Serving, 40.0, 1.0).await;
    assert_eq!(
        values(&world.metrics("?range=6h").await, "cpu_usage"),
        [1.0]
    );
    assert!(values(&world.metrics("?range=7d").await, "cpu_usage").len() >= 4);
    let rows: i64 = sqlx::query_scalar("select count(*) from project_metrics where minutes = 1")
        .fetch_one(&mut world.app.database.connect().await)
        .await
        .unwrap();
    assert!(rows <= 32, "a slot comes round again: {rows}");
}

#[tokio::test]
async fn bad_questions_are_answered_with_the_word_that_the_client_looks_for() {
    let world = World::start().await;
    let path = format!("/projects/v1/{}/metrics", world.project);
    for (query, rule) in [
        ("?range=1y", "range must be one of 1h, 6h, 24h, 7d"),
        ("?metrics=heat", "metrics must be one of cpu_usage"),
        ("?metrics=cpu_usage,,", "metrics must be one of"),
    ] {
        let refused = world.ada.get(&format!("{path}{query}")).await;
        let refused = refused.expect_code(400, "invalid_input");
        let error = refused["error"].as_str().unwrap();
        assert!(error.contains("Metrics") && error.contains(rule), "{error}");
    }
    let some = world
        .metrics("?metrics=network_in,cpu_usage,cpu_usage")
        .await;
    let names: Vec<_> = some["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["metric"])
        .collect();
    assert_eq!(names, ["cpu_usage", "network_in"]);
}

#[tokio::test]
async fn a_machine_that_was_full_when_it_went_silent_most_likely_ran_out_of_memory() {
    let mut world = World::start().await;
    world.report(ObservedState::Serving, 55.0, 5.0).await;
    let well = world.incident().await;
    assert_eq!(well["verdict"], "no_incident_detected");
    assert_eq!(well["memory_latest_pct"], 55.0);
    assert_eq!(well["memory_before_down_pct"], Value::Null);
    assert_eq!(well["down_since"], Value::Null);
    assert_eq!(well["scrape_gaps_24h"], 0);

    world.advance(TimeDelta::minutes(10)).await;
    world.report(ObservedState::Serving, 96.0, 99.0).await;
    // The simulated machine's own agent goes on reporting; the backend does not serve.
    world.report(ObservedState::Failing, 97.0, 99.0).await;
    let down = world.incident().await;
    assert_eq!(down["verdict"], "oom_likely", "{down}");
    assert!(down["explanation"].as_str().unwrap().contains("memory"));
    assert_eq!(down["scrape_gaps_24h"], 1);
}
