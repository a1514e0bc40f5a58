//! Mails on their way. Whoever queues one does so in the transaction that makes it true; a worker
//! sends it later, so that a dead mail server loses nothing.

use chrono::{DateTime, Utc};
use cp_model::MailId;
use sqlx::PgConnection;

use crate::error::StorageResult;
use crate::notifications::{Topic, notify};

/// A mail that a sender has claimed.
pub struct ClaimedMail {
    pub id: MailId,
    pub recipient: String,
    pub content_sealed: Option<Vec<u8>>,
    /// When what it offers ends; none: never.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A mail to queue.
pub struct NewMail<'a> {
    pub id: MailId,
    pub recipient: &'a str,
    /// Which mail it is, for operators.
    pub kind: &'a str,
    pub content_sealed: &'a [u8],
    pub expires_at: Option<DateTime<Utc>>,
}

/// What decides whether a mail is tried again.
pub struct MailAttempts {
    pub attempts: i32,
    pub queued_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
}

pub async fn insert_mail(
    conn: &mut PgConnection,
    new: &NewMail<'_>,
    now: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "insert into mails (id, recipient, kind, content_sealed, state, next_attempt_at, created_at, expires_at)
         values ($1, $2, $3, $4, 'queued', $5, $5, $6)",
        new.id.0,
        new.recipient,
        new.kind,
        new.content_sealed,
        now,
        new.expires_at
    )
    .execute(&mut *conn)
    .await?;
    notify(conn, Topic::Mails, "").await
}

/// Claims mails that are due: nobody else gets them until `until`, when a sender that says nothing
/// is taken for dead.
pub async fn claim_due(
    conn: &mut PgConnection,
    limit: i64,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> StorageResult<Vec<ClaimedMail>> {
    let rows = sqlx::query!(
        "update mails set attempts = attempts + 1, next_attempt_at = $3
         where id in (select id from mails where state = 'queued' and next_attempt_at <= $2
                      order by next_attempt_at limit $1 for update skip locked)
         returning id, recipient, content_sealed, expires_at",
        limit,
        now,
        until
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ClaimedMail {
            id: MailId(row.id),
            recipient: row.recipient,
            content_sealed: row.content_sealed,
            expires_at: row.expires_at,
        })
        .collect())
}

/// The mail is out; its content is not kept.
pub async fn mark_sent(
    conn: &mut PgConnection,
    id: MailId,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update mails set state = 'sent', sent_at = $2, content_sealed = null, last_error = null
         where id = $1 and state = 'queued'",
        id.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// None: it is no longer queued.
pub async fn find_attempts(
    conn: &mut PgConnection,
    id: MailId,
) -> StorageResult<Option<MailAttempts>> {
    let row = sqlx::query!(
        "select attempts, created_at, expires_at from mails where id = $1 and state = 'queued'",
        id.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| MailAttempts {
        attempts: row.attempts,
        queued_at: row.created_at,
        expires_at: row.expires_at,
    }))
}

pub async fn mark_retry(
    conn: &mut PgConnection,
    id: MailId,
    error: &str,
    next_attempt_at: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update mails set next_attempt_at = $3, last_error = $2 where id = $1 and state = 'queued'",
        id.0,
        error,
        next_attempt_at
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Given up; its content is not kept.
pub async fn mark_failed(conn: &mut PgConnection, id: MailId, error: &str) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update mails set state = 'failed', last_error = $2, content_sealed = null
         where id = $1 and state = 'queued'",
        id.0,
        error
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
