//! Comparisons of a branch with its parent: asked for by the API, made by workers, which alone reach
//! machines. Leases compare database time with database time.

use chrono::{DateTime, Utc};
use cp_model::{ComparisonId, Failure, MergeDirection, OperationId, ProjectId};
use serde_json::Value;
use sqlx::PgConnection;

use crate::error::{StorageResult, parse};
use crate::notifications::{Topic, notify};
use crate::retention::BATCH;

/// A comparison that a worker has taken.
pub struct TakenComparison {
    pub id: ComparisonId,
    pub project: ProjectId,
    pub direction: MergeDirection,
    /// Name of a conflict to side, as JSON.
    pub resolutions: Value,
    pub attempts: i32,
}

/// What became of a comparison.
pub struct ComparisonResult {
    /// None until it has ended well.
    pub diff: Option<Value>,
    /// None until it has ended badly.
    pub failure: Option<Failure>,
}

/// Queues a dry run and wakes the workers when the transaction commits.
pub async fn insert_dry_run(
    conn: &mut PgConnection,
    id: ComparisonId,
    project: ProjectId,
    direction: MergeDirection,
    resolutions: &Value,
    now: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "insert into branch_comparisons (id, project_id, direction, resolutions, state, created_at)
         values ($1, $2, $3, $4, 'waiting', $5)",
        id.0,
        project.0,
        direction.as_str(),
        resolutions,
        now
    )
    .execute(&mut *conn)
    .await?;
    notify(conn, Topic::Comparisons, "new").await
}

/// Keeps what a merge is about to do, or why it does not: one that is taken up again after its commit
/// would find nothing to do.
pub async fn insert_of_merge(
    conn: &mut PgConnection,
    id: ComparisonId,
    project: ProjectId,
    operation: OperationId,
    resolutions: &Value,
    diff: &Value,
    now: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "insert into branch_comparisons (id, project_id, resolutions, operation_id, state, diff, created_at, finished_at)
         values ($1, $2, $3, $4, 'done', $5, $6, $6)",
        id.0,
        project.0,
        resolutions,
        operation.0,
        diff,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What the newest comparison of this merge found.
pub async fn find_diff_of_merge(
    conn: &mut PgConnection,
    operation: OperationId,
) -> StorageResult<Option<Value>> {
    let diff = sqlx::query_scalar!(
        "select diff from branch_comparisons where operation_id = $1 and state = 'done' order by created_at desc, id desc limit 1",
        operation.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(diff.flatten())
}

/// Takes the oldest dry run that nobody works on, for `seconds`. One that was asked for before `since` is left:
/// nobody waits for it any more.
pub async fn take(
    conn: &mut PgConnection,
    seconds: f64,
    since: DateTime<Utc>,
) -> StorageResult<Option<TakenComparison>> {
    let row = sqlx::query!(
        "update branch_comparisons set state = 'running', attempts = attempts + 1,
                lease_until = clock_timestamp() + make_interval(secs => $1)
         where id = (select id from branch_comparisons
                     where created_at >= $2
                       and (state = 'waiting' or (state = 'running' and lease_until < clock_timestamp()))
                     order by created_at limit 1 for update skip locked)
         returning id, project_id, direction, resolutions, attempts",
        seconds,
        since
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        Ok(TakenComparison {
            id: ComparisonId(row.id),
            project: ProjectId(row.project_id),
            direction: parse("branch_comparisons", "direction", &row.direction)?,
            resolutions: row.resolutions,
            attempts: row.attempts,
        })
    })
    .transpose()
}

/// Keeps a comparison that was taken for `seconds` more.
pub async fn extend(
    conn: &mut PgConnection,
    id: ComparisonId,
    seconds: f64,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update branch_comparisons set lease_until = clock_timestamp() + make_interval(secs => $2)
         where id = $1 and state = 'running'",
        id.0,
        seconds
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends a comparison, once.
pub async fn mark_ended(
    conn: &mut PgConnection,
    id: ComparisonId,
    result: &Result<Value, Failure>,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let (state, diff, failure) = match result {
        Ok(diff) => ("done", Some(diff), None),
        Err(failure) => ("failed", None, Some(failure)),
    };
    let done = sqlx::query!(
        "update branch_comparisons set state = $2, diff = $3, error_code = $4, error_message = $5, finished_at = $6,
                lease_until = null
         where id = $1 and state in ('waiting', 'running')",
        id.0,
        state,
        diff,
        failure.map(|f| f.code.as_str()),
        failure.map(|f| f.message.as_str()),
        now
    )
    .execute(&mut *conn)
    .await?;
    notify(conn, Topic::Comparisons, &id.to_string()).await?;
    Ok(done.rows_affected() == 1)
}

/// Whoever asks has found the branch as a tenant.
pub async fn find_result(
    conn: &mut PgConnection,
    id: ComparisonId,
) -> StorageResult<Option<ComparisonResult>> {
    let row = sqlx::query!(
        "select diff, error_code, error_message from branch_comparisons where id = $1",
        id.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| ComparisonResult {
        diff: row.diff,
        failure: row
            .error_code
            .map(|code| Failure::new(&code, row.error_message.unwrap_or_default())),
    }))
}

/// With the branch: its diffs hold what its people wrote, and nobody can see them any more.
pub async fn delete_of_branch(conn: &mut PgConnection, branch: ProjectId) -> StorageResult<()> {
    sqlx::query!(
        "delete from branch_comparisons where project_id = $1",
        branch.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// In a batch: old ones, for nobody looks at them again. At dry runs only who asked for them does. Gives how many.
pub async fn delete_ended(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
    dry_runs_before: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "delete from branch_comparisons where id in (select id from branch_comparisons
             where created_at < $1 or (operation_id is null and created_at < $2) limit $3)",
        before,
        dry_runs_before,
        BATCH.cast_signed()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
