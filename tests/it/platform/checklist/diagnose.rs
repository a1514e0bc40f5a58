//! `diagnose` (contract/platform-api.md 13).

use chrono::TimeDelta;
use cp_model::agent_protocol::{MachineSample, ObservedState, ReportRequest};
use serde_json::{Value, json};
use uuid::Uuid;

use super::forms::{INCIDENT, METRICS};
use super::{Story, is_not_configured, shown};

impl Story {
    fn of_project(project: &str, rest: &str) -> String {
        format!("/projects/v1/{project}/{rest}")
    }

    /// `diagnose` without a subcommand: both at once, since the host has no advisor.
    async fn diagnose(&self, project: &str) -> Value {
        let metrics = Self::of_project(project, "metrics?range=1h");
        let advisor = Self::of_project(project, "advisor/latest");
        let (metrics, advisor) = tokio::join!(self.cli.get(&metrics), self.cli.get(&advisor));
        // No scan yet: passed through.
        shown(advisor, 404);
        metrics.shaped(200, &METRICS)
    }

    /// As the project's machine tells each minute.
    async fn report(&self, project: &str, cpu: f64) {
        let machine = self.app.machine_of(project.parse().unwrap()).await.unwrap();
        let report = ReportRequest {
            generation: machine.desired_generation,
            state: ObservedState::Serving,
            restarts: 0,
            backend_version: None,
            backend_release: None,
            rolled_back_from: None,
            message: None,
            agent_version: "test".into(),
            sample: Some(MachineSample {
                cpu_usage: cpu,
                memory_usage: 40.0,
                disk_usage: 50.0,
                network_in: 8123.5,
                network_out: 10.0,
            }),
        };
        let done = self.app.control_plane.record_report(machine.id, &report);
        done.await.unwrap();
    }
}

#[tokio::test]
async fn diagnose() {
    let story = Story::of("diagnose").await;
    let project = story.project().await;
    let metrics = story.diagnose(&project).await;
    assert_eq!(metrics["range"], "1h");
    // Nothing was told yet: series are there, and empty.
    let series = metrics["metrics"].as_array().unwrap();
    assert!(
        series.iter().all(|one| one["data"] == json!([])),
        "{metrics}"
    );
    // The reason is printed only when the text has this word.
    let wrong = Story::of_project(&project, "metrics?range=1h&metrics=heat");
    let text = shown(story.ada.get(&wrong).await, 400);
    assert!(text.contains("Metrics"), "{text}");
}

#[tokio::test]
async fn diagnose_metrics() {
    let story = Story::at_work("diagnose metrics").await;
    let project = story.active_project().await;
    for cpu in [11.5, 12.5, 13.5] {
        story.report(&project, cpu).await;
        story.clock.advance(TimeDelta::minutes(1));
    }
    for range in ["1h", "6h", "24h", "7d"] {
        let path = Story::of_project(&project, &format!("metrics?range={range}"));
        let seen = story.cli.get(&path).await.shaped(200, &METRICS);
        assert_eq!(seen["range"], range);
        let all = seen["metrics"].as_array().unwrap();
        let names: Vec<_> = all
            .iter()
            .map(|one| one["metric"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "cpu_usage",
                "memory_usage",
                "disk_usage",
                "network_in",
                "network_out"
            ],
            "one series of each"
        );
        let times = |one: &Value| -> Vec<f64> {
            let points = one["data"].as_array().unwrap();
            points
                .iter()
                .map(|p| p["timestamp"].as_f64().unwrap())
                .collect()
        };
        let first = times(&all[0]);
        assert!(!first.is_empty() && first.is_sorted(), "{first:?}");
        assert!(all.iter().all(|one| times(one) == first), "equal: {seen}");
    }
    let some = Story::of_project(&project, "metrics?range=1h&metrics=network_in,cpu_usage");
    let some = story.cli.get(&some).await.shaped(200, &METRICS);
    assert_eq!(some["metrics"].as_array().unwrap().len(), 2);
    let cpu = some["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["metric"] == "cpu_usage");
    let last = cpu.unwrap()["data"].as_array().unwrap().last().unwrap();
    assert_eq!(last["value"], 13.5, "the last point is the latest");
    let wrong = Story::of_project(&project, "metrics?range=1y");
    let text = shown(story.cli.get(&wrong).await, 400);
    assert!(text.contains("Metrics"), "{text}");
}

#[tokio::test]
async fn diagnose_advisor() {
    let story = Story::of("diagnose advisor").await;
    let project = story.project().await;
    // 404 is "no scan yet" and "no issues", and passes through.
    for rest in [
        "advisor/latest",
        "advisor/latest/issues?limit=50",
        "advisor/latest/issues?severity=critical&category=security&limit=50",
    ] {
        let path = Story::of_project(&project, rest);
        shown(story.cli.get(&path).await, 404);
    }
}

#[tokio::test]
async fn diagnose_incident() {
    let story = Story::at_work("diagnose incident").await;
    let project = story.active_project().await;
    let path = Story::of_project(&project, "diagnose/incident");
    let seen = story.cli.get(&path).await.shaped(200, &INCIDENT);
    assert_eq!(seen["verdict"], "no_incident_detected", "{seen}");
    assert_eq!(seen["project_id"], project);
    assert_eq!(seen["reachable"]["database_connect"], true);
    assert_eq!(seen["recent_platform_operations"][0]["action"], "provision");
    // It has to work while the project cannot be reached.
    let pause = Story::of_project(&project, "pause");
    story.ada.post(&pause).await.expect(202);
    story.ada.await_status(&project, "paused").await;
    let seen = story.cli.get(&path).await.shaped(200, &INCIDENT);
    assert_eq!(seen["verdict"], "paused_or_suspended", "{seen}");
    assert_eq!(seen["project_status"], "paused");
}

#[tokio::test]
async fn diagnose_ai() {
    let story = Story::of("diagnose --ai").await;
    let project = story.project().await;
    story.diagnose(&project).await;
    let body = json!({
        "project_id": project,
        "question": "Why is it slow?",
        "context": {
            "context_version": "diagnostic-v1",
            "client_info": { "cli_version": "0.2.8", "node_version": "v22.1.0", "os": "linux" },
            "metrics": [{ "metric": "cpu_usage", "latest": 12.9, "avg": 12.1, "max": 12.9 }],
            "advisor": {
                "summary": { "total": 1, "critical": 0, "warning": 1, "info": 0 },
                "collectorErrors": ["no pg_stat_statements"],
            },
            "db": { "connections": [{ "state": "active", "count": "3" }] },
            "logs": [{
                "source": "postgres.logs", "total": 1,
                "errors": [{ "timestamp": "2026-08-23T11:00:00Z", "message": "out of memory", "source": "postgres.logs" }],
            }],
        },
    });
    // This installation has no AI to ask: an error before the stream.
    is_not_configured(story.cli.post_json("/diagnostic/v1/analyze", body).await);
    let rating = format!("/diagnostic/v1/sessions/{}/rating", Uuid::now_v7());
    for rating_of in ["helpful", "not_helpful", "incorrect"] {
        let body = json!({ "rating": rating_of });
        shown(story.cli.post_json(&rating, body).await, 404);
    }
}
