//! Gives a branch its first database again: the same machine, keys and address. What is replaced is kept beside it until the
//! new one serves; a reset that fails puts it back, and the branch is what it was.

use chrono::TimeDelta;
use cp_domain::RESET_FAILED;
use cp_dump::{How, discard_kept, put_back};
use cp_model::{Branch, Failure};
use serde_json::json;
use uuid::Uuid;

use crate::copies::{NO_SLOT, adopt_copies, copied, incomplete, recorded_copies, restore_copy};
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

/// What comes after a step that came to this: the way back instead of the end, however the reset fails.
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
            let text = "the reset did not come to its end in time";
            turn_back(cx, &Failure::new("branch_timeout", text))
        }
        outcome => outcome,
    }
}

/// Only the database may run while it is made anew.
async fn stop_backend(cx: &StepContext<'_>) -> StepResult {
    let machine = cx.machine()?.id;
    cx.control_plane()
        .set_branch_serves(cx.lease, machine, false)
        .await?;
    cx.after_effect().await;
    Ok(Outcome::Next(Step::AwaitDatabase.as_str()))
}

/// The old database's base stays the branch's until the new one has proved itself.
async fn restore(cx: &StepContext<'_>) -> StepResult {
    let Ok(_slot) = cx.worker.inner.copies.try_acquire() else {
        return Ok(Outcome::Wait(NO_SLOT));
    };
    let branch = cx.control_plane().load_branch(cx.project().id).await?;
    let how = How::InPlaceKeeping(kept_as(&branch)?);
    let (restored, copies) = restore_copy(cx, &branch, how).await?;
    let mut data = cx.operation.data.clone();
    data["copies"] = json!(copies);
    let (restart, serve) = (Step::RestartDatabase.as_str(), Step::Serve.as_str());
    restart_if_needed(cx, restored, data, restart, serve)
}

/// The old database is kept under the name of its own base, which stays the branch's until the reset is done: whichever
/// operation goes on with it, it finds the right one, and what an earlier reset left is never taken for it.
fn kept_as(branch: &Branch) -> Result<Uuid, StepError> {
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
        "a reset failed; the branch gets its old database again"
    );
    let text = format!(
        "the branch was not reset, and is as it was before: {}",
        failure.message
    );
    let mut data = cx.operation.turning_back(&Failure::new(RESET_FAILED, text));
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
    let branch = cx.control_plane().load_branch(cx.project().id).await?;
    let back = put_back(&database, kept_as(&branch)?)
        .await
        .map_err(copied)?;
    cx.after_effect().await;
    let (restart, serve) = (Step::RestartDatabase.as_str(), Step::Serve.as_str());
    restart_if_needed(cx, back, cx.operation.data.clone(), restart, serve)
}

/// The new database serves: from here on there is no way back. What cannot be dropped now goes with the next reset.
async fn discard(cx: &StepContext<'_>) -> StepResult {
    match adopt_copies(cx, &recorded_copies(cx)?).await {
        Ok(()) => {}
        // The new database with the old base would be another branch.
        Err(StepError::Failed(Outcome::Retry(failure))) => return Ok(Outcome::Hold(failure)),
        Err(error) => return Err(error),
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
            tracing::warn!(
                ?outcome,
                "what a reset replaced is still on the machine's disk"
            );
        }
    }
    Ok(Outcome::Done)
}
