//! Wake-up messages for the worker, carried by apalis. A message holds an operation id and nothing
//! else, and is pushed by the transaction that made the operation due: either both are there or
//! neither. A message too many finds nothing to do; one too few is sent again by the sweeper.

use apalis_postgres::PostgresStorage;
use chrono::{DateTime, Utc};
use cp_model::OperationId;
use sqlx::{PgConnection, PgPool};

use crate::error::{StorageError, StorageResult};

/// The queue's name (apalis calls it the job type).
pub const QUEUE: &str = "operations";

/// What apalis's insert trigger notifies.
pub const CHANNEL: &str = "apalis::job::insert";

/// Brings the tables of schema `apalis` up to date. They have a ledger of their own.
pub(crate) async fn migrate(pool: &PgPool) -> StorageResult<()> {
    PostgresStorage::<()>::setup(pool)
        .await
        .map_err(|e| StorageError::Migration(format!("the queue's tables: {e}")))
}

/// Sends a wake-up when the transaction commits. Inserting also notifies [`CHANNEL`].
///
/// Written out rather than through apalis's own sink, which takes `run_at` from this machine's
/// clock: one that runs ahead of the database would hide the message until then. The id must be
/// a ULID, or every later fetch fails; `max_attempts` is one, since apalis fetches a failed task
/// again at once and retries are ours. (Not checked at compile time: the table is apalis's.)
pub async fn push(conn: &mut PgConnection, operation: OperationId) -> StorageResult<()> {
    sqlx::query(
        "insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, priority)
         values (apalis.generate_ulid(), $1, convert_to(to_json($2::text)::text, 'UTF8'), 'Pending', 0, 1, now(), 0)",
    )
    .bind(QUEUE)
    .bind(operation.to_string())
    .execute(conn)
    .await?;
    Ok(())
}

/// Sends wake-ups for operations that are due, that nobody holds, and that have none on its way.
/// Gives how many, a thousand at most.
pub async fn push_due(conn: &mut PgConnection, now: DateTime<Utc>) -> StorageResult<u64> {
    let done = sqlx::query(
        "insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, priority)
         select apalis.generate_ulid(), $1, due.job, 'Pending', 0, 1, now(), 0
         from (select convert_to(to_json(id::text)::text, 'UTF8') as job from operations
               where state in ('queued', 'running', 'waiting') and next_attempt_at <= $2
                 and (lease_until is null or lease_until < clock_timestamp())
               order by next_attempt_at limit 1000) as due
         where not exists (select from apalis.jobs j
                           where j.job_type = $1 and j.status = 'Pending' and j.job = due.job)",
    )
    .bind(QUEUE)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Hands back what a worker fetched but did not finish, when it stops.
pub async fn release(conn: &mut PgConnection, worker: &str) -> StorageResult<u64> {
    let done = sqlx::query(
        "update apalis.jobs set status = 'Pending', lock_by = null, lock_at = null
         where lock_by = $1 and status in ('Queued', 'Running')",
    )
    .bind(worker)
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes messages that were handled and workers that are long gone: apalis keeps both for ever.
pub async fn delete_handled(conn: &mut PgConnection) -> StorageResult<u64> {
    let done = sqlx::query(
        "delete from apalis.jobs where id in
             (select id from apalis.jobs where job_type = $1 and status in ('Done', 'Killed', 'Failed')
              and done_at < now() - interval '1 minute' limit 5000)",
    )
    .bind(QUEUE)
    .execute(&mut *conn)
    .await?;
    // A live worker's row must stay: apalis ends a worker whose row is gone.
    sqlx::query(
        "delete from apalis.workers w where last_seen < now() - interval '1 hour'
         and not exists (select from apalis.jobs j where j.lock_by = w.id)",
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
