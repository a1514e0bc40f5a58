//! Makes a branch: a machine of its own; a copy of the parent's database, taken while the machine boots;
//! the copy restored into it before its backend starts for the first time.

use chrono::{DateTime, TimeDelta, Utc};
use cp_domain::operations::machine_lost;
use cp_dump::{How, Restored};
use cp_model::Failure;
use serde_json::{Value, json};

use crate::await_backend::{await_backend, keep_running};
use crate::copies::{NO_SLOT, adopt_copies, copy_parent, restore_copy};
use crate::provision_project::{allocate_machine, assign_machine, launch_machine};
use crate::step::{Outcome, StepContext, StepResult, steps};

steps!(
    Step {
        AllocateMachine = "allocate_machine",
        LaunchMachine = "launch_machine",
        CopyParent = "copy_parent",
        AssignMachine = "assign_machine",
        AwaitDatabase = "await_database",
        RestoreCopy = "restore_copy",
        RestartDatabase = "restart_database",
        Serve = "serve",
        AwaitBackend = "await_backend",
    }
);

/// How long a machine may take to show its database, or its backend to serve, once that is awaited.
const PATIENCE: TimeDelta = TimeDelta::minutes(20);

pub(crate) async fn run(cx: &StepContext<'_>) -> StepResult {
    match Step::parse(cx.step) {
        Some(Step::AllocateMachine) | None => {
            allocate_machine(cx, Step::LaunchMachine.as_str()).await
        }
        Some(Step::LaunchMachine) => launch_machine(cx, Step::CopyParent.as_str()).await,
        Some(Step::CopyParent) => copy(cx).await,
        Some(Step::AssignMachine) => {
            let (again, next) = (Step::AllocateMachine, Step::AwaitDatabase);
            assign_machine(cx, again.as_str(), next.as_str()).await
        }
        Some(Step::AwaitDatabase) => await_database(cx, Step::RestoreCopy.as_str()).await,
        Some(Step::RestoreCopy) => restore(cx).await,
        Some(Step::RestartDatabase) => restart_database(cx, Step::Serve.as_str()).await,
        Some(Step::Serve) => serve(cx, Step::AwaitBackend.as_str()).await,
        Some(Step::AwaitBackend) => await_branch(cx).await,
    }
}

async fn copy(cx: &StepContext<'_>) -> StepResult {
    let Ok(_slot) = cx.worker.inner.copies.try_acquire() else {
        return Ok(Outcome::Wait(NO_SLOT));
    };
    let branch = cx.control_plane().load_branch(cx.project().id).await?;
    let copies = copy_parent(cx, &branch).await?;
    cx.after_effect().await;
    cx.control_plane().record_copies(cx.lease, &copies).await?;
    Ok(Outcome::Next(Step::AssignMachine.as_str()))
}

/// Until the agent says that the database runs, alone.
pub(crate) async fn await_database(cx: &StepContext<'_>, next: &'static str) -> StepResult {
    let machine = cx.machine()?;
    if machine.runs_database_alone_as_desired() {
        return Ok(Outcome::Next(next));
    }
    if let Some(outcome) = patience(cx, "the database did not come up in time") {
        return Ok(outcome);
    }
    let kept = keep_running(cx, machine).await?;
    Ok(kept.unwrap_or_else(|| Outcome::Fail(machine_lost())))
}

/// Until the branch's backend serves.
pub(crate) async fn await_branch(cx: &StepContext<'_>) -> StepResult {
    if let Some(outcome) = patience(cx, "the backend did not come up in time") {
        return Ok(outcome);
    }
    await_backend(cx, cx.step).await
}

/// The operation's own deadline is one for copies of big databases. What only waits for a machine ends sooner:
/// first it is written down until when, then that is held against the clock.
fn patience(cx: &StepContext<'_>, why: &str) -> Option<Outcome> {
    let now = cx.control_plane().clock().now();
    let noted = &cx.operation.data["awaits"];
    let until = noted["until"].as_str();
    let until = until.and_then(|at| DateTime::parse_from_rfc3339(at).ok());
    match until.filter(|_| noted["step"] == cx.step) {
        Some(until) if until < now => Some(Outcome::Fail(Failure::new("branch_timeout", why))),
        Some(_) => None,
        None => {
            let until: DateTime<Utc> = now + PATIENCE;
            let mut data = cx.operation.data.clone();
            data["awaits"] = json!({ "step": cx.step, "until": until.to_rfc3339() });
            Some(Outcome::NextWith(cx.step, data))
        }
    }
}

/// Fills the database.
async fn restore(cx: &StepContext<'_>) -> StepResult {
    let Ok(_slot) = cx.worker.inner.copies.try_acquire() else {
        return Ok(Outcome::Wait(NO_SLOT));
    };
    let branch = cx.control_plane().load_branch(cx.project().id).await?;
    let (restored, copies) = restore_copy(cx, &branch, How::NewMachine).await?;
    adopt_copies(cx, &copies).await?;
    let (restart, serve) = (Step::RestartDatabase.as_str(), Step::Serve.as_str());
    restart_if_needed(cx, restored, cx.operation.data.clone(), restart, serve)
}

/// Goes on with `restart`, where Postgres has to be restarted first, or with `serve`.
pub(crate) fn restart_if_needed(
    cx: &StepContext<'_>,
    restored: Restored,
    mut data: Value,
    restart: &'static str,
    serve: &'static str,
) -> StepResult {
    if !restored.restart_postgres {
        return Ok(Outcome::NextWith(serve, data));
    }
    // Which restart this is, is fixed before it is asked for: asking twice is asking once.
    data["restarts"] = json!(cx.machine()?.restarts + 1);
    Ok(Outcome::NextWith(restart, data))
}

/// pg_cron's launcher ended with the old database.
pub(crate) async fn restart_database(cx: &StepContext<'_>, next: &'static str) -> StepResult {
    let machine = cx.machine()?;
    let wanted = cx.operation.data["restarts"].as_i64();
    let wanted = wanted.unwrap_or(machine.restarts);
    if machine.restarts < wanted {
        cx.control_plane()
            .request_restart(cx.lease, machine.id, wanted)
            .await?;
        cx.after_effect().await;
        return Ok(Outcome::Wait(cx.config().recheck));
    }
    await_database(cx, next).await
}

/// Lets the rest of the backend start.
pub(crate) async fn serve(cx: &StepContext<'_>, next: &'static str) -> StepResult {
    let machine = cx.machine()?.id;
    cx.control_plane()
        .set_serves(cx.lease, machine, true)
        .await?;
    cx.after_effect().await;
    Ok(Outcome::Next(next))
}
