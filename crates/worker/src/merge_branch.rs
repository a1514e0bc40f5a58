//! Merges a branch into its parent, and compares the two without merging (a dry run). The parent's
//! database itself remembers, in the merge's own transaction, that it has this merge: a merge whose worker
//! died after the commit is found done.

use std::time::Duration;

use cp_domain::{Comparison, MERGE_CONFLICT, Resolutions};
use cp_dump::Database;
use cp_merge::{ApplyOptions, Bases, Choice, Error, MergePlan, RebasePlan, Record, Snapshot};
use cp_model::{
    Branch, BranchState, Failure, MergeDirection, MergeSide, OperationKind, ProjectStatus,
};
use tokio_util::sync::CancellationToken;

use crate::Worker;
use crate::copies::{compared, copied};
use crate::jobs::{Ticks, log_failure};
use crate::lost::without_machine;
use crate::step::{Outcome, StepContext, StepError, StepResult, steps};

steps!(
    Step {
        Merge = "merge",
    }
);

/// How long a lock on the parent is waited for, once; its users wait behind us as long.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(3);
/// Of the whole merge.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_mins(10);
pub(crate) const ATTEMPTS: u32 = 10;
/// Of the building of one index, or the proof of one constraint, while its table is written to.
const ONLINE_TIMEOUT: Duration = Duration::from_hours(1);

/// How long a dry run may take; how soon another worker takes over that of one that died; how many may die of it.
const COMPARISON_TIMEOUT: Duration = Duration::from_mins(5);
const COMPARISON_LEASE: Duration = Duration::from_secs(45);
const COMPARISON_ATTEMPTS: i32 = 3;
/// Each is told of when it is asked for; this is for what was not heard, and for what a dead worker left.
const SWEEP: Duration = Duration::from_secs(15);

pub(crate) async fn run(cx: &StepContext<'_>) -> StepResult {
    match Step::parse(cx.step) {
        Some(Step::Merge) | None => Box::pin(merge(cx)).await,
    }
}

async fn merge(cx: &StepContext<'_>) -> StepResult {
    if let Some(outcome) = without_machine(cx).await? {
        return Ok(outcome);
    }
    let (control_plane, id) = (cx.control_plane(), cx.operation.id.0);
    let branch = control_plane.load_branch(cx.project().id).await?;
    let parent = cx.worker.database_of_parent(&branch).await?;
    let mut connection = parent.connect().await.map_err(copied)?;
    let online = cx.operation.data["online"] == true;
    let is_committed = cp_merge::is_recorded(&mut connection, id)
        .await
        .map_err(compared)?;
    if is_committed {
        let left = cp_merge::unfinished(&mut connection, id).await;
        // What one attempt could not do after its commit is told; what it did not come to is done.
        if !online || left.map_err(compared)?.is_empty() {
            return Ok(Outcome::Done);
        }
    }
    drop(connection);
    let parent = parent.options();
    let resolutions = cx.operation.data["resolutions"].clone();
    let resolutions: Resolutions = serde_json::from_value(resolutions).unwrap_or_default();
    let plan = cx.worker.plan(&branch, &resolutions).await?;
    let mut diff = serde_json::json!(plan.diff());
    if !is_committed {
        control_plane
            .record_merge_diff(cx.lease, &resolutions, &diff)
            .await?;
    }
    if !is_committed && !plan.is_clean() {
        let text = "the parent and the branch changed the same things, or the parent's rows are in the way; nothing was changed";
        return Ok(Outcome::Fail(Failure::new(MERGE_CONFLICT, text)));
    }
    let options = ApplyOptions {
        lock_timeout: LOCK_TIMEOUT,
        statement_timeout: STATEMENT_TIMEOUT,
        attempts: ATTEMPTS,
        record: Some(Record { id }),
        online,
        online_timeout: ONLINE_TIMEOUT,
    };
    match Box::pin(cp_merge::apply(&parent, &plan, &options)).await {
        Ok(applied) => {
            cx.after_effect().await;
            if online && !is_committed {
                diff["finished"] = serde_json::json!(applied.finished);
                diff["unfinished"] = serde_json::json!(applied.unfinished);
                control_plane
                    .record_merge_diff(cx.lease, &resolutions, &diff)
                    .await?;
            }
            Ok(Outcome::Done)
        }
        // The parent was changed since: what is planned next fits it.
        Err(Error::Stale) => {
            tracing::info!("the parent changed; planning the merge again");
            let text = "the parent kept changing while the merge was made";
            Ok(Outcome::Retry(Failure::new("parent_changed", text)))
        }
        Err(error) => Err(not_applied(error)),
    }
}

/// What the parent's own statements said is what the person who merges needs to know.
pub(crate) fn not_applied(error: Error) -> StepError {
    if !error.is_permanent() {
        return compared(error);
    }
    // Its text quotes statements, and those what people wrote.
    tracing::warn!(sqlstate = ?error.sqlstate(), "a merge was not applied");
    let text = format!("the merge was not applied: {error}");
    StepError::Failed(Outcome::Fail(Failure::new("merge_failed", text)))
}

fn choices(resolutions: &Resolutions) -> cp_merge::Resolutions {
    let choice = |side: &MergeSide| match side {
        MergeSide::Branch => Choice::Branch,
        MergeSide::Parent => Choice::Parent,
    };
    let chosen = resolutions.iter();
    chosen
        .map(|(name, side)| (name.clone(), choice(side)))
        .collect()
}

impl Worker {
    async fn plan(
        &self,
        branch: &Branch,
        resolutions: &Resolutions,
    ) -> Result<MergePlan, StepError> {
        let bases = self.bases_of(branch).await?;
        let parent = self.database_of_parent(branch).await?.options();
        let own = self.own_database(branch).await?.options();
        cp_merge::plan(&parent, &own, &bases, &choices(resolutions))
            .await
            .map_err(compared)
    }

    pub(crate) async fn plan_rebase(
        &self,
        branch: &Branch,
        parent: &Snapshot,
        resolutions: &Resolutions,
    ) -> Result<RebasePlan, StepError> {
        let bases = self.bases_of(branch).await?;
        let own = self.own_database(branch).await?.options();
        cp_merge::plan_rebase(parent, &own, &bases, &choices(resolutions))
            .await
            .map_err(compared)
    }

    pub(crate) async fn snapshot_of_parent(&self, branch: &Branch) -> Result<Snapshot, StepError> {
        let parent = self.database_of_parent(branch).await?;
        let mut connection = parent.connect().await.map_err(copied)?;
        cp_merge::snapshot(&mut connection).await.map_err(compared)
    }

    async fn bases_of(&self, branch: &Branch) -> Result<Bases, StepError> {
        let (region, copies) = (branch.project.region, &branch.copies);
        Ok(Bases {
            parent: self.read_snapshot(region, copies.parent.as_ref()).await?,
            branch: self.read_snapshot(region, copies.branch.as_ref()).await?,
        })
    }

    async fn own_database(&self, branch: &Branch) -> Result<Database, StepError> {
        let machine = self
            .control_plane()
            .find_project_machine(branch.project.id)
            .await?;
        self.database_of(&branch.project, machine.as_ref()).await
    }

    async fn compare(&self, comparison: &Comparison) -> Result<serde_json::Value, StepError> {
        let branch = self.control_plane().load_branch(comparison.branch).await?;
        // Its base moves in these steps.
        let is_rebased = branch.work.as_ref().is_some_and(|work| {
            work.kind == OperationKind::RebaseBranch && matches!(&*work.step, "rebase" | "adopt")
        });
        let is_made = !is_rebased
            && !matches!(
                branch.state,
                BranchState::Creating | BranchState::Resetting | BranchState::Deleted
            );
        if !is_made || branch.project.status != ProjectStatus::Active {
            let text = format!(
                "the branch is {} and its backend {}; it must be made, and active, to be compared",
                branch.state, branch.project.status
            );
            let failure = Failure::new("branch.not_ready", text);
            return Err(StepError::Failed(Outcome::Fail(failure)));
        }
        let diff = match comparison.direction {
            MergeDirection::Merge => self.plan(&branch, &comparison.resolutions).await?.diff(),
            MergeDirection::Rebase => {
                let parent = self.snapshot_of_parent(&branch).await?;
                let plan = self.plan_rebase(&branch, &parent, &comparison.resolutions);
                plan.await?.diff()
            }
        };
        Ok(serde_json::json!(diff))
    }
}

/// Makes dry runs as they are asked for.
pub(crate) async fn compare_branches(worker: Worker, shutdown: CancellationToken) {
    let mut asked = worker.control_plane().subscribe_comparisons();
    let mut sweep = Ticks::every(SWEEP, shutdown.clone());
    loop {
        tokio::select! {
            biased;
            goes_on = sweep.next() => if !goes_on {
                return;
            },
            Ok(()) = asked.changed() => {}
        }
        // What is cut off by the shutdown is taken over by another worker.
        let round = Box::pin(worker.compare_all());
        match shutdown.run_until_cancelled(round).await {
            None => return,
            Some(result) => log_failure("compare_branches", result),
        }
    }
}

impl Worker {
    /// Ends when the dry run is somebody else's, or nobody's: its branch is deleted.
    async fn keep_comparison(&self, comparison: &Comparison) {
        loop {
            tokio::time::sleep(COMPARISON_LEASE / 3).await;
            let kept = self
                .control_plane()
                .extend_comparison(comparison.id, COMPARISON_LEASE);
            // What could not be asked is asked again; the lease allows for it.
            if let Ok(false) = kept.await {
                return;
            }
        }
    }

    async fn compare_all(&self) -> cp_domain::DomainResult<()> {
        let control_plane = self.control_plane();
        while let Some(comparison) = control_plane.take_comparison(COMPARISON_LEASE).await? {
            let is_deadly = comparison.attempts > COMPARISON_ATTEMPTS;
            let compared = async {
                if is_deadly {
                    let text =
                        "the databases cannot be compared; operators see the reason in the log";
                    let failure = Failure::new("compare_failed", text);
                    return Err(StepError::Failed(Outcome::Fail(failure)));
                }
                self.compare(&comparison).await
            };
            let compared = tokio::time::timeout(COMPARISON_TIMEOUT, compared);
            let compared = tokio::select! {
                compared = compared => compared,
                () = self.keep_comparison(&comparison) => continue,
            };
            let failure = match compared {
                Ok(Ok(diff)) => {
                    control_plane
                        .end_comparison(comparison.id, &Ok(diff))
                        .await?;
                    continue;
                }
                // Somebody waits for the answer, and can ask again.
                Ok(Err(StepError::Failed(
                    Outcome::Fail(failure) | Outcome::Retry(failure) | Outcome::Hold(failure),
                ))) => failure,
                Ok(Err(_)) => Failure::new("compare_failed", "the databases were not compared"),
                Err(_) => Failure::new("compare_timeout", "the comparison did not end in time"),
            };
            control_plane
                .end_comparison(comparison.id, &Err(failure))
                .await?;
        }
        Ok(())
    }
}
