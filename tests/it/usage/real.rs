//! `kill -9` of the server that counts, while it counts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use cp_tests::programs::{Home, Program, quiet_port};
use cp_tests::{Answer, PartnerClient, TestDatabase, UsageClient, UsageService};
use cp_tokens::sealing::SealingKey;
use futures::future::join_all;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::reference::{read_partner, read_project};

const SOON: Duration = Duration::from_secs(20);
const EVENTS: usize = 100;

/// `serve` alone, on a database of its own: a project that waits for a worker can be told of.
struct Plane {
    // The program ends before its home and its database do.
    serving: Option<Program>,
    home: Home,
    database: TestDatabase,
    env: Vec<(String, String)>,
    partner: PartnerClient,
    service: UsageService,
    project: String,
}

impl Plane {
    async fn start() -> Self {
        let home = Home::new();
        let database = TestDatabase::new().await;
        let address = format!("127.0.0.1:{}", quiet_port());
        let base_url = format!("http://{address}");
        let key = SealingKey::generate().to_secret_text();
        let data = home.data();
        let env = [
            ("DATABASE_URL", database.url.as_str()),
            ("SECRETS_SEALING_KEY", key.expose_secret()),
            ("HTTP_LISTEN", &address),
            ("HTTP_BASE_URL", &base_url),
            ("ADMIN_LISTEN", "127.0.0.1:0"),
            (
                "LOCAL_DATA_DIR",
                data.to_str().expect("a path of ours is text"),
            ),
            ("LIMITS_CREATE_WAIT", "0s"),
        ];
        let env = env.map(|(name, value)| (format!("INSFORGE_{name}"), value.to_owned()));
        let mut plane = Self {
            serving: None,
            partner: PartnerClient {
                http: reqwest::Client::builder().no_proxy().build().unwrap(),
                base_url: base_url.clone(),
                id: String::new(),
                secret: String::new(),
            },
            service: UsageService {
                client: UsageClient::new(&base_url, ""),
                source: "gateway".into(),
            },
            project: String::new(),
            home,
            database,
            env: env.to_vec(),
        };
        plane.serve().await;
        let made = plane
            .operator(&[
                "partner",
                "create",
                "Acme",
                "--rate-limit",
                "100000",
                "--json",
            ])
            .await;
        let text = |made: &Value, name: &str| made[name].as_str().expect("a text").to_owned();
        (plane.partner.id, plane.partner.secret) = (text(&made, "id"), text(&made, "secret"));
        let made = plane
            .operator(&[
                "usage-token",
                "create",
                "gateway",
                "--source",
                "gateway",
                "--json",
            ])
            .await;
        plane.service.client.token = text(&made, "token");
        plane.project = plane.partner.begin_project("shop").await.to_string();
        plane
    }

    async fn operator(&self, args: &[&str]) -> Value {
        self.home.run(args, &self.env()).await.json()
    }

    fn env(&self) -> Vec<(&str, &str)> {
        let text = self.env.iter();
        text.map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    async fn serve(&mut self) {
        let mut serving = self.home.start(&["serve"], &self.env());
        let is_up = |said: &str| said.contains("\"serving\"").then_some(());
        serving.until_said("serving", SOON, is_up).await;
        self.serving = Some(serving);
    }

    fn batch(&self, name: &str, when: DateTime<Utc>) -> Vec<Value> {
        let metrics = ["ai_tokens", "mcp_calls", "database_bytes"];
        (0..EVENTS)
            .map(|n| {
                let id = format!("{name}-{n}");
                self.service
                    .event(id, &self.project, metrics[n % 3], n, when)
            })
            .collect()
    }
}

/// What a sender knows of its batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Acknowledged,
    Unknown,
}

#[tokio::test]
async fn a_server_killed_while_it_counts_loses_nothing_and_counts_nothing_twice() {
    let mut plane = Plane::start().await;
    let when = Utc::now();
    let done = AtomicBool::new(false);
    let acknowledged = AtomicUsize::new(0);
    let mut serving = plane.serving.take();
    let sender = async |name: usize, again: bool| -> HashMap<String, Fate> {
        let mut fates = HashMap::new();
        for number in 0.. {
            if done.load(Ordering::Relaxed) {
                break;
            }
            let batch_name = format!("{name}-{number}");
            let events = plane.batch(&batch_name, when);
            let mut fate = Fate::Unknown;
            loop {
                let request = plane
                    .service
                    .client
                    .request()
                    .json(&json!({ "events": events }));
                if let Ok(answer) = request.send().await
                    && answer.status() == 200
                    && let Ok(answer) = answer.json::<Value>().await
                {
                    let counted = [&answer["accepted"], &answer["duplicates"]];
                    let counted: u64 = counted.iter().filter_map(|n| n.as_u64()).sum();
                    assert_eq!(counted, EVENTS as u64, "{answer}");
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                    fate = Fate::Acknowledged;
                    break;
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
                if !again {
                    break;
                }
            }
            fates.insert(batch_name, fate);
        }
        fates
    };
    let killing = async {
        for round in 0..5_u64 {
            let before = acknowledged.load(Ordering::Relaxed);
            cp_tests::eventually("some are counted", SOON, async || {
                (acknowledged.load(Ordering::Relaxed) > before + 10).then_some(())
            })
            .await;
            tokio::time::sleep(Duration::from_millis(7 * round)).await;
            if let Some(program) = serving.take() {
                program.kill().await;
            }
            let mut next = plane.home.start(&["serve"], &plane.env());
            let is_up = |said: &str| said.contains("\"serving\"").then_some(());
            next.until_said("serving", SOON, is_up).await;
            serving = Some(next);
        }
        done.store(true, Ordering::Relaxed);
    };
    // The last two give up on a batch whose answer they did not see.
    let sending = join_all((0..6).map(|name| sender(name, name < 4)));
    let (fates, ()) = tokio::join!(sending, killing);

    let fates: HashMap<String, Fate> = fates.into_iter().flatten().collect();
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "select substring(id from '^\\d+-\\d+'), count(*) from usage_events group by 1",
    )
    .fetch_all(&mut plane.database.connect().await)
    .await
    .unwrap();
    let kept: HashMap<String, i64> = rows.into_iter().collect();
    for (name, fate) in &fates {
        let count = kept.get(name).copied().unwrap_or(0);
        let whole = i64::try_from(EVENTS).unwrap();
        let fits = count == whole || (count == 0 && *fate == Fate::Unknown);
        assert!(fits, "{count} events of batch {name}, which is {fate:?}");
    }
    let of_one = |metric: usize| (0..EVENTS).filter(|n| n % 3 == metric).sum::<usize>();
    let times = |metric: usize| i64::try_from(of_one(metric) * kept.len()).unwrap();
    let usage = plane.partner.get("/usage").await.expect(200);
    let seen = read_partner(&usage);
    assert_eq!((seen[2], seen[3], seen[0]), (times(0), times(1), 98));
    let path = format!("/{}/usage", plane.project);
    let of_project = Answer::expect(plane.partner.get(&path).await, 200);
    assert_eq!(read_project(&of_project)[..8], seen[..8]);
    assert!(fates.len() > 50, "{} batches", fates.len());
}
