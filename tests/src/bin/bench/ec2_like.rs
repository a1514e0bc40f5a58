//! Projects on machines that are as slow as EC2's and launched as slowly as AWS lets one launch
//! them: calls of 100 to 300 ms, boots of 45 to 180 s, two launches a second and five at once per
//! region, tags after up to two seconds, and one call in a hundred fails. Through the API, with a
//! worker at the pace of production. In real time.

#![allow(clippy::cast_precision_loss)] // counts, far below 2^52

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cp_model::{InstanceType, Region};
use cp_provider::sim::{Ec2Like, SimCompute, SimConfig, Verb};
use cp_tests::{AgentPace, Answer, App, AppOptions, PartnerClient};
use cp_worker::PoolTarget;
use reqwest::Method;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::report::Row;
use crate::{at_least, at_most};

/// Of the issue: 500 in each region.
pub const PROJECTS: usize = 2000;
/// Requests of one client that are out at a time.
const CONNECTIONS: usize = 256;
const WARM_CREATES: usize = 200;
/// In each region.
const WARM_MACHINES: u32 = 40;
/// Between two creates: in each region half as fast as its pool may fill up again.
const WARM_PAUSE: Duration = Duration::from_millis(250);

fn options(ec2: Ec2Like) -> AppOptions {
    AppOptions {
        sim: SimConfig {
            error_rate: 0.01,
            seed: 5,
            ec2: Some(ec2),
            ..SimConfig::default()
        },
        agents: AgentPace {
            // As the real agent's.
            poll: Duration::from_secs(20),
            backend_starts_in: Duration::from_millis(500)..=Duration::from_millis(1500),
        },
        production_pace: true,
        ..AppOptions::default()
    }
}

/// The earliest moment at which all machines could have booted, from the first call on: the k-th
/// launch of a region, counted from 1, is taken no earlier than `max(0, k − burst) × interval`
/// after the first one, and boots for as long as the machine that was launched k-th did. Nothing
/// else takes time, and no launch fails.
fn limit(ec2: &Ec2Like, boots: &[(Region, Duration)]) -> Duration {
    let mut launched: HashMap<Region, u32> = HashMap::new();
    let ends = boots.iter().map(|(region, boot)| {
        let number = launched.entry(*region).or_default();
        *number += 1;
        let waits = number.saturating_sub(ec2.takes.burst.get());
        ec2.takes.interval * waits + *boot
    });
    ends.max().unwrap_or_default()
}

/// As AWS bills them: one per call, however many machines it looks for, and one per page.
fn calls(sim: &SimCompute) -> [(&'static str, usize); 4] {
    [
        ("launches", sim.calls(Verb::Launch)),
        ("looks", sim.calls(Verb::Find)),
        ("lists", sim.calls(Verb::List)),
        (
            "others",
            [Verb::Start, Verb::Stop, Verb::Terminate]
                .into_iter()
                .map(|verb| sim.calls(verb))
                .sum(),
        ),
    ]
}

async fn create(partner: &PartnerClient, name: &str, region: Region) -> serde_json::Value {
    let body = json!({ "project_name": name, "region": region.as_str() });
    loop {
        let request = partner.request(Method::POST, "/sync-embedded-project");
        // It may have been made although it was answered 503: the same key makes no second one.
        let request = request.header("Idempotency-Key", name).json(&body);
        let answer = Answer::to(request).await;
        if answer.status == 503
            && let Some(seconds) = answer.header("retry-after")
        {
            let seconds = seconds.parse().expect("Retry-After is in seconds");
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            continue;
        }
        return answer.expect(200)["project"].clone();
    }
}

/// That many creates at once, spread over all regions.
pub async fn creates(projects: usize) -> Vec<Row> {
    let ec2 = Ec2Like::default();
    let app = App::start_with(AppOptions {
        create_wait: Duration::ZERO,
        ..options(ec2.clone())
    })
    .await;
    let partner = app.partner().await;
    let began = Instant::now();
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let mut asking = tokio::task::JoinSet::new();
    for (number, region) in (0..projects).zip(Region::ALL.iter().cycle()) {
        let (partner, connections) = (partner.clone(), connections.clone());
        asking.spawn(async move {
            let _connection = connections.acquire().await;
            create(&partner, &format!("p{number}"), *region).await;
        });
    }
    asking.join_all().await;
    let answered = began.elapsed();

    let mut looking = app.database.connect().await;
    let mut told = Instant::now();
    let active = loop {
        let query = "select count(*) from projects where status = 'active'";
        let active: i64 = sqlx::query_scalar(query)
            .fetch_one(&mut looking)
            .await
            .expect("the database answers");
        let active = usize::try_from(active).unwrap_or(0);
        if active >= projects || began.elapsed() > Duration::from_mins(20) {
            break active;
        }
        if told.elapsed() > Duration::from_secs(15) {
            told = Instant::now();
            eprintln!(
                "{:.0} s: {} launched, {active} active",
                began.elapsed().as_secs_f64(),
                app.sim.boots().len()
            );
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    let took = began.elapsed();
    let calls = calls(&app.sim);
    let all_calls: usize = calls.iter().map(|(_, count)| count).sum();
    let limit = limit(&ec2, &app.sim.boots());
    // Each project with one machine that serves it, no machine without its row, nothing in flight.
    app.assert_truth().await;
    let machines = app.sim.alive().len();
    let each = |count: usize| count as f64 / projects as f64;
    let parts = calls.map(|(what, count)| format!("{:.2} {what}", each(count)));
    vec![
        at_least(
            &format!("{projects} creates at once, EC2-like: active"),
            active as f64,
            "",
            projects as f64,
            projects as f64,
            format!("all answered after {:.1} s", answered.as_secs_f64()),
        ),
        at_most(
            "  all active / limit of launches and boots",
            took.as_secs_f64() / limit.as_secs_f64(),
            "x",
            1.15,
            1.05,
            format!(
                "{:.0} s against {:.0} s; {} launches refused by the region's bucket",
                took.as_secs_f64(),
                limit.as_secs_f64(),
                app.sim.refused_launches()
            ),
        ),
        at_most(
            "  provider's calls per project",
            each(all_calls),
            "",
            6.0,
            4.0,
            parts.join(", "),
        ),
        at_most(
            "  machines beyond one per project",
            machines as f64 - projects as f64,
            "",
            0.0,
            0.0,
            "each project serves from a machine of its own; none is without a row".into(),
        ),
    ]
}

/// Projects from a full pool, one after the other: from the call to the answer that says `active`,
/// with the machine's identity, its backend's start and our look at it.
pub async fn warm() -> Vec<Row> {
    let seconds = Duration::from_secs;
    let ec2 = Ec2Like {
        // A warm machine has booted already, however long that took.
        boots: seconds(5)..=seconds(10),
        ..Ec2Like::default()
    };
    let pool = Region::ALL.iter().map(|region| PoolTarget {
        region: *region,
        instance_type: InstanceType::DEFAULT,
        floor: WARM_MACHINES,
        ceiling: WARM_MACHINES,
    });
    let app = App::start_with(AppOptions {
        pool: pool.collect(),
        ..options(ec2)
    })
    .await;
    let partner = app.partner().await;
    let full = i64::from(WARM_MACHINES);
    cp_tests::eventually("the pools are full", Duration::from_mins(5), async || {
        let levels = app.control_plane.pool_levels("sim").await.ok()?;
        let filled = levels.iter().filter(|level| level.ready >= full).count();
        (filled == Region::ALL.len()).then_some(())
    })
    .await;
    let mut creates = tokio::task::JoinSet::new();
    for (number, region) in (0..WARM_CREATES).zip(Region::ALL.iter().cycle()) {
        let partner = partner.clone();
        creates.spawn(async move {
            let began = Instant::now();
            let project = create(&partner, &format!("w{number}"), *region).await;
            (began.elapsed().as_secs_f64(), project["status"] == "active")
        });
        tokio::time::sleep(WARM_PAUSE).await;
    }
    let answers = creates.join_all().await;
    // Answered after the ten seconds that a create waits at most: above every bar.
    let late = answers.iter().filter(|(_, active)| !active).count();
    let mut times: Vec<f64> = answers.into_iter().map(|(time, _)| time).collect();
    times.sort_by(f64::total_cmp);
    let detail = format!(
        "median {:.2} s, worst {:.2} s of {WARM_CREATES}, {late} not active by then; 0.5 to 1.5 s of it is the backend's start",
        times[WARM_CREATES / 2],
        times[WARM_CREATES - 1]
    );
    vec![at_most(
        "create to active, EC2-like, warm, p95",
        times[WARM_CREATES * 95 / 100 - 1],
        "s",
        3.0,
        2.5,
        detail,
    )]
}
