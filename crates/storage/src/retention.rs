//! What is thrown away, and partitions made ahead.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgConnection;

use crate::error::StorageResult;

/// Most rows deleted by one call, so that a long backlog is no long transaction.
pub const BATCH: u64 = 5_000;

pub async fn delete_idempotency_keys(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "delete from idempotency_keys where (partner_id, key) in
             (select partner_id, key from idempotency_keys where created_at < $1 limit $2)",
        before,
        BATCH.cast_signed()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

pub async fn delete_finished_operations(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
) -> StorageResult<u64> {
    // A failed operation of a living project stays: it is what an operator retries.
    let done = sqlx::query!(
        "delete from operations where id in
             (select o.id from operations o join projects p on p.id = o.project_id
              where o.finished_at < $1 and (o.state <> 'failed' or p.status <> 'failed') limit $2)",
        before,
        BATCH.cast_signed()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

pub async fn delete_rate_limit_windows(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "delete from rate_limit_windows where window_start < $1",
        before
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

pub async fn ensure_audit_partitions(
    conn: &mut PgConnection,
    first: NaiveDate,
    months: i32,
) -> StorageResult<()> {
    sqlx::query!("select ensure_audit_partitions($1, $2)", first, months)
        .execute(conn)
        .await?;
    Ok(())
}
