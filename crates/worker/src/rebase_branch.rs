//! Brings the parent's changes to a branch: what it was made from (T0) moves to the parent as it is now, and a reset leads
//! there from then on. The branch's database itself remembers, in the rebase's own transaction, that it has this rebase; its
//! new base is stored before that transaction commits.

use std::sync::{Mutex, PoisonError};

use cp_domain::{MERGE_CONFLICT, Resolutions};
use cp_dump::{Exported, make_roles};
use cp_merge::{ApplyOptions, Error, RebaseError, RebasePlan, Record, Snapshot};
use cp_model::{Branch, BranchCopies, Failure};
use serde_json::{Value, json};

use crate::copies::{
    NO_SLOT, adopt_copies, compared, copied, copy_parent, once, prefix_of_branch, put,
    recorded_copies,
};
use crate::lost::without_machine;
use crate::merge_branch::{ATTEMPTS, LOCK_TIMEOUT, STATEMENT_TIMEOUT, not_applied};
use crate::step::{Outcome, StepContext, StepError, StepResult, steps};

steps!(
    Step {
        Look = "look",
        CopyParent = "copy_parent",
        Rebase = "rebase",
        Adopt = "adopt",
    }
);

pub(crate) async fn run(cx: &StepContext<'_>) -> StepResult {
    if let Some(outcome) = without_machine(cx).await? {
        return Ok(outcome);
    }
    match Step::parse(cx.step) {
        Some(Step::Look) | None => look(cx).await,
        Some(Step::CopyParent) => copy(cx).await,
        Some(Step::Rebase) => rebase(cx).await,
        Some(Step::Adopt) => adopt(cx).await,
    }
}

/// What stands in the way is found before hours are spent on a copy.
async fn look(cx: &StepContext<'_>) -> StepResult {
    let branch = cx.control_plane().load_branch(cx.project().id).await?;
    // What the parent's changes may name. Roles that nothing needs in the end do no harm.
    let mut exported = Exported::open(&cx.worker.database_of_parent(&branch).await?)
        .await
        .map_err(copied)?;
    let roles = exported.roles().await.map_err(copied)?;
    exported.close().await.map_err(copied)?;
    let own = cx.worker.database_of(cx.project(), Some(cx.machine()?));
    make_roles(&own.await?, &roles).await.map_err(copied)?;
    let parent = cx.worker.snapshot_of_parent(&branch).await?;
    let plan = plan(cx, &branch, &parent).await?;
    if let Some(refused) = refuse(cx, &plan).await? {
        return Ok(refused);
    }
    Ok(Outcome::Next(Step::CopyParent.as_str()))
}

async fn copy(cx: &StepContext<'_>) -> StepResult {
    let Ok(_slot) = cx.worker.inner.copies.try_acquire() else {
        return Ok(Outcome::Wait(NO_SLOT));
    };
    let branch = cx.control_plane().load_branch(cx.project().id).await?;
    let copies = copy_parent(cx, &branch).await?;
    cx.after_effect().await;
    let mut data = cx.operation.data.clone();
    data["copies"] = json!(copies);
    Ok(Outcome::NextWith(Step::Rebase.as_str(), data))
}

/// From the very copy that a reset will lead to: what the parent does from then on is for the next rebase.
async fn rebase(cx: &StepContext<'_>) -> StepResult {
    let branch = cx.control_plane().load_branch(cx.project().id).await?;
    let own = cx
        .worker
        .database_of(cx.project(), Some(cx.machine()?))
        .await?;
    let id = cx.operation.id.0;
    let mut connection = own.connect().await.map_err(copied)?;
    let is_done = cp_merge::is_recorded(&mut connection, id)
        .await
        .map_err(compared)?;
    drop(connection);
    if is_done {
        return Ok(Outcome::Next(Step::Adopt.as_str()));
    }
    let copies = recorded_copies(cx)?;
    let region = cx.project().region;
    let parent = cx
        .worker
        .read_snapshot(region, copies.parent.as_ref())
        .await?;
    let plan = plan(cx, &branch, &parent).await?;
    if let Some(refused) = refuse(cx, &plan).await? {
        return Ok(refused);
    }
    let options = ApplyOptions {
        lock_timeout: LOCK_TIMEOUT,
        statement_timeout: STATEMENT_TIMEOUT,
        attempts: ATTEMPTS,
        record: Some(Record { id }),
        ..ApplyOptions::default()
    };
    // Of the last attempt, which is the one that was committed.
    let kept = Mutex::new(cx.operation.data.clone());
    let keep = async |base: &Snapshot| {
        let data = keep_base(cx, &copies, base).await?;
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = data;
        Ok(())
    };
    match cp_merge::apply_rebase(&own.options(), &plan, &options, keep).await {
        Ok(_) => {
            cx.after_effect().await;
            let data = kept.into_inner().unwrap_or_else(PoisonError::into_inner);
            Ok(Outcome::NextWith(Step::Adopt.as_str(), data))
        }
        Err(RebaseError::Keep(error)) => Err(error),
        Err(RebaseError::Rebase(Error::Stale)) => {
            let text = "the branch kept changing while it was rebased";
            Ok(Outcome::Retry(Failure::new("branch_changed", text)))
        }
        Err(RebaseError::Rebase(error)) => Err(not_applied(error)),
    }
}

/// The branch's new base, as it is in the transaction that is about to commit. Gives the operation's data with it.
async fn keep_base(
    cx: &StepContext<'_>,
    copies: &BranchCopies,
    base: &Snapshot,
) -> Result<Value, StepError> {
    let mut copies = copies.clone();
    let prefix = prefix_of_branch(cx.project().id)?;
    copies.branch = Some(put(cx, &prefix, once(base.to_bytes())).await?);
    let mut data = cx.operation.data.clone();
    data["copies"] = json!(copies);
    cx.control_plane().keep_data(cx.lease, &data).await?;
    Ok(data)
}

/// From here on the branch was made from the parent as it is in the copy.
async fn adopt(cx: &StepContext<'_>) -> StepResult {
    match adopt_copies(cx, &recorded_copies(cx)?).await {
        Ok(()) => Ok(Outcome::Done),
        // The branch has the parent's changes: without its new base a merge would take them for its own.
        Err(StepError::Failed(Outcome::Retry(failure))) => Ok(Outcome::Hold(failure)),
        Err(error) => Err(error),
    }
}

async fn plan(
    cx: &StepContext<'_>,
    branch: &Branch,
    parent: &Snapshot,
) -> Result<RebasePlan, StepError> {
    let resolutions = cx.operation.data["resolutions"].clone();
    let resolutions: Resolutions = serde_json::from_value(resolutions).unwrap_or_default();
    cx.worker.plan_rebase(branch, parent, &resolutions).await
}

/// Keeps what the rebase will do. The failure that it ends with, if something stands in its way.
async fn refuse(cx: &StepContext<'_>, plan: &RebasePlan) -> Result<Option<Outcome>, StepError> {
    let resolutions = cx.operation.data["resolutions"].clone();
    let resolutions: Resolutions = serde_json::from_value(resolutions).unwrap_or_default();
    cx.control_plane()
        .record_merge_diff(cx.lease, &resolutions, &json!(plan.diff()))
        .await?;
    if plan.is_clean() {
        return Ok(None);
    }
    let text = "the parent and the branch changed the same things, or the branch's rows are in the way; nothing was changed";
    Ok(Some(Outcome::Fail(Failure::new(MERGE_CONFLICT, text))))
}
