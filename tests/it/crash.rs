//! The crash enumeration: a worker dies at every crash point of every step of every kind of
//! operation, the next one goes on, and the end is the same as if nothing had happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cp_model::{OperationId, OperationKind, OperationState, ProjectId, ProjectStatus};
use cp_provider::sim::{Fault, SimConfig, Verb};
use cp_tests::{App, AppOptions, PartnerClient, WorkerProcess, eventually};
use cp_worker::{CrashHook, CrashPoint, WorkerConfig, all_steps};
use serde_json::json;
use tokio::sync::oneshot;

#[tokio::test]
async fn provisioning_on_a_new_machine_survives_every_crash() {
    enumerate(OperationKind::Provision, 0).await;
}

#[tokio::test]
async fn provisioning_on_a_warm_machine_survives_every_crash() {
    enumerate(OperationKind::Provision, 1).await;
}

#[tokio::test]
async fn a_pause_survives_every_crash() {
    enumerate(OperationKind::Pause, 0).await;
}

#[tokio::test]
async fn a_restore_survives_every_crash() {
    enumerate(OperationKind::Restore, 0).await;
}

#[tokio::test]
async fn a_restart_survives_every_crash() {
    enumerate(OperationKind::Restart, 0).await;
}

#[tokio::test]
async fn an_upgrade_survives_every_crash() {
    enumerate(OperationKind::Upgrade, 0).await;
}

#[tokio::test]
async fn a_delete_survives_every_crash() {
    enumerate(OperationKind::Delete, 0).await;
}

#[tokio::test]
async fn a_rebuild_survives_every_crash() {
    enumerate(OperationKind::Rebuild, 0).await;
}

/// Dies at every site of the kind, one after the other, in one world: what a crash leaves behind
/// would show in the next round, too.
async fn enumerate(kind: OperationKind, warm: u32) {
    let world = World::start(SimConfig::default(), warm).await;
    for step in all_steps(kind) {
        for point in CrashPoint::ALL {
            world.survive(kind, step, point).await;
        }
    }
}

struct World {
    app: App,
    partner: PartnerClient,
    warm: u32,
}

impl World {
    async fn start(sim: SimConfig, warm: u32) -> Self {
        let app = App::start_with(AppOptions {
            sim,
            worker: false,
            create_wait: Duration::ZERO,
            pool: match warm {
                0 => Vec::new(),
                floor => App::warm_pool(floor),
            },
            ..AppOptions::default()
        })
        .await;
        let partner = app.partner().await;
        Self { app, partner, warm }
    }

    fn config(&self, name: &str) -> WorkerConfig {
        WorkerConfig {
            lease: Duration::from_millis(500),
            ..self.app.worker_config(name)
        }
    }

    fn worker(&self) -> WorkerProcess {
        self.app.start_worker(self.config("plain"))
    }

    async fn survive(&self, kind: OperationKind, step: &'static str, point: CrashPoint) {
        let site = format!("{kind} {step} {}", point.as_str());
        let project = self.arrange(kind).await;
        let operation = self.app.newest_operation(project).await;
        assert_eq!(
            (operation.kind, operation.state),
            (kind, OperationState::Queued),
            "{site}"
        );

        let (hook, reached) = stop_at(operation.id, step, point);
        let worker = self.app.start_worker(WorkerConfig {
            crash_hook: Some(hook),
            // One slot: the step that never returns holds it, so that this worker goes no further.
            concurrency: 1,
            // A renewal that meets the end of an operation drops its worker before the last site.
            lease: Duration::from_secs(30),
            ..self.config("doomed")
        });
        tokio::time::timeout(Duration::from_secs(10), reached)
            .await
            .unwrap_or_else(|_| panic!("{site} was never reached"))
            .expect("the hook tells before it is dropped");
        worker.kill();
        self.assert_died_at(operation.id, kind, step, point).await;
        self.lease_runs_out(operation.id).await;

        let worker = self.worker();
        self.app.wait_for_status(project, kind.final_status()).await;
        self.app.assert_truth().await;
        let ended = self.app.operation(operation.id).await;
        assert_eq!(ended.state, OperationState::Succeeded, "{site}: {ended:?}");
        match self.app.machine_of(project).await {
            Some(machine) => assert_eq!(self.app.sim.launch_effects(machine.id), 1, "{site}"),
            None => assert_eq!(kind, OperationKind::Delete, "{site}"),
        }
        self.assert_launched_once(&site).await;
        worker.kill();
    }

    /// A project at the start of an operation of this kind, and no worker.
    async fn arrange(&self, kind: OperationKind) -> ProjectId {
        if kind == OperationKind::Provision {
            if self.warm > 0 {
                let worker = self.worker();
                self.pool_is_warm().await;
                worker.kill();
            }
            return self.create().await;
        }
        let worker = self.worker();
        let project = self.create().await;
        self.app
            .wait_for_status(project, ProjectStatus::Active)
            .await;
        match kind {
            OperationKind::Restore => {
                self.call(project, "pause").await;
                self.app
                    .wait_for_status(project, ProjectStatus::Paused)
                    .await;
            }
            OperationKind::Rebuild => {
                let machine = self
                    .app
                    .machine_of(project)
                    .await
                    .expect("an active project's machine");
                self.app.sim.vanish(machine.id);
                self.app
                    .wait_for_status(project, ProjectStatus::Failed)
                    .await;
            }
            _ => {}
        }
        worker.kill();
        match kind {
            OperationKind::Pause => self.call(project, "pause").await,
            OperationKind::Restore => self.call(project, "restore").await,
            OperationKind::Restart => self.call(project, "restart").await,
            OperationKind::Upgrade => {
                let body = json!({ "instance_type": "small", "volume_size_gib": 20 });
                let path = format!("/{project}/upgrade");
                self.partner.post(&path, &body).await.expect(200);
            }
            OperationKind::Delete => {
                self.partner
                    .delete_project(&project.to_string())
                    .await
                    .expect(200);
            }
            OperationKind::Rebuild => {
                let lost = self.app.newest_operation(project).await;
                self.app
                    .control_plane
                    .retry_operation(lost.id, true)
                    .await
                    .expect("data loss is accepted");
            }
            OperationKind::Provision => {}
            OperationKind::CreateBranch
            | OperationKind::ResetBranch
            | OperationKind::MergeBranch
            | OperationKind::RebaseBranch
            | OperationKind::Backup
            | OperationKind::RestoreBackup => {
                unreachable!("it needs a database; see `real::branch_crashes` and `real::backups`")
            }
        }
        project
    }

    async fn create(&self) -> ProjectId {
        self.partner.begin_project("crash").await
    }

    async fn call(&self, project: ProjectId, verb: &str) {
        let answer = self
            .partner
            .post(&format!("/{project}/{verb}"), &json!({}))
            .await;
        assert!(
            matches!(answer.status, 200 | 202),
            "{verb}: {}",
            answer.text
        );
    }

    async fn pool_is_warm(&self) {
        eventually(
            "a warm machine waits",
            Duration::from_secs(10),
            async || {
                let levels = self.app.control_plane.pool_levels("sim").await.ok()?;
                levels.iter().any(|level| level.ready > 0).then_some(())
            },
        )
        .await;
    }

    /// The row stands where the worker died, not further and not before.
    /// As time would make it.
    async fn lease_runs_out(&self, id: OperationId) {
        sqlx::query("update operations set lease_until = clock_timestamp() where id = $1 and lease_until is not null")
            .bind(id.0)
            .execute(&mut self.app.database.connect().await)
            .await
            .expect("the lease can be ended");
    }

    async fn assert_died_at(
        &self,
        id: OperationId,
        kind: OperationKind,
        step: &str,
        point: CrashPoint,
    ) {
        let row = self.app.operation(id).await;
        let site = format!("{kind} {step} {}: {row:?}", point.as_str());
        let steps = all_steps(kind);
        let next = steps.iter().skip_while(|s| **s != step).nth(1);
        match (point, row.state) {
            // Recorded: it went on to the next step, waits in this one, or has ended with the last.
            (CrashPoint::AfterRecord, OperationState::Running) => {
                assert_eq!(Some(&row.step.as_str()), next, "{site}");
            }
            (CrashPoint::BeforeEffect | CrashPoint::AfterEffect, OperationState::Running)
            | (CrashPoint::AfterRecord, OperationState::Waiting) => {
                assert_eq!(row.step, step, "{site}");
            }
            (CrashPoint::AfterRecord, OperationState::Succeeded) => {
                assert_eq!(next, None, "{site}");
            }
            _ => panic!("died elsewhere: {site}"),
        }
    }

    /// No id was ever launched twice, those of machines that are gone included.
    async fn assert_launched_once(&self, site: &str) {
        let ids: Vec<uuid::Uuid> = sqlx::query_scalar("select id from machines")
            .fetch_all(&mut self.app.database.connect().await)
            .await
            .expect("machines can be read");
        for id in ids {
            let launches = self.app.sim.launch_effects(cp_model::MachineId(id));
            assert!(
                launches <= 1,
                "{site}: machine {id} was launched {launches} times"
            );
        }
    }
}

/// A hook that tells when the operation is at the site for the first time, and stays there.
pub fn stop_at(
    operation: OperationId,
    step: &'static str,
    point: CrashPoint,
) -> (CrashHook, oneshot::Receiver<()>) {
    let (tell, reached) = oneshot::channel();
    let tell = Arc::new(std::sync::Mutex::new(Some(tell)));
    let stopped = Arc::new(AtomicBool::new(false));
    let hook: CrashHook = Arc::new(move |site| {
        let here = site.operation == operation && site.step == step && site.point == point;
        let first = here && !stopped.swap(true, Ordering::SeqCst);
        let tell = tell.clone();
        Box::pin(async move {
            if first {
                if let Some(tell) = tell.lock().expect("no holder panics").take() {
                    let _ = tell.send(());
                }
                std::future::pending::<()>().await;
            }
        })
    });
    (hook, reached)
}

/// A provider that shows new machines late, later than the next attempt would come by itself (a
/// backoff of 1.5 s at most), and whose launches are not idempotent.
fn forgetful() -> SimConfig {
    SimConfig {
        tag_lag: Duration::from_secs(2),
        // Nor does it register before that: a machine that has registered is known to exist.
        boots_after: Duration::from_millis(2200),
        launch_looks_first: false,
        ..SimConfig::default()
    }
}

fn patient(config: WorkerConfig) -> WorkerConfig {
    WorkerConfig {
        launch_visibility: Duration::from_millis(2500),
        missing_grace: Duration::from_secs(3),
        // Long, so that nothing but the launch's own care keeps the second machine away.
        orphan_grace: Duration::from_mins(1),
        ..config
    }
}

#[tokio::test]
async fn a_launch_whose_answer_is_lost_is_not_repeated_while_its_machine_is_not_seen_yet() {
    let world = World::start(forgetful(), 0).await;
    world.app.sim.fail_next(Verb::Launch, Fault::AfterEffect);
    let worker = world.app.start_worker(patient(world.config("patient")));
    let project = world.create().await;
    world
        .app
        .wait_for_status(project, ProjectStatus::Active)
        .await;
    world.app.assert_truth().await;
    assert_eq!(world.app.sim.alive().len(), 1);
    assert_eq!(world.app.sim.calls(Verb::Launch), 1);
    worker.kill();
}

#[tokio::test]
async fn a_crash_after_a_launch_makes_no_second_machine_while_the_first_is_not_seen_yet() {
    let world = World::start(forgetful(), 0).await;
    let project = world.create().await;
    let operation = world.app.newest_operation(project).await;
    let (hook, reached) = stop_at(operation.id, "launch_machine", CrashPoint::AfterEffect);
    let doomed = world.app.start_worker(WorkerConfig {
        crash_hook: Some(hook),
        ..patient(world.config("doomed"))
    });
    reached.await.unwrap();
    doomed.kill();
    let worker = world.app.start_worker(patient(world.config("patient")));
    world
        .app
        .wait_for_status(project, ProjectStatus::Active)
        .await;
    world.app.assert_truth().await;
    assert_eq!(world.app.sim.calls(Verb::Launch), 1);
    worker.kill();
}

#[tokio::test]
async fn a_refused_launch_is_tried_again_without_waiting_for_a_machine_that_cannot_be() {
    let world = World::start(SimConfig::default(), 0).await;
    world.app.sim.fail_next(Verb::Launch, Fault::Capacity);
    let worker = world.app.start_worker(WorkerConfig {
        launch_visibility: Duration::from_mins(1),
        ..world.config("patient")
    });
    let project = world.create().await;
    world
        .app
        .wait_for_status(project, ProjectStatus::Active)
        .await;
    world.app.assert_truth().await;
    worker.kill();
}

#[tokio::test]
async fn a_delete_waits_for_the_machine_of_a_launch_that_it_cut_short() {
    let world = World::start(forgetful(), 0).await;
    // The machine is made; the answer never comes.
    world
        .app
        .sim
        .fail_next(Verb::Launch, Fault::Hang(Duration::from_mins(10)));
    let worker = world.app.start_worker(patient(world.config("patient")));
    let project = world.create().await;
    eventually("the launch hangs", Duration::from_secs(5), async || {
        (world.app.sim.alive().len() == 1).then_some(())
    })
    .await;
    world
        .partner
        .delete_project(&project.to_string())
        .await
        .expect(200);
    world
        .app
        .wait_for_status(project, ProjectStatus::Deleted)
        .await;
    assert_eq!(world.app.sim.alive(), Vec::new());
    world.app.assert_truth().await;
    worker.kill();
}
