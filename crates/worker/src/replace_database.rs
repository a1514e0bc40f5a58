//! Gives a project an earlier database: a branch its first one (`ResetBranch`), any project that of a backup
//! (`RestoreBackup`). Machine, keys and address stay. What is replaced is kept beside the new one until that serves; work
//! that fails puts it back, and the project is what it was.

use chrono::TimeDelta;
use cp_domain::{RESET_FAILED, RESTORE_FAILED};
use cp_dump::{How, discard_kept, put_back};
use cp_model::{Branch, Failure, OperationKind};
use serde_json::json;
use uuid::Uuid;

use crate::copies::{
    NO_SLOT, adopt_copies, copied, incomplete, recorded_copies, restore_backup, restore_copy,
};
use crate::create_branch::{
    await_branch, await_database, restart_database, restart_if_needed, serve,
};
use crate::step::{Outcome, StepContext, StepError, StepResult, steps};

steps!(
    Step {
        StopBackend = "stop_backend",
        AwaitDatabase = "await_database",
        RestoreCopy = "restore_copy",
        RestartDatabase = "restart_database",
        Serve = "serve",
        AwaitBackend = "await_backend",
        DiscardKept = "discard_kept",
    }
);

/// What must be left of the operation's time to go on: enough for going back.
const LEFT_FOR_PUTTING_BACK: TimeDelta = TimeDelta::hours(1);

/// In the operation's data, once the old database is wanted again.
const PUT_BACK: &str = "put_back";

/// In the data of a restore, from the moment on at which the backend was stopped: the name of the old database.
const KEPT_AS: &str = "kept_as";

pub(crate) async fn run(cx: &StepContext<'_>) -> StepResult {
    let step = Step::parse(cx.step).unwrap_or(Step::StopBackend);
    let puts_back = cx.operation.data[PUT_BACK] == true;
    match step {
        Step::StopBackend => stop_backend(cx).await,
        Step::AwaitDatabase => await_database(cx, Step::RestoreCopy.as_str()).await,
        Step::RestoreCopy if puts_back => put_old_back(cx).await,
        Step::RestoreCopy => restore(cx).await,
        Step::RestartDatabase => restart_database(cx, Step::Serve.as_str()).await,
        Step::Serve => serve(cx, Step::AwaitBackend.as_str()).await,
        Step::AwaitBackend => await_branch(cx).await.map(|outcome| match outcome {
            Outcome::Done if !puts_back => Outcome::Next(Step::DiscardKept.as_str()),
            outcome => outcome,
        }),
        Step::DiscardKept => discard(cx).await,
    }
}

/// What comes after a step that came to this: the way back instead of the end, however it fails.
pub(crate) fn or_back(cx: &StepContext<'_>, outcome: Outcome) -> Outcome {
    let is_past_the_way_back = Step::parse(cx.step) == Some(Step::DiscardKept);
    if cx.operation.data[PUT_BACK] == true || is_past_the_way_back {
        return outcome;
    }
    let now = cx.control_plane().clock().now();
    let deadline = cx.operation.deadline_at;
    let is_late = deadline.is_some_and(|at| at - now < LEFT_FOR_PUTTING_BACK);
    match outcome {
        Outcome::Fail(failure) => turn_back(cx, &failure),
        Outcome::Retry(failure) if is_late || is_last_attempt(cx) => turn_back(cx, &failure),
        Outcome::Wait(_) | Outcome::Hold(_) if is_late => {
            let text = "it did not come to its end in time";
            turn_back(cx, &Failure::new("copy_timeout", text))
        }
        outcome => outcome,
    }
}

/// Only the database may run while it is made anew.
async fn stop_backend(cx: &StepContext<'_>) -> StepResult {
    let machine = cx.machine()?.id;
    cx.control_plane()
        .set_serves(cx.lease, machine, false)
        .await?;
    cx.after_effect().await;
    let mut data = cx.operation.data.clone();
    if cx.lease.kind == OperationKind::RestoreBackup {
        data[KEPT_AS] = json!(kept_as(cx).await?);
    }
    Ok(Outcome::NextWith(Step::AwaitDatabase.as_str(), data))
}

async fn restore(cx: &StepContext<'_>) -> StepResult {
    let Ok(_slot) = cx.worker.inner.copies.try_acquire() else {
        return Ok(Outcome::Wait(NO_SLOT));
    };
    let kept = kept_as(cx).await?;
    let mut data = cx.operation.data.clone();
    let restored = if cx.lease.kind == OperationKind::RestoreBackup {
        let (backup, roles) = cx.control_plane().load_backup(cx.lease, &data).await?;
        restore_backup(cx, &backup, &roles, kept).await?
    } else {
        let branch = cx.control_plane().load_branch(cx.project().id).await?;
        let how = How::InPlaceKeeping(kept);
        let (restored, copies) = restore_copy(cx, &branch, how).await?;
        // The old database's base stays the branch's until the new one has proved itself.
        data["copies"] = json!(copies);
        restored
    };
    let (restart, serve) = (Step::RestartDatabase.as_str(), Step::Serve.as_str());
    restart_if_needed(cx, restored, data, restart, serve)
}

/// The name under which the old database is kept: whichever operation goes on with it, it finds the right one, and what
/// an earlier one left is never taken for it. A branch's is that of its own base, which stays the branch's until the
/// reset is done.
async fn kept_as(cx: &StepContext<'_>) -> Result<Uuid, StepError> {
    if cx.lease.kind == OperationKind::RestoreBackup {
        // One that is begun anew goes on with what the first one kept.
        let first = cx.operation.data[KEPT_AS].as_str();
        let first = first.and_then(|id| id.parse().ok());
        return Ok(first.unwrap_or(cx.operation.id.0));
    }
    let branch: Branch = cx.control_plane().load_branch(cx.project().id).await?;
    let base = branch.copies.branch.as_ref().ok_or_else(incomplete)?;
    let (_, attempt) = base.key.rsplit_once('/').ok_or_else(incomplete)?;
    attempt.parse().map_err(|_| incomplete())
}

fn is_last_attempt(cx: &StepContext<'_>) -> bool {
    cx.operation.attempts.saturating_add(1) >= cx.operation.max_attempts
}

fn turn_back(cx: &StepContext<'_>, failure: &Failure) -> Outcome {
    tracing::warn!(
        code = failure.code,
        message = failure.message,
        "the old database is put back"
    );
    let (code, what) = match cx.lease.kind {
        OperationKind::RestoreBackup => (RESTORE_FAILED, "the backup was not restored"),
        _ => (RESET_FAILED, "the branch was not reset"),
    };
    let text = format!("{what}, and all is as it was before: {}", failure.message);
    let mut data = cx.operation.turning_back(&Failure::new(code, text));
    data[PUT_BACK] = json!(true);
    // What is awaited from here on has its own time.
    data["awaits"] = json!(null);
    Outcome::NextWith(Step::StopBackend.as_str(), data)
}

async fn put_old_back(cx: &StepContext<'_>) -> StepResult {
    let database = cx
        .worker
        .database_of(cx.project(), Some(cx.machine()?))
        .await?;
    let kept = kept_as(cx).await?;
    let back = put_back(&database, kept).await.map_err(copied)?;
    cx.after_effect().await;
    let (restart, serve) = (Step::RestartDatabase.as_str(), Step::Serve.as_str());
    restart_if_needed(cx, back, cx.operation.data.clone(), restart, serve)
}

/// The new database serves: from here on there is no way back. What cannot be dropped now goes the next time.
async fn discard(cx: &StepContext<'_>) -> StepResult {
    if cx.lease.kind == OperationKind::ResetBranch {
        match adopt_copies(cx, &recorded_copies(cx)?).await {
            Ok(()) => {}
            // The new database with the old base would be another branch.
            Err(StepError::Failed(Outcome::Retry(failure))) => return Ok(Outcome::Hold(failure)),
            Err(error) => return Err(error),
        }
    }
    let dropped = async {
        let database = cx
            .worker
            .database_of(cx.project(), Some(cx.machine()?))
            .await?;
        discard_kept(&database).await.map_err(copied)
    };
    match dropped.await {
        Ok(()) => {}
        Err(StepError::Failed(Outcome::Retry(failure))) if !is_last_attempt(cx) => {
            return Ok(Outcome::Retry(failure));
        }
        Err(StepError::LeaseLost) => return Err(StepError::LeaseLost),
        Err(StepError::Failed(outcome)) => {
            tracing::warn!(?outcome, "what was replaced is still on the machine's disk");
        }
    }
    Ok(Outcome::Done)
}
