//! Wake-up messages for the worker, carried by apalis. A message holds an operation id and nothing
//! else, and is pushed by the transaction that made the operation due: either both are there or
//! neither. A message too many finds nothing to do; one too few is sent again by the sweeper.

use apalis_postgres::PostgresStorage;
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

/// Whether a message for the operation is still on its way, so that the sweeper need not send
/// another one.
pub async fn is_pending(conn: &mut PgConnection, operation: OperationId) -> StorageResult<bool> {
    Ok(sqlx::query_scalar(
        "select exists (select 1 from apalis.jobs where job_type = $1 and job = $2 and status = 'Pending')",
    )
    .bind(QUEUE)
    .bind(format!("\"{operation}\"").into_bytes())
    .fetch_one(conn)
    .await?)
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
