//! Questions that people asked an AI about their projects: that they did, not what.

use chrono::{DateTime, Utc};
use cp_model::{AnalysisId, ProjectId, UserId};
use sqlx::PgConnection;

use crate::error::StorageResult;
use crate::retention::BATCH;

/// A question that is about to be asked.
pub struct NewAnalysis {
    pub id: AnalysisId,
    pub project: ProjectId,
    pub user: UserId,
    /// Characters.
    pub question_length: i32,
    pub now: DateTime<Utc>,
}

/// How many the person asked since then, and when the first of them was. Holds the person's row until the transaction ends,
/// so that nobody asks one between counting and inserting.
pub async fn count_since(
    conn: &mut PgConnection,
    user: UserId,
    since: DateTime<Utc>,
) -> StorageResult<(i64, Option<DateTime<Utc>>)> {
    sqlx::query!(
        "select id from users where id = $1 for no key update",
        user.0
    )
    .fetch_optional(&mut *conn)
    .await?;
    let row = sqlx::query!(
        r#"select count(*) as "count!", min(started_at) as first from analyses
           where user_id = $1 and started_at > $2"#,
        user.0,
        since
    )
    .fetch_one(conn)
    .await?;
    Ok((row.count, row.first))
}

pub async fn insert_analysis(conn: &mut PgConnection, new: &NewAnalysis) -> StorageResult<()> {
    sqlx::query!(
        "insert into analyses (id, project_id, user_id, question_length, started_at) values ($1, $2, $3, $4, $5)",
        new.id.0,
        new.project.0,
        new.user.0,
        new.question_length,
        new.now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// It was answered, or was not. False: that is known already.
pub async fn mark_ended(
    conn: &mut PgConnection,
    user: UserId,
    id: AnalysisId,
    outcome: &str,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update analyses set outcome = $3, ended_at = $4 where user_id = $1 and id = $2 and outcome is null",
        user.0,
        id.0,
        outcome,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What the person who asked thinks of the answer; a later rating replaces an earlier one. False: they have asked no such.
pub async fn rate(
    conn: &mut PgConnection,
    user: UserId,
    id: AnalysisId,
    rating: &str,
    comment: Option<&str>,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update analyses set rating = $3, rating_comment = $4, rated_at = $5
         where user_id = $1 and id = $2",
        user.0,
        id.0,
        rating,
        comment,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn delete_started_before(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "delete from analyses where id in (select id from analyses where started_at < $1 limit $2)",
        before,
        BATCH.cast_signed()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
