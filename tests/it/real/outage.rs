//! Postgres is away for ten seconds while partners go on calling.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cp_pg::{Binaries, Cluster, Settings, StopMode};
use cp_tests::programs::Dev;
use cp_tests::{Answer, PartnerClient, eventually};
use serde_json::json;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

const OUTAGE: Duration = Duration::from_secs(10);
/// Clients give up after about this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// After this long without another 503, everything is as it was.
const RECOVERED: Duration = Duration::from_secs(3);

/// What became of one call.
struct Call {
    began: Instant,
    ended: Instant,
    answer: Answer,
    /// Of a create.
    name: Option<String>,
}

#[tokio::test]
async fn ten_seconds_without_postgres_lose_nothing_that_was_answered() {
    let mut dev = Dev::start_with(&[("INSFORGE_LIMITS_CREATE_WAIT", "1s")]).await;
    let shop = dev.create("shop").await;
    shop.write("before").await;
    let cluster = own_cluster(&dev).await;
    let calls = Arc::new(Mutex::new(Vec::new()));
    let stop = CancellationToken::new();
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (partner, id) = (dev.partner.clone(), shop.id.clone());
        load.spawn(read(partner, id, calls.clone(), stop.clone()));
    }
    load.spawn(create(dev.partner.clone(), calls.clone(), stop.clone()));

    tokio::time::sleep(Duration::from_secs(2)).await;
    let stopping = Instant::now();
    cluster
        .stop(StopMode::Fast, Duration::from_secs(10))
        .await
        .expect("Postgres stops");
    let stopped = Instant::now();
    tokio::time::sleep(OUTAGE).await;
    assert!(shop.answers().await, "projects do not need us to serve");
    let starting = Instant::now();
    cluster
        .start(&Settings::machine())
        .await
        .expect("Postgres starts");
    let back = Instant::now();
    eventually(
        "metadata is answered again",
        Duration::from_secs(5),
        async || (dev.partner.metadata(&shop.id).await.status == 200).then_some(()),
    )
    .await;
    tokio::time::sleep(RECOVERED + Duration::from_secs(2)).await;
    stop.cancel();
    load.join_all().await;

    let calls = std::mem::take(&mut *calls.lock().await);
    for call in &calls {
        let Answer { status, text, .. } = &call.answer;
        assert!(matches!(status, 200 | 202 | 503), "{status}: {text}");
        assert!(call.ended - call.began < PATIENCE, "{status}: {text}");
        if *status == 503 {
            let seconds = call
                .answer
                .header("retry-after")
                .and_then(|s| s.parse().ok());
            assert!(
                seconds.is_some_and(|s: u32| s > 0),
                "{:?}",
                call.answer.headers
            );
            assert_eq!(call.answer.body["success"], false, "{text}");
            assert!(call.ended >= stopping, "503 before the outage: {text}");
        }
    }
    let during = calls
        .iter()
        .filter(|c| c.began > stopped && c.ended < starting);
    let statuses: Vec<u16> = during.map(|c| c.answer.status).collect();
    assert!(statuses.len() > 8, "{statuses:?}");
    assert!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
    let late = calls.iter().filter(|c| c.began > back + RECOVERED);
    assert!(late.clone().count() > 0);
    for call in late {
        assert_ne!(call.answer.status, 503, "still away: {}", call.answer.text);
    }

    let acknowledged = calls.iter().filter(|c| c.answer.status < 300);
    let created: Vec<_> = acknowledged
        .filter_map(|c| Some((c.name.as_ref()?, c.answer.body["project"]["id"].as_str()?)))
        .collect();
    assert!(
        created.len() >= 2,
        "before and after the outage: {created:?}"
    );
    for (name, id) in created {
        eventually("it is active", Duration::from_secs(40), async || {
            let answer = dev.partner.metadata(id).await;
            assert_eq!(answer.status, 200, "{name} is lost: {}", answer.text);
            (answer.body["project"]["status"] == "active").then_some(())
        })
        .await;
    }
    assert!(!dev.has_ended());
    assert_eq!(
        dev.partner.pause(&shop.id).await.expect(200)["project"]["status"],
        "paused"
    );
}

async fn own_cluster(dev: &Dev) -> Cluster {
    let binaries = Binaries::find().await.expect("Postgres is installed");
    let port = std::fs::read_to_string(dev.data().join("postgres-port")).expect("a port");
    let port = port.trim().parse().expect("a number");
    Cluster::open(&binaries, dev.data().join("postgres"), port)
        .await
        .expect("dev has a Postgres of its own")
}

type Calls = Arc<Mutex<Vec<Call>>>;

async fn read(partner: PartnerClient, id: String, calls: Calls, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let began = Instant::now();
        let answer = partner.metadata(&id).await;
        note(&calls, began, answer, None).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A machine is much for two cores, so a new name only for those that were acknowledged.
async fn create(partner: PartnerClient, calls: Calls, stop: CancellationToken) {
    let mut number = 0;
    while !stop.is_cancelled() {
        let name = format!("created-{number}");
        let began = Instant::now();
        let body = json!({ "project_name": name });
        let answer = partner.post("/sync-embedded-project", &body).await;
        if answer.status < 300 {
            number += 1;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        note(&calls, began, answer, Some(name)).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn note(calls: &Calls, began: Instant, answer: Answer, name: Option<String>) {
    calls.lock().await.push(Call {
        began,
        ended: Instant::now(),
        answer,
        name,
    });
}
