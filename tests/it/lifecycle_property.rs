//! Whatever callers, crashes and the cloud do, in whatever order: once the cloud is well and a
//! worker runs, everything settles, and records and world agree. And the state machines
//! themselves: no sequence of allowed changes leads where it must not.

use std::time::Duration;

use cp_model::{MachineState, OperationKind, OperationState, ProjectId, ProjectStatus};
use cp_provider::sim::SimConfig;
use cp_tests::{App, AppOptions, PartnerClient, WorkerProcess};
use cp_worker::WorkerConfig;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

#[derive(Debug, Clone)]
enum Action {
    Create,
    Pause(usize),
    Restore(usize),
    Restart(usize),
    Upgrade(usize, &'static str, i32),
    Delete(usize),
    Vanish(usize),
    Crash(usize),
    KillWorker,
    StartWorker,
    ErrorRate(f64),
    Pass(u64),
}

fn action() -> impl Strategy<Value = Action> {
    let project = 0..3usize;
    prop_oneof![
        4 => Just(Action::Create),
        2 => project.clone().prop_map(Action::Pause),
        2 => project.clone().prop_map(Action::Restore),
        2 => project.clone().prop_map(Action::Restart),
        3 => (project.clone(), prop_oneof![Just("nano"), Just("small"), Just("xl")], 8..10i32)
            .prop_map(|(n, kind, gib)| Action::Upgrade(n, kind, gib)),
        2 => project.clone().prop_map(Action::Delete),
        1 => project.clone().prop_map(Action::Vanish),
        1 => project.prop_map(Action::Crash),
        2 => Just(Action::KillWorker),
        2 => Just(Action::StartWorker),
        2 => (0.0..0.3f64).prop_map(Action::ErrorRate),
        4 => (50..700u64).prop_map(Action::Pass),
    ]
}

/// What callers were promised about one project.
struct Expected {
    id: ProjectId,
    deleted: bool,
    vanished: bool,
}

struct Life {
    app: App,
    partner: PartnerClient,
    workers: Vec<WorkerProcess>,
    projects: Vec<Expected>,
}

impl Life {
    async fn begin(seed: u64) -> Self {
        let app = App::start_with(AppOptions {
            sim: SimConfig {
                seed,
                launch_looks_first: false,
                stops_after: Duration::from_millis(30),
                ..SimConfig::default()
            },
            worker: false,
            create_wait: Duration::ZERO,
            ..AppOptions::default()
        })
        .await;
        let partner = app.partner().await;
        Self {
            app,
            partner,
            workers: Vec::new(),
            projects: Vec::new(),
        }
    }

    fn start_worker(&mut self) {
        self.workers.push(self.app.start_worker(WorkerConfig {
            lease: Duration::from_millis(500),
            ..self.app.worker_config("property")
        }));
    }

    async fn act(&mut self, action: &Action) {
        match action {
            Action::Create => {
                let id = self.partner.begin_project("life").await;
                self.projects.push(Expected {
                    id,
                    deleted: false,
                    vanished: false,
                });
            }
            Action::Pause(n) => self.call(*n, "pause", json!({})).await,
            Action::Restore(n) => self.call(*n, "restore", json!({})).await,
            Action::Restart(n) => self.call(*n, "restart", json!({})).await,
            Action::Upgrade(n, kind, gib) => {
                let size = json!({ "instance_type": kind, "volume_size_gib": gib });
                self.call(*n, "upgrade", size).await;
            }
            Action::Delete(n) => {
                if let Some(expected) = self.projects.get_mut(*n) {
                    let answer = self.partner.delete_project(&expected.id.to_string()).await;
                    let wanted = if expected.deleted { 404 } else { 200 };
                    answer.expect(wanted);
                    expected.deleted = true;
                }
            }
            Action::Vanish(n) => {
                if let Some(expected) = self.projects.get_mut(*n)
                    && let Some(machine) = self.app.machine_of(expected.id).await
                {
                    expected.vanished = true;
                    self.app.sim.vanish(machine.id);
                }
            }
            Action::Crash(n) => {
                if let Some(expected) = self.projects.get(*n)
                    && let Some(machine) = self.app.machine_of(expected.id).await
                {
                    self.app.sim.crash(machine.id);
                }
            }
            Action::KillWorker => {
                if let Some(worker) = self.workers.pop() {
                    worker.kill();
                }
            }
            Action::StartWorker if self.workers.len() < 2 => self.start_worker(),
            Action::StartWorker => {}
            Action::ErrorRate(rate) => self.app.sim.set_error_rate(*rate),
            Action::Pass(millis) => tokio::time::sleep(Duration::from_millis(*millis)).await,
        }
    }

    async fn call(&self, n: usize, verb: &str, body: Value) {
        let Some(expected) = self.projects.get(n) else {
            return;
        };
        let path = format!("/{}/{verb}", expected.id);
        let answer = self.partner.post(&path, &body).await;
        let allowed = match answer.status {
            404 => expected.deleted,
            // A disk only grows.
            400 => verb == "upgrade",
            200 | 202 | 409 => !expected.deleted,
            _ => false,
        };
        assert!(allowed, "{verb}: {} {}", answer.status, answer.text);
    }

    /// The cloud is well again, one worker runs, nobody asks for anything.
    async fn heal(&mut self) {
        self.app.sim.set_error_rate(0.0);
        for worker in self.workers.drain(..) {
            worker.kill();
        }
        self.start_worker();
        // Retries may be backing off for a while yet.
        for _ in 0..60 {
            sqlx::query(
                "update operations set next_attempt_at = now() where finished_at is null and attempts > 0 and state = 'waiting'",
            )
            .execute(&mut self.app.database.connect().await)
            .await
            .expect("operations can be hurried");
            let in_flight: i64 =
                sqlx::query_scalar("select count(*) from operations where finished_at is null")
                    .fetch_one(&mut self.app.database.connect().await)
                    .await
                    .expect("operations can be counted");
            if in_flight == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn check(&self) {
        self.app.assert_truth().await;
        for expected in &self.projects {
            let status = self.app.status_of(expected.id).await;
            let newest = self.app.newest_operation(expected.id).await;
            let allowed = if expected.deleted {
                status == ProjectStatus::Deleted
            } else {
                match newest.state {
                    OperationState::Succeeded => status == newest.kind.final_status(),
                    OperationState::Failed if newest.turned_back().is_some() => {
                        status == ProjectStatus::Active
                            || (expected.vanished && status == ProjectStatus::Failed)
                    }
                    // Only what vanished, or what failed eight times, may be left failed.
                    OperationState::Failed => {
                        status == ProjectStatus::Failed
                            && (expected.vanished || newest.attempts > 0)
                            && newest.error.is_some()
                    }
                    _ => false,
                }
            };
            assert!(
                allowed,
                "project {} (deleted: {}, vanished: {}) is {status} after {newest:?}",
                expected.id, expected.deleted, expected.vanished
            );
        }
        for machine in self.app.sim.alive() {
            assert_eq!(
                self.app.sim.launch_effects(machine.machine_id),
                1,
                "{machine:?}"
            );
        }
    }
}

#[test]
fn whatever_happens_everything_settles_and_agrees() {
    let mut runner = TestRunner::new(Config {
        cases: 12,
        // Each case is a minute of somebody's life: shrinking would repeat it dozens of times.
        max_shrink_iters: 0,
        failure_persistence: None,
        ..Config::default()
    });
    let lives = (proptest::collection::vec(action(), 3..12), any::<u64>());
    runner
        .run(&lives, |(actions, seed)| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be built")
                .block_on(async {
                    let mut life = Life::begin(seed).await;
                    life.act(&Action::Create).await;
                    for action in &actions {
                        life.act(action).await;
                    }
                    life.heal().await;
                    life.check().await;
                });
            Ok(())
        })
        .expect("every life settles");
}

/// Takes the allowed change of that number, if there is one.
fn walk<S: Copy>(all: &[S], from: S, allowed: impl Fn(S, S) -> bool, pick: usize) -> Option<S> {
    let next: Vec<S> = all
        .iter()
        .copied()
        .filter(|to| allowed(from, *to))
        .collect();
    (!next.is_empty()).then(|| next[pick % next.len()])
}

proptest! {
    /// Calls and their ends, as the domain and the engine make them: each moves the project along
    /// an allowed change, and only the end of a delete ends it.
    #[test]
    fn a_project_moves_only_along_allowed_changes(events in proptest::collection::vec((0..6usize, any::<bool>()), 0..40)) {
        let mut status = ProjectStatus::Provisioning;
        let mut running = Some(OperationKind::Provision);
        for (pick, succeeds) in events {
            let next = match running {
                Some(kind) if kind == OperationKind::Delete || succeeds => {
                    running = None;
                    kind.final_status()
                }
                Some(_) => {
                    running = None;
                    ProjectStatus::Failed
                }
                None => {
                    let kind = OperationKind::ALL[pick % OperationKind::ALL.len()];
                    // An operator's retry may take any but a delete up again from `failed`.
                    let retried = status == ProjectStatus::Failed && kind != OperationKind::Delete;
                    if !retried && !kind.starts_from().contains(&status) {
                        continue;
                    }
                    // A merge leaves the status as it is.
                    let Some(through) = kind.transitional_status() else {
                        continue;
                    };
                    running = Some(kind);
                    through
                }
            };
            prop_assert!(status.can_become(next), "{status} → {next}");
            status = next;
            prop_assert_eq!(status.is_transitional(), running.is_some());
        }
    }

    #[test]
    fn a_machine_that_is_terminating_only_ends_and_one_that_ended_stays_so(picks in proptest::collection::vec(any::<usize>(), 0..30)) {
        let mut state = MachineState::Launching;
        let mut doomed = false;
        for pick in picks {
            let Some(next) = walk(MachineState::ALL, state, MachineState::can_become, pick) else {
                prop_assert_eq!(state, MachineState::Terminated);
                break;
            };
            doomed |= next == MachineState::Terminating;
            prop_assert!(!doomed || matches!(next, MachineState::Terminating | MachineState::Terminated), "{state} → {next}");
            prop_assert!(next != MachineState::Launching, "nothing is launched twice");
            state = next;
        }
    }

    #[test]
    fn an_operation_that_left_flight_returns_only_from_failed_and_only_to_the_queue(picks in proptest::collection::vec(any::<usize>(), 0..30)) {
        let mut state = OperationState::Queued;
        for pick in picks {
            let Some(next) = walk(OperationState::ALL, state, OperationState::can_become, pick) else {
                prop_assert!(matches!(state, OperationState::Succeeded | OperationState::Cancelled));
                break;
            };
            if !state.is_in_flight() {
                prop_assert_eq!((state, next), (OperationState::Failed, OperationState::Queued));
            }
            prop_assert!(next != OperationState::Succeeded || state == OperationState::Running, "only what runs can succeed");
            state = next;
        }
    }
}
