//! Comparing a branch with its parent, and merging it. Both are a worker's work, since only workers reach
//! machines; requests wait for the result.

use std::time::Duration;

use chrono::TimeDelta;
use cp_model::{
    BranchState, ComparisonId, Failure, MergeDirection, OperationId, OperationState, ProjectId,
};
use cp_storage::notifications::Topic;
use cp_storage::{branch_comparisons, operations};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::branches::{BranchError, BranchRef, MERGE_CONFLICT, MergeOptions, Resolutions};
use crate::context::ProjectCaller;
use crate::operations::{Lease, commit};
use crate::{ControlPlane, DomainError, DomainResult, Thing};

/// Comparisons are kept this long, for whoever looks at what was merged.
pub(crate) const COMPARISONS_KEPT: TimeDelta = TimeDelta::days(30);

/// A dry run's result is fetched at once.
pub(crate) const DRY_RUNS_KEPT: TimeDelta = TimeDelta::hours(1);

/// Whoever asked for one waits at most that long.
const COMPARISONS_WANTED: TimeDelta = TimeDelta::minutes(5);

/// What a merge came to.
#[derive(Debug)]
pub enum MergeOutcome {
    /// It is done; the diff tells what was.
    Merged(Value),
    /// Nothing was done: the diff has conflicts, or changes that need a migration.
    Conflict(Value),
    /// Nothing was done.
    Failed(Failure),
    /// It goes on; the operation tells when it has ended.
    Running(OperationId),
}

/// A dry run that a worker has taken.
#[derive(Debug)]
pub struct Comparison {
    pub id: ComparisonId,
    pub branch: ProjectId,
    pub direction: MergeDirection,
    pub resolutions: Resolutions,
    pub attempts: i32,
}

impl ControlPlane {
    /// What a merge would do now, or a rebase. Changes nothing; waits up to `at_most` for a worker.
    pub async fn compare_branch(
        &self,
        by: ProjectCaller<'_>,
        branch: BranchRef,
        direction: MergeDirection,
        resolutions: &Resolutions,
        at_most: Duration,
    ) -> DomainResult<Result<Value, Failure>> {
        let until = Instant::now() + at_most;
        let branch = self.find_branch(by, branch).await?;
        if let state @ (BranchState::Creating | BranchState::Resetting) = branch.state {
            // Its data is not all there yet.
            return Err(BranchError::Busy(state).into());
        }
        let id = ComparisonId::generate();
        let topic = (Topic::Comparisons, id.to_string());
        let mut changes = self.db().notifications().subscribe(topic.0, &topic.1);
        let mut tx = self.db().begin().await?;
        let resolutions = json!(resolutions);
        branch_comparisons::insert_dry_run(
            &mut tx,
            id,
            branch.project.id,
            direction,
            &resolutions,
            self.now(),
        )
        .await?;
        commit(tx).await?;
        loop {
            let timed_out = tokio::time::timeout_at(until, changes.changed())
                .await
                .is_err();
            let mut conn = self.db().acquire().await?;
            let result = branch_comparisons::find_result(&mut conn, id)
                .await?
                .ok_or(DomainError::NotFound(Thing::Branch))?;
            match (result.diff, result.failure) {
                (Some(diff), _) => return Ok(Ok(diff)),
                (None, Some(failure)) => return Ok(Err(failure)),
                (None, None) if timed_out => return Err(DomainError::Unavailable),
                (None, None) => {}
            }
        }
    }

    /// Merges or rebases the branch; waits up to `at_most` for the end.
    pub async fn merge_branch(
        &self,
        by: ProjectCaller<'_>,
        branch: BranchRef,
        options: &MergeOptions,
        at_most: Duration,
    ) -> DomainResult<MergeOutcome> {
        let operation = self.begin_merge(by, branch, options).await?;
        self.await_merge(branch.branch, operation, at_most).await
    }

    /// The end of a merge that was begun.
    pub async fn await_merge(
        &self,
        branch: ProjectId,
        operation: OperationId,
        at_most: Duration,
    ) -> DomainResult<MergeOutcome> {
        let until = Instant::now() + at_most;
        let topic = (Topic::Projects, branch.to_string());
        let mut changes = self.db().notifications().subscribe(topic.0, &topic.1);
        let mut is_last_look = false;
        loop {
            let mut conn = self.db().acquire().await?;
            let now = operations::find_operation(&mut conn, operation)
                .await?
                .ok_or(DomainError::NotFound(Thing::Operation))?;
            if !now.state.is_in_flight() {
                let diff = branch_comparisons::find_diff_of_merge(&mut conn, operation).await?;
                let failure = now
                    .error
                    .unwrap_or_else(|| Failure::new("merge_failed", "the merge did not end well"));
                return Ok(match (now.state, diff) {
                    (OperationState::Succeeded, Some(diff)) => MergeOutcome::Merged(diff),
                    (_, Some(diff)) if failure.code == MERGE_CONFLICT => {
                        MergeOutcome::Conflict(diff)
                    }
                    _ => MergeOutcome::Failed(failure),
                });
            }
            if is_last_look {
                return Ok(MergeOutcome::Running(operation));
            }
            drop(conn);
            // What came with the last moment counts.
            let waited = tokio::time::timeout_at(until, changes.changed()).await;
            is_last_look = waited.is_err();
        }
    }

    /// For workers: the oldest dry run that nobody works on, for `lease`.
    pub async fn take_comparison(&self, lease: Duration) -> DomainResult<Option<Comparison>> {
        let mut conn = self.db().acquire().await?;
        let since = self.now() - COMPARISONS_WANTED;
        let taken = branch_comparisons::take(&mut conn, lease.as_secs_f64(), since).await?;
        taken
            .map(|taken| {
                Ok(Comparison {
                    id: taken.id,
                    branch: taken.project,
                    direction: taken.direction,
                    resolutions: serde_json::from_value(taken.resolutions)
                        .map_err(DomainError::internal)?,
                    attempts: taken.attempts,
                })
            })
            .transpose()
    }

    /// For workers: keeps a dry run that was taken for `lease` more.
    pub async fn extend_comparison(&self, id: ComparisonId, lease: Duration) -> DomainResult<bool> {
        let mut conn = self.db().acquire().await?;
        Ok(branch_comparisons::extend(&mut conn, id, lease.as_secs_f64()).await?)
    }

    /// Ends a dry run; whoever waits for it is told.
    pub async fn end_comparison(
        &self,
        id: ComparisonId,
        result: &Result<Value, Failure>,
    ) -> DomainResult<()> {
        let mut tx = self.db().begin().await?;
        branch_comparisons::mark_ended(&mut tx, id, result, self.now()).await?;
        commit(tx).await
    }

    /// Wakes when a dry run was asked for.
    pub fn subscribe_comparisons(&self) -> tokio::sync::watch::Receiver<u64> {
        self.db()
            .notifications()
            .subscribe(Topic::Comparisons, "new")
    }

    /// Keeps what a merge is about to do, or why it does not.
    pub async fn record_merge_diff(
        &self,
        lease: &Lease,
        resolutions: &Resolutions,
        diff: &Value,
    ) -> DomainResult<()> {
        let mut tx = self.begin_under(lease).await?;
        branch_comparisons::insert_of_merge(
            &mut tx,
            ComparisonId::generate(),
            lease.project,
            lease.operation,
            &json!(resolutions),
            diff,
            self.now(),
        )
        .await?;
        commit(tx).await
    }
}
