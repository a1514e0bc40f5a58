//! A thousand projects at once, on `sim` machines that boot for a minute: a process of its own, so
//! that its memory is what the worker (with the API, the sim world and its thousand agents) took.

use std::process::Stdio;
use std::time::{Duration, Instant};

use cp_provider::sim::SimConfig;
use cp_tests::{App, AppOptions};
use serde_json::{Value, json};
use sqlx::Row as _;
use tokio::process::Command;

use crate::report::Row;
use crate::{at_least, at_most};

const PROJECTS: usize = 1000;

pub async fn measure() -> Vec<Row> {
    let slow = run_child(PROJECTS, 60).await;
    let fast = run_child(300, 0).await;
    let number = |value: &Value, key: &str| value[key].as_f64().unwrap_or(f64::NAN);
    let active = number(&slow, "active");
    let detail = format!(
        "all active {:.1} s after the first call; {} machines",
        number(&slow, "seconds"),
        number(&slow, "machines")
    );
    #[allow(clippy::cast_precision_loss)] // a thousand
    let wanted = PROJECTS as f64;
    vec![
        at_least(
            "1,000 projects at once: active",
            active,
            "",
            wanted,
            wanted,
            detail,
        ),
        at_most(
            "  machines per project",
            number(&slow, "machines") / wanted,
            "x",
            1.0,
            1.0,
            String::new(),
        ),
        at_most(
            "  worker memory, peak",
            number(&slow, "peak_mib"),
            "MiB",
            150.0,
            150.0,
            "one process with worker, API, sim world and 1,000 agents".into(),
        ),
        at_most(
            "  worker's database connections",
            number(&slow, "connections"),
            "",
            2.0,
            2.0,
            format!(
                "held while all machines boot, 95 of 100 looks; most {}",
                number(&slow, "most_connections")
            ),
        ),
        at_least(
            "operations through the queue",
            number(&fast, "per_second"),
            "/s",
            0.0,
            0.0,
            "creates whose machines boot at once, on this machine".into(),
        ),
    ]
}

async fn run_child(projects: usize, boot_seconds: u64) -> Value {
    let output = Command::new(std::env::current_exe().expect("a program knows its path"))
        .args([
            "--thousand",
            &projects.to_string(),
            &boot_seconds.to_string(),
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await
        .expect("this program can be started again");
    assert!(output.status.success(), "the thousand projects failed");
    serde_json::from_slice(&output.stdout).expect("the child writes JSON")
}

pub async fn child(arguments: &[String]) {
    let projects: usize = arguments[0].parse().expect("a number of projects");
    let boots_after = Duration::from_secs(arguments[1].parse().expect("seconds"));
    let app = App::start_with(AppOptions {
        sim: SimConfig {
            boots_after,
            ..SimConfig::default()
        },
        create_wait: Duration::ZERO,
        production_pace: true,
        ..AppOptions::default()
    })
    .await;
    let partner = app.partner().await;
    let began = Instant::now();
    let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(32));
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..projects {
        let (partner, slots) = (partner.clone(), slots.clone());
        calls.spawn(async move {
            let _slot = slots.acquire().await.expect("the semaphore stays open");
            partner.create_project(&format!("p{number}")).await;
        });
    }
    calls.join_all().await;

    let mut looking = app.database.connect().await;
    let mut held_while_waiting: Vec<i64> = Vec::new();
    let active = loop {
        let counted = sqlx::query(
            "select (select count(*) from projects where status = 'active') as active,
                    (select count(*) from operations where state <> 'succeeded' and state <> 'waiting') as busy,
                    (select count(*) from pg_stat_activity
                     where application_name like 'insforge-worker%' and datname = current_database()) as held",
        )
        .fetch_one(&mut looking)
        .await
        .expect("the database answers");
        let (active, busy, held): (i64, i64, i64) = (
            counted.get("active"),
            counted.get("busy"),
            counted.get("held"),
        );
        // While machines boot and nobody has anything to do.
        if active == 0 && busy == 0 && began.elapsed() > boots_after / 2 {
            held_while_waiting.push(held);
        }
        if usize::try_from(active).unwrap_or(0) >= projects
            || began.elapsed() > Duration::from_mins(5)
        {
            break active;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let seconds = began.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss)] // hundreds
    let per_second = active as f64 / seconds;
    println!(
        "{}",
        json!({ "active": active, "seconds": seconds, "machines": app.sim.alive().len(), "peak_mib": crate::memory::peak(),
                "connections": percentile(&held_while_waiting, 95), "most_connections": percentile(&held_while_waiting, 100),
                "per_second": per_second })
    );
}

fn percentile(looks: &[i64], percent: usize) -> i64 {
    let mut sorted = looks.to_vec();
    sorted.sort_unstable();
    let index = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(index).copied().unwrap_or(i64::MAX)
}
