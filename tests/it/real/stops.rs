//! Workers with real machines, databases and copies that die where a scenario says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cp_model::{OperationId, OperationKind, OperationState, ProjectId, ProjectStatus};
use cp_tests::{App, Local, eventually};
use cp_worker::{CrashPoint, WorkerConfig, all_steps};

use crate::crash::stop_at;

/// Copying, booting and restoring, on two cores with another story beside it.
pub const DONE: Duration = Duration::from_mins(2);

/// Comes only where Postgres runs `pg_cron`, which the local machines' does not.
const NEVER_HERE: &str = "restart_database";

pub fn config(app: &App, local: &Local, name: &str) -> WorkerConfig {
    WorkerConfig {
        objects: Some(local.objects.clone()),
        launch_visibility: Duration::from_secs(1),
        missing_grace: Duration::from_secs(5),
        // A machine that boots while others build is no orphan.
        orphan_grace: Duration::from_secs(30),
        lease: Duration::from_secs(3),
        ..app.worker_config(name)
    }
}

pub fn steps(kind: OperationKind) -> Vec<&'static str> {
    let mut steps = all_steps(kind);
    steps.retain(|step| *step != NEVER_HERE);
    steps
}

pub fn sites(kind: OperationKind) -> Vec<(&'static str, CrashPoint)> {
    steps(kind)
        .into_iter()
        .flat_map(|step| CrashPoint::ALL.map(|point| (step, point)))
        .collect()
}

/// The worker of the operation in flight dies there.
pub async fn die_at(
    app: &App,
    config: WorkerConfig,
    id: ProjectId,
    step: &'static str,
    point: CrashPoint,
) {
    let operation = eventually("the operation is queued", DONE, async || {
        let newest = app.newest_operation(id).await;
        newest.state.is_in_flight().then_some(newest)
    })
    .await;
    let site = format!("{} {step} {}", operation.kind, point.as_str());
    let (hook, reached) = stop_at(operation.id, step, point);
    let worker = app.start_worker(WorkerConfig {
        crash_hook: Some(hook),
        // One slot: the step that never returns holds it, so that this worker goes no further.
        concurrency: 1,
        lease: Duration::from_secs(30),
        ..config
    });
    tokio::time::timeout(DONE, reached)
        .await
        .unwrap_or_else(|_| panic!("{site} was never reached"))
        .expect("the hook tells before it is dropped");
    worker.kill();
    assert_died_at(app, operation.id, step, point, &site).await;
    sqlx::query("update operations set lease_until = clock_timestamp() where id = $1 and lease_until is not null")
        .bind(operation.id.0)
        .execute(&mut app.database.connect().await)
        .await
        .unwrap();
}

/// The row stands where the worker died, not further and not before.
async fn assert_died_at(app: &App, id: OperationId, step: &str, point: CrashPoint, site: &str) {
    let row = app.operation(id).await;
    let steps = steps(row.kind);
    let next = steps.iter().skip_while(|s| **s != step).nth(1).copied();
    let stands = match (point, row.state) {
        (CrashPoint::BeforeEffect | CrashPoint::AfterEffect, OperationState::Running)
        | (CrashPoint::AfterRecord, OperationState::Waiting) => row.step == step,
        // What it waits for until when is written down first.
        (CrashPoint::AfterRecord, OperationState::Running) => {
            Some(row.step.as_str()) == next || row.step == step
        }
        (CrashPoint::AfterRecord, OperationState::Succeeded) => next.is_none(),
        _ => false,
    };
    assert!(stands, "died elsewhere: {site}: {row:?}");
}

pub async fn until_active(app: &App, id: ProjectId) {
    eventually("the project is active", DONE, async || {
        (app.status_of(id).await == ProjectStatus::Active).then_some(())
    })
    .await;
}

/// The store's disk has lost the end of the object of this size.
pub fn cut_object(local: &Local, size: u64) {
    let content = files(&local.home().path().join("objects"))
        .into_iter()
        .find(|path| path.metadata().is_ok_and(|file| file.len() == size))
        .expect("the object is a file");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(content)
        .unwrap();
    file.set_len(size / 2).unwrap();
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}
