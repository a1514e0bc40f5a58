//! Proofs, asked for by mail, that a person reads an address.

use chrono::{DateTime, Utc};
use cp_model::UserId;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::StorageResult;

/// A challenge that begins.
#[derive(Debug)]
pub struct NewChallenge<'a> {
    pub id: Uuid,
    pub user: UserId,
    /// `verify_email`, `first_login` or `reset_password`.
    pub purpose: &'a str,
    /// SHA-256 of the secret in the link.
    pub link_hash: &'a [u8],
    /// Keyed hash of the digits; none where only the link counts.
    pub code_hash: Option<&'a [u8]>,
    pub now: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

/// A challenge that can still be met.
#[derive(Debug, Clone)]
pub struct OpenChallenge {
    pub id: Uuid,
    pub user: UserId,
    pub purpose: String,
}

/// One try of a code, taken from those that a challenge allows.
#[derive(Debug)]
pub struct CodeAttempt {
    pub user: UserId,
    pub purpose: String,
    pub code_hash: Vec<u8>,
}

pub async fn insert_challenge(
    conn: &mut PgConnection,
    new: &NewChallenge<'_>,
) -> StorageResult<()> {
    sqlx::query!(
        "insert into email_challenges (id, user_id, purpose, link_hash, code_hash, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7)",
        new.id,
        new.user.0,
        new.purpose,
        new.link_hash,
        new.code_hash,
        new.now,
        new.expires_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes one of the `most` attempts at a code before anything is compared, so that any number of
/// guesses at once are no more than `most`.
pub async fn take_attempt(
    conn: &mut PgConnection,
    id: Uuid,
    most: i32,
    now: DateTime<Utc>,
) -> StorageResult<Option<CodeAttempt>> {
    let row = sqlx::query!(
        r#"update email_challenges set attempts = attempts + 1
           where id = $1 and used_at is null and expires_at > $3 and attempts < $2 and code_hash is not null
           returning user_id, purpose, code_hash as "code_hash!""#,
        id,
        most,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| CodeAttempt {
        user: UserId(row.user_id),
        purpose: row.purpose,
        code_hash: row.code_hash,
    }))
}

pub async fn find_open_by_link(
    conn: &mut PgConnection,
    link_hash: &[u8],
    now: DateTime<Utc>,
) -> StorageResult<Option<OpenChallenge>> {
    let row = sqlx::query!(
        "select id, user_id, purpose from email_challenges
         where link_hash = $1 and used_at is null and expires_at > $2",
        link_hash,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| OpenChallenge {
        id: row.id,
        user: UserId(row.user_id),
        purpose: row.purpose,
    }))
}

/// The challenge if nobody has met it, though it may have expired.
pub async fn find_unused(
    conn: &mut PgConnection,
    id: Uuid,
    created_after: DateTime<Utc>,
) -> StorageResult<Option<OpenChallenge>> {
    let row = sqlx::query!(
        "select id, user_id, purpose from email_challenges
         where id = $1 and used_at is null and created_at > $2",
        id,
        created_after
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| OpenChallenge {
        id: row.id,
        user: UserId(row.user_id),
        purpose: row.purpose,
    }))
}

/// Uses the challenge up. False: somebody did before, or it has expired. `by_code`: its last
/// attempt was the right one and is not counted among the wrong.
pub async fn mark_used(
    conn: &mut PgConnection,
    id: Uuid,
    by_code: bool,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update email_challenges set used_at = $3, attempts = greatest(attempts - $2::int, 0)
         where id = $1 and used_at is null and expires_at > $3",
        id,
        i32::from(by_code),
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends what is still open for the person.
pub async fn mark_all_used(
    conn: &mut PgConnection,
    user: UserId,
    now: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "update email_challenges set used_at = $2 where user_id = $1 and used_at is null",
        user.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// How many wrong codes were tried on the person's challenges since then.
pub async fn count_wrong_codes(
    conn: &mut PgConnection,
    user: UserId,
    since: DateTime<Utc>,
) -> StorageResult<i64> {
    let count = sqlx::query_scalar!(
        "select sum(attempts) from email_challenges where user_id = $1 and created_at > $2",
        user.0,
        since
    )
    .fetch_one(conn)
    .await?;
    Ok(count.unwrap_or(0))
}
