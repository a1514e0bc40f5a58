//! Makes a branch: a machine of its own; a copy of the parent's database, taken while the machine boots;
//! the copy restored into it before its backend starts for the first time.

use cp_domain::operations::machine_lost;
use cp_dump::How;
use serde_json::json;

use crate::await_backend::{await_backend, keep_running};
use crate::copies::{NO_SLOT, copy_parent, restore_copy};
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
        Some(Step::RestoreCopy) => {
            let (restart, serve) = (Step::RestartDatabase, Step::Serve);
            restore(cx, How::NewMachine, restart.as_str(), serve.as_str()).await
        }
        Some(Step::RestartDatabase) => restart_database(cx, Step::Serve.as_str()).await,
        Some(Step::Serve) => serve(cx, Step::AwaitBackend.as_str()).await,
        Some(Step::AwaitBackend) => await_backend(cx, Step::AwaitBackend.as_str()).await,
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
    let kept = keep_running(cx, machine).await?;
    Ok(kept.unwrap_or_else(|| Outcome::Fail(machine_lost())))
}

/// Fills the database. `restart`: the step that comes next where Postgres has to be restarted then.
pub(crate) async fn restore(
    cx: &StepContext<'_>,
    how: How,
    restart: &'static str,
    serve: &'static str,
) -> StepResult {
    let Ok(_slot) = cx.worker.inner.copies.try_acquire() else {
        return Ok(Outcome::Wait(NO_SLOT));
    };
    let branch = cx.control_plane().load_branch(cx.project().id).await?;
    let (restored, copies) = restore_copy(cx, &branch, how).await?;
    cx.control_plane().record_copies(cx.lease, &copies).await?;
    if !restored.restart_postgres {
        return Ok(Outcome::Next(serve));
    }
    // Which restart this is, is fixed before it is asked for: asking twice is asking once.
    let mut data = cx.operation.data.clone();
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
        .set_branch_serves(cx.lease, machine, true)
        .await?;
    cx.after_effect().await;
    Ok(Outcome::Next(next))
}
