//! Many services at once, on one partner and one project: nobody waits for long, nothing is counted
//! twice or lost.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chrono::{Days, TimeDelta};
use cp_tests::UsageService;
use futures::future::join_all;
use serde_json::Value;

use super::Story;
use super::reference::{assert_figures, read_partner};

const WRITERS: u64 = 64;
const BATCHES: u64 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_writers_of_one_partner_count_every_event_once() {
    let story = Story::start_working().await;
    let second = story.partner.create_active_project("second").await;
    let second = second.parse().unwrap();
    let born = story.now() - Days::new(10);
    story.app.set_created_at(second, born).await;
    let restless = story.partner.create_active_project("restless").await;
    let batch = |writer: u64, batch: u64| -> Vec<Value> {
        let event = |id: String, n: u64, value: u64| {
            let project = if n % 4 == 3 { second } else { story.project };
            let metric = [
                "ai_tokens",
                "database_bytes",
                "egress_bytes",
                "storage_bytes",
            ][usize::try_from(n % 8 / 2).unwrap()];
            let when = born + TimeDelta::days(i64::try_from(n % 3 + batch).unwrap());
            story.service.event(id, project, metric, value, when)
        };
        let own = (0..20).map(|n| event(format!("{writer}-{batch}-{n}"), n, writer * 100 + n));
        // What all writers tell, in another order each.
        let shared = (0..20).map(|n| (n + writer) % 20);
        let shared = shared.map(|n| event(format!("all-{batch}-{n}"), n, 7_000 + n));
        own.chain(shared).collect()
    };
    let accepted = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let writing = async {
        let writers = (0..WRITERS).map(async |writer| {
            let service: &UsageService = &story.service;
            let mut told = 0;
            for number in 0..BATCHES {
                let events = batch(writer, number);
                let answer = service.tell(&events).await;
                assert_eq!(
                    answer["refused"].as_array().map(Vec::len),
                    Some(0),
                    "{answer}"
                );
                accepted.fetch_add(answer["accepted"].as_u64().unwrap(), Ordering::Relaxed);
                let tokens = events.iter().filter(|e| e["metric"] == "ai_tokens");
                let own = tokens.filter(|e| !e["id"].as_str().unwrap().starts_with("all"));
                told += own.map(|e| e["value"].as_i64().unwrap()).sum::<i64>();
                let range = format!("?start_date={}", born.date_naive());
                let seen = read_partner(&story.partner_usage(&range).await);
                assert!(
                    seen[2] >= told,
                    "a read sees what was acknowledged before it"
                );
            }
        });
        join_all(writers).await;
        done.store(true, Ordering::Relaxed);
    };
    let restless_life = async {
        while !done.load(Ordering::Relaxed) {
            story.partner.pause(&restless).await.expect(200);
            story.partner.restore(&restless).await.expect(200);
            story.app.control_plane.keep_house().await.unwrap();
        }
    };
    tokio::join!(writing, restless_life);

    story.clock.hold();
    let mut reference = story.runs().await;
    let mut ids = HashSet::new();
    for (writer, number) in (0..WRITERS).flat_map(|w| (0..BATCHES).map(move |b| (w, b))) {
        for event in batch(writer, number) {
            if ids.insert(event["id"].as_str().unwrap().to_owned()) {
                reference.count(&event);
            }
        }
    }
    assert_eq!(accepted.load(Ordering::Relaxed), ids.len() as u64);
    let projects = [story.project, second, restless.parse().unwrap()];
    let range = (born.date_naive(), story.today());
    assert_figures(&story.partner, &reference, &projects, range).await;
    let kept = story.app.database.count("usage_events").await;
    assert_eq!(
        usize::try_from(kept).unwrap(),
        ids.len(),
        "each event is kept once"
    );
}

/// Sizes share rows with the counts of one lane: whoever makes some of a batch's rows and finds the
/// others must not wait for who does it the other way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sizes_and_counts_of_the_same_days_do_not_wait_for_each_other_in_a_ring() {
    const PROJECTS: u64 = 6;
    let story = Story::start_working().await;
    let mut projects = Vec::new();
    for n in 0..PROJECTS {
        let project = story.partner.create_active_project(&format!("p{n}")).await;
        let project = project.parse().unwrap();
        let born = story.now() - Days::new(34);
        story.app.set_created_at(project, born).await;
        projects.push(project);
    }
    for day in 1..30 {
        let when = story.now() - Days::new(day);
        let writers = (0..6_u64).map(async |writer| {
            let metric = ["database_bytes", "ai_tokens"][usize::from(writer % 2 == 1)];
            // Each writer's own choice of projects, another one each day.
            let choice = (day * 37 + writer * 11) % 63 + 1;
            let chosen = (0..PROJECTS).filter(|n| choice & (1 << n) != 0);
            let events: Vec<Value> = chosen
                .map(|n| {
                    let project = projects[usize::try_from(n).unwrap()];
                    let id = format!("{day}-{writer}-{n}");
                    story.service.event(id, project, metric, 1, when)
                })
                .collect();
            story.service.tell(&events).await
        });
        join_all(writers).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_batch_from_all_sides_is_counted_once() {
    let story = Story::start().await;
    // Sizes as well: their rows are shared by all writers.
    let events: Vec<Value> = (0..200)
        .map(|n| {
            let metric = ["database_bytes", "ai_credits"][n % 2];
            story.event(&format!("e{n}"), metric, n)
        })
        .collect();
    let answers = join_all((0..32).map(|_| story.service.tell(&events))).await;
    let sum = |name: &str| {
        answers
            .iter()
            .map(|a| a[name].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!((sum("accepted"), sum("duplicates")), (200, 200 * 31));
    let seen = read_partner(&story.partner_usage("").await);
    assert_eq!(seen[0], 198);
    assert_eq!(seen[5], (1..200).step_by(2).sum::<i64>() * 1_000_000);
}
