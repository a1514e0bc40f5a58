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

/// Browser sessions whose time was over before then. Ended ones go with them: their time runs on.
pub async fn delete_ended_browser_sessions(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "delete from browser_sessions where id in
             (select id from browser_sessions where expires_at < $1 limit $2)",
        before,
        BATCH.cast_signed()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Invitations that were answered or taken back before then, or whose time was over.
pub async fn delete_ended_invitations(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "delete from organization_invitations where id in
             (select id from organization_invitations where settled_at < $1 or expires_at < $1 limit $2)",
        before,
        BATCH.cast_signed()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

pub async fn delete_email_challenges(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "delete from email_challenges where id in
             (select id from email_challenges where created_at < $1 limit $2)",
        before,
        BATCH.cast_signed()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Mails that were sent or given up. Queued ones stay, however old.
pub async fn delete_done_mails(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "delete from mails where id in
             (select id from mails where state <> 'queued' and created_at < $1 limit $2)",
        before,
        BATCH.cast_signed()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Events for webhooks that were told or given up. Queued ones stay.
pub async fn delete_done_webhook_events(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "delete from webhook_events where id in
             (select id from webhook_events where state <> 'queued' and created_at < $1 limit $2)",
        before,
        BATCH.cast_signed()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// That limits were reached in periods that began before then; nobody looks at those any more.
pub async fn delete_usage_limit_crossings(
    conn: &mut PgConnection,
    before: NaiveDate,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "delete from usage_limit_crossings where period_start < $1",
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

/// Partitions of usage events for `first` to `first + days`, and of daily usage for their years.
pub async fn ensure_usage_partitions(
    conn: &mut PgConnection,
    first: NaiveDate,
    days: i32,
) -> StorageResult<()> {
    sqlx::query!("select ensure_usage_partitions($1, $2)", first, days)
        .execute(conn)
        .await?;
    Ok(())
}

/// Events that happened before that day. What was counted of them stays.
pub async fn drop_usage_events(conn: &mut PgConnection, before: NaiveDate) -> StorageResult<()> {
    sqlx::query!("select drop_usage_events($1)", before)
        .execute(conn)
        .await?;
    Ok(())
}

pub async fn delete_usage_event_keys(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "delete from usage_event_keys where key in
             (select key from usage_event_keys where received_at < $1 limit $2)",
        before,
        BATCH.cast_signed()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Plans to ask the backends of projects that are no more.
pub async fn delete_usage_collections(conn: &mut PgConnection) -> StorageResult<u64> {
    let done = sqlx::query!(
        "delete from usage_collections c using projects p where p.id = c.project_id and p.status = 'deleted'"
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

pub async fn delete_authorization_codes(
    conn: &mut PgConnection,
    expired_before: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "delete from oauth_authorization_codes where hash in
             (select hash from oauth_authorization_codes where expires_at < $1 limit $2)",
        expired_before,
        BATCH.cast_signed()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

pub async fn delete_device_codes(
    conn: &mut PgConnection,
    expired_before: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "delete from oauth_device_codes where hash in
             (select hash from oauth_device_codes where expires_at < $1 limit $2)",
        expired_before,
        BATCH.cast_signed()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// What is deleted is unknown from then on, where it would have told a replay before.
pub async fn delete_used_refresh_tokens(
    conn: &mut PgConnection,
    used_before: DateTime<Utc>,
) -> StorageResult<u64> {
    // A token is made before it is used; the index is on when it was made.
    let done = sqlx::query!(
        "delete from oauth_refresh_tokens where hash in
             (select hash from oauth_refresh_tokens where created_at < $1 and used_at < $1 limit $2)",
        used_before,
        BATCH.cast_signed()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes sign-ins that ended before `ended_before`, with their tokens; or that nobody has used
/// since `unused_since`, whose last refresh token expired that long ago.
pub async fn delete_ended_grants(
    conn: &mut PgConnection,
    ended_before: DateTime<Utc>,
    unused_since: DateTime<Utc>,
) -> StorageResult<u64> {
    let deleted = sqlx::query_scalar!(
        r#"with over as (
             select id from oauth_grants
             where revoked_at < $1 or expires_at < $1 or last_used_at < $2 limit $3
         ), codes as (
             update oauth_authorization_codes c set grant_id = null from over where c.grant_id = over.id
         ), tokens as (
             delete from oauth_refresh_tokens t using over where t.grant_id = over.id
         ), grants as (
             delete from oauth_grants g using over where g.id = over.id returning 1
         )
         select count(*) as "count!" from grants"#,
        ended_before,
        unused_since,
        BATCH.cast_signed()
    )
    .fetch_one(conn)
    .await?;
    Ok(deleted.unsigned_abs())
}
