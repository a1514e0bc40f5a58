//! Whatever services, callers, crashes and clocks do, in whatever order: every figure is that of the
//! plain count over what was accepted and what ran.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{Days, TimeDelta};
use cp_model::{Clock as _, ProjectId};
use cp_tests::{App, AppOptions, PartnerClient, StoryClock, UsageService, WorkerProcess};
use cp_worker::WorkerConfig;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::reference::{Reference, assert_figures};

const TOLD: [&str; 8] = [
    "database_bytes",
    "storage_bytes",
    "ai_tokens",
    "mcp_calls",
    "egress_bytes",
    "ai_credits",
    "email_requests",
    "function_calls",
];

/// An event before there is a clock to tell its time by.
#[derive(Debug, Clone)]
struct Told {
    id: u16,
    project: usize,
    metric: usize,
    value: i64,
    seconds_ago: i64,
}

#[derive(Debug, Clone)]
enum Action {
    Create { young: bool },
    Post(Vec<Told>),
    Repeat(usize),
    Pause(usize),
    Restore(usize),
    Delete(usize),
    Vanish(usize),
    Jump(i64),
    KillWorker,
    Settle,
}

fn told() -> impl Strategy<Value = Told> {
    // Sizes below zero are refused; counts below zero are corrections.
    let value = prop_oneof![1 => Just(0), 2 => -2_000_000..0i64, 6 => 1..3_000_000i64];
    // Now and again too early or too late.
    let seconds_ago = prop_oneof![3 => -400..86_400i64, 3 => 0..36 * 86_400i64];
    // Few ids, so that the same one comes again with other content, too.
    (0..150u16, 0..4usize, 0..TOLD.len(), value, seconds_ago).prop_map(
        |(id, project, metric, value, seconds_ago)| Told {
            id,
            project,
            metric,
            value,
            seconds_ago,
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    let project = 0..4usize;
    let jump = prop_oneof![
        -2 * 86_400..0i64,
        0..3 * 3_600i64,
        3_600..3 * 86_400i64,
        -10..10i64
    ];
    prop_oneof![
        2 => any::<bool>().prop_map(|young| Action::Create { young }),
        8 => proptest::collection::vec(told(), 1..25).prop_map(Action::Post),
        4 => (0..100usize).prop_map(Action::Repeat),
        2 => project.clone().prop_map(Action::Pause),
        2 => project.clone().prop_map(Action::Restore),
        2 => project.clone().prop_map(Action::Delete),
        1 => project.prop_map(Action::Vanish),
        4 => jump.prop_map(Action::Jump),
        1 => Just(Action::KillWorker),
        4 => Just(Action::Settle),
    ]
}

struct Life {
    app: App,
    clock: Arc<StoryClock>,
    partner: PartnerClient,
    service: UsageService,
    worker: WorkerProcess,
    projects: Vec<ProjectId>,
    sent: Vec<Vec<Value>>,
    accepted: HashSet<String>,
    reference: Reference,
}

fn start_worker(app: &App) -> WorkerProcess {
    app.start_worker(WorkerConfig {
        lease: Duration::from_millis(500),
        ..app.worker_config("usage")
    })
}

impl Life {
    async fn begin() -> Self {
        let clock = StoryClock::new();
        let app = App::start_with(AppOptions {
            clock: clock.clone(),
            worker: false,
            create_wait: Duration::ZERO,
            ..AppOptions::default()
        })
        .await;
        Self {
            partner: app.partner().await,
            service: app.usage_service("gateway").await,
            worker: start_worker(&app),
            clock,
            projects: Vec::new(),
            sent: Vec::new(),
            accepted: HashSet::new(),
            reference: Reference::default(),
            app,
        }
    }

    async fn act(&mut self, action: &Action) {
        match action {
            Action::Create { .. } if self.projects.len() == 4 => {}
            Action::Create { young } => {
                let id = self.partner.begin_project("life").await;
                if !young {
                    let born = self.clock.now() - Days::new(50);
                    self.app.set_created_at(id, born).await;
                }
                self.projects.push(id);
            }
            Action::Post(events) => {
                let events = events.iter().map(|told| self.event(told)).collect();
                self.post(events).await;
            }
            Action::Repeat(n) => {
                if !self.sent.is_empty() {
                    let again = self.sent[n % self.sent.len()].clone();
                    self.post(again).await;
                }
            }
            Action::Pause(n) => self.call(*n, "pause").await,
            Action::Restore(n) => self.call(*n, "restore").await,
            Action::Delete(n) => {
                if let Some(id) = self.projects.get(*n) {
                    let answer = self.partner.delete_project(&id.to_string()).await;
                    assert!(matches!(answer.status, 200 | 404), "{}", answer.text);
                }
            }
            Action::Vanish(n) => {
                if let Some(id) = self.projects.get(*n)
                    && let Some(machine) = self.app.machine_of(*id).await
                {
                    self.app.sim.vanish(machine.id);
                }
            }
            Action::Jump(seconds) => self.clock.advance(TimeDelta::seconds(*seconds)),
            Action::KillWorker => {
                let next = start_worker(&self.app);
                std::mem::replace(&mut self.worker, next).kill();
            }
            Action::Settle => self.settle().await,
        }
    }

    fn event(&self, told: &Told) -> Value {
        let unknown = ProjectId::generate();
        let project = self.projects.get(told.project).unwrap_or(&unknown);
        let metric = TOLD[told.metric];
        let value = if metric == "ai_credits" {
            let millionths: i32 = told.value.try_into().expect("values are small");
            json!(f64::from(millionths) / 1e6)
        } else {
            json!(told.value)
        };
        let when = self.clock.now() - TimeDelta::seconds(told.seconds_ago);
        self.service.event(told.id, project, metric, value, when)
    }

    /// Posts a batch, and counts by hand what was not refused and is new.
    async fn post(&mut self, events: Vec<Value>) {
        let answer = self.service.tell(&events).await;
        let refused: BTreeSet<u64> = answer["refused"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|refused| refused["index"].as_u64().expect("an index"))
            .collect();
        let (mut fresh, mut known) = (0, 0);
        for (index, event) in (0..).zip(&events) {
            if refused.contains(&index) {
                continue;
            }
            let id = event["id"].as_str().expect("a text").to_owned();
            if self.accepted.insert(id) {
                fresh += 1;
                self.reference.count(event);
            } else {
                known += 1;
            }
        }
        assert_eq!(answer["accepted"], fresh, "{answer}");
        assert_eq!(answer["duplicates"], known, "{answer}");
        self.sent.push(events);
    }

    async fn call(&self, n: usize, verb: &str) {
        if let Some(id) = self.projects.get(n) {
            let path = format!("/{id}/{verb}");
            let answer = self.partner.post(&path, &json!({})).await;
            let allowed = matches!(answer.status, 200 | 202 | 404 | 409);
            assert!(allowed, "{verb}: {}", answer.text);
        }
    }

    /// Lets what is in flight end, if it does so soon: after a jump of the clock it may never.
    async fn settle(&self) {
        for _ in 0..12 {
            let in_flight: i64 =
                sqlx::query_scalar("select count(*) from operations where finished_at is null")
                    .fetch_one(&mut self.app.database.connect().await)
                    .await
                    .expect("operations can be counted");
            if in_flight == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn check(mut self) {
        self.settle().await;
        self.worker.kill();
        // A statement of its own may be under way yet.
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.clock.hold();
        let now = self.clock.now();
        self.reference.measure(&self.app, now).await;
        let today = now.date_naive();
        for (before, after) in [(60, 60), (2, 1), (0, 0), (30, 0)] {
            let range = (today - Days::new(before), today + Days::new(after));
            assert_figures(&self.partner, &self.reference, &self.projects, range).await;
        }
    }
}

#[test]
fn whatever_happens_every_figure_is_that_of_the_plain_count() {
    let mut runner = TestRunner::new(Config {
        cases: 12,
        // Shrinking would repeat a life dozens of times.
        max_shrink_iters: 0,
        failure_persistence: None,
        ..Config::default()
    });
    let lives = proptest::collection::vec(action(), 10..40);
    runner
        .run(&lives, |actions| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be built")
                .block_on(async {
                    let mut life = Life::begin().await;
                    life.act(&Action::Create { young: false }).await;
                    life.act(&Action::Create { young: true }).await;
                    life.act(&Action::Settle).await;
                    for action in &actions {
                        life.act(action).await;
                    }
                    life.check().await;
                });
            Ok(())
        })
        .expect("every life is counted");
}
