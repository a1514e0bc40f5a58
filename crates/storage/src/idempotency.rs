//! The first answers to requests with an `Idempotency-Key`.

use chrono::{DateTime, Utc};
use cp_model::PartnerId;
use serde_json::Value;
use sqlx::PgConnection;

use crate::error::StorageResult;

pub struct IdempotencyRecord {
    pub fingerprint: Vec<u8>,
    pub effect: Option<Value>,
    pub status: Option<i16>,
    pub body_sealed: Option<Vec<u8>>,
    pub locked_until: DateTime<Utc>,
}

pub async fn find_key(
    conn: &mut PgConnection,
    partner: &PartnerId,
    key: &str,
    not_before: DateTime<Utc>,
) -> StorageResult<Option<IdempotencyRecord>> {
    Ok(sqlx::query_as!(
        IdempotencyRecord,
        "select fingerprint, effect, status, body_sealed, locked_until from idempotency_keys
         where partner_id = $1 and key = $2 and created_at >= $3",
        partner.as_str(),
        key,
        not_before
    )
    .fetch_optional(conn)
    .await?)
}

/// Takes the key for this transaction's effect. False: somebody else has it (or had it, within
/// the time that answers are kept).
pub async fn insert_key(
    conn: &mut PgConnection,
    partner: &PartnerId,
    key: &str,
    fingerprint: &[u8],
    locked_until: DateTime<Utc>,
    now: DateTime<Utc>,
    not_before: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "insert into idempotency_keys as k (partner_id, key, fingerprint, locked_until, created_at)
         values ($1, $2, $3, $4, $5)
         on conflict (partner_id, key) do update set
             fingerprint = $3, locked_until = $4, created_at = $5, effect = null, status = null, body_sealed = null
         where k.created_at < $6",
        partner.as_str(),
        key,
        fingerprint,
        locked_until,
        now,
        not_before
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn set_effect(
    conn: &mut PgConnection,
    partner: &PartnerId,
    key: &str,
    effect: &Value,
) -> StorageResult<()> {
    sqlx::query!(
        "update idempotency_keys set effect = $3 where partner_id = $1 and key = $2",
        partner.as_str(),
        key,
        effect
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps the answer; the first one stays.
pub async fn set_answer(
    conn: &mut PgConnection,
    partner: &PartnerId,
    key: &str,
    status: i16,
    body_sealed: &[u8],
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update idempotency_keys set status = $3, body_sealed = $4
         where partner_id = $1 and key = $2 and status is null",
        partner.as_str(),
        key,
        status,
        body_sealed
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes the lock of a key whose process died before it kept the answer.
pub async fn relock(
    conn: &mut PgConnection,
    partner: &PartnerId,
    key: &str,
    now: DateTime<Utc>,
    locked_until: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update idempotency_keys set locked_until = $4
         where partner_id = $1 and key = $2 and status is null and locked_until < $3",
        partner.as_str(),
        key,
        now,
        locked_until
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
