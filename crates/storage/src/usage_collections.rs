//! Which backends are to be asked for their usage, and since when.

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::ProjectId;
use sqlx::PgConnection;

use crate::error::StorageResult;

/// A collection that a collector has claimed.
#[derive(Debug, Clone)]
pub struct DueCollection {
    pub project: ProjectId,
    pub access_host: String,
    /// Usage before then is counted.
    pub collected_until: DateTime<Utc>,
    /// Failures since the last success.
    pub attempts: i32,
}

/// Plans the first collection of projects that have none, each at a random moment of the coming
/// period, so that an hour's questions are spread over the hour.
pub async fn insert_missing(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
    every: TimeDelta,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "insert into usage_collections (project_id, collected_until, next_attempt_at)
         select p.id, date_trunc('second', p.created_at), $1::timestamptz + random() * make_interval(secs => $2)
         from projects p left join usage_collections c on c.project_id = p.id
         where p.status = 'active' and c.project_id is null
         on conflict do nothing",
        now,
        every.as_seconds_f64()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Claims collections of active projects that are due: nobody else gets them until `until`.
pub async fn claim_due(
    conn: &mut PgConnection,
    limit: i64,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> StorageResult<Vec<DueCollection>> {
    let rows = sqlx::query!(
        r#"with due as (
             select c.project_id, p.access_host from usage_collections c join projects p on p.id = c.project_id
             where c.next_attempt_at <= $2 and p.status = 'active' and p.access_host is not null
             order by c.next_attempt_at limit $1 for update of c skip locked
           )
           update usage_collections c set next_attempt_at = $3 from due where c.project_id = due.project_id
           returning c.project_id, due.access_host as "access_host!", c.collected_until, c.attempts"#,
        limit,
        now,
        until
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| DueCollection {
            project: ProjectId(row.project_id),
            access_host: row.access_host,
            collected_until: row.collected_until,
            attempts: row.attempts,
        })
        .collect())
}

/// Usage before `until` is counted. False: somebody counted it meanwhile.
pub async fn mark_collected(
    conn: &mut PgConnection,
    project: ProjectId,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    next_attempt_at: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update usage_collections set collected_until = $3, next_attempt_at = $4, attempts = 0, last_error = null
         where project_id = $1 and collected_until <= $2 and collected_until < $3",
        project.0,
        from,
        until,
        next_attempt_at
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// There is nothing to ask for yet.
pub async fn postpone(
    conn: &mut PgConnection,
    project: ProjectId,
    next_attempt_at: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "update usage_collections set next_attempt_at = $2 where project_id = $1",
        project.0,
        next_attempt_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn mark_failed(
    conn: &mut PgConnection,
    project: ProjectId,
    error: &str,
    next_attempt_at: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "update usage_collections set attempts = attempts + 1, last_error = $2, next_attempt_at = $3 where project_id = $1",
        project.0,
        error,
        next_attempt_at
    )
    .execute(conn)
    .await?;
    Ok(())
}
