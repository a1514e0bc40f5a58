//! How soon a project is active: from the pool, and from a machine that has to be made first.

use std::time::{Duration, Instant};

use cp_tests::programs::Dev;
use serde_json::json;

use crate::at_most;
use crate::report::Row;

const CREATES: usize = 20;

/// Twenty projects, each when a warm machine is ready for it.
pub async fn warm(dev: &Dev) -> Vec<Row> {
    let mut times = Vec::new();
    for number in 0..CREATES {
        // Let the pool fill up: the promise is about warm machines.
        tokio::time::sleep(Duration::from_secs(4)).await;
        let began = Instant::now();
        let project = dev
            .partner
            .create_active_project(&format!("warm-{number}"))
            .await;
        times.push(began.elapsed().as_secs_f64());
        dev.partner.delete_project(&project).await.expect(200);
    }
    times.sort_by(f64::total_cmp);
    let p95 = times[CREATES * 95 / 100 - 1];
    let detail = format!(
        "median {:.2} s, worst {:.2} s of {CREATES}",
        times[CREATES / 2],
        times[CREATES - 1]
    );
    vec![at_most(
        "create to active, warm machine, p95",
        p95,
        "s",
        1.5,
        0.5,
        detail,
    )]
}

/// A region without a pool: the machine is made while the caller waits.
pub async fn cold(dev: &Dev) -> Vec<Row> {
    let mut times = Vec::new();
    for number in 0..5 {
        let began = Instant::now();
        let body = json!({ "project_name": format!("cold-{number}"), "region": "eu-central" });
        let project = dev
            .partner
            .post("/sync-embedded-project", &body)
            .await
            .expect(200)["project"]
            .clone();
        assert_eq!(project["status"], "active", "{project}");
        times.push(began.elapsed().as_secs_f64());
        let id = project["id"].as_str().expect("a project id").to_owned();
        dev.partner.delete_project(&id).await.expect(200);
    }
    times.sort_by(f64::total_cmp);
    let detail = format!("median {:.2} s of {}", times[times.len() / 2], times.len());
    vec![at_most(
        "create to active, cold machine, worst",
        times[times.len() - 1],
        "s",
        5.0,
        5.0,
        detail,
    )]
}
