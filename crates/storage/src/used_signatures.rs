//! Calls that backends signed, so that none is done twice.

use chrono::{DateTime, Utc};
use cp_model::ProjectId;
use sqlx::PgConnection;

use crate::error::StorageResult;
use crate::retention::BATCH;

/// Notes a call; gives when it was first made, if it was.
pub async fn insert_signature(
    conn: &mut PgConnection,
    project: ProjectId,
    digest: &[u8],
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> StorageResult<Option<DateTime<Utc>>> {
    // The update changes nothing; it makes a row that was there be returned, too.
    let first_used_at = sqlx::query_scalar!(
        "insert into used_signatures as u (project_id, digest, first_used_at, expires_at) values ($1, $2, $3, $4)
         on conflict (project_id, digest) do update set expires_at = u.expires_at
         returning case when xmax = 0 then null else u.first_used_at end",
        project.0,
        digest,
        now,
        expires_at
    )
    .fetch_one(conn)
    .await?;
    Ok(first_used_at)
}

pub async fn delete_expired(conn: &mut PgConnection, now: DateTime<Utc>) -> StorageResult<u64> {
    let done = sqlx::query!(
        "delete from used_signatures where (project_id, digest) in
             (select project_id, digest from used_signatures where expires_at < $1 limit $2)",
        now,
        BATCH.cast_signed()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
