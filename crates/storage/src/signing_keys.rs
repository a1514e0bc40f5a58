//! The RSA keys that sign project authorizations; private parts sealed.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use crate::error::StorageResult;
use crate::notifications::{Topic, notify};

/// A key as it is stored. `private_sealed` is none once it is retired.
pub struct SigningKeyRecord {
    pub kid: String,
    /// `next`, `active`, `retiring` or `retired`.
    pub state: String,
    pub public_jwk: Value,
    pub private_sealed: Option<Vec<u8>>,
    pub created_at: DateTime<Utc>,
    pub activated_at: Option<DateTime<Utc>>,
    pub retiring_since: Option<DateTime<Utc>>,
}

pub async fn list_keys(
    conn: &mut PgConnection,
    with_retired: bool,
) -> StorageResult<Vec<SigningKeyRecord>> {
    Ok(sqlx::query_as!(
        SigningKeyRecord,
        "select kid, state, public_jwk, private_sealed, created_at, activated_at, retiring_since
         from signing_keys where $1 or state <> 'retired' order by created_at, kid",
        with_retired
    )
    .fetch_all(conn)
    .await?)
}

/// Makes this transaction the only one that changes keys until it ends.
pub async fn lock_keys(conn: &mut PgConnection) -> StorageResult<()> {
    sqlx::query("select pg_advisory_xact_lock(hashtext('signing_keys'))")
        .execute(conn)
        .await?;
    Ok(())
}

pub async fn insert_key(
    conn: &mut PgConnection,
    kid: &str,
    public_jwk: &Value,
    private_sealed: &[u8],
    active: bool,
    now: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "insert into signing_keys (kid, state, public_jwk, private_sealed, created_at, activated_at)
         values ($1, case when $5 then 'active' else 'next' end, $2, $3, $4::timestamptz, case when $5 then $4::timestamptz end)",
        kid,
        public_jwk,
        private_sealed,
        now,
        active
    )
    .execute(&mut *conn)
    .await?;
    notify(conn, Topic::SigningKeys, kid).await
}

/// The active key stops signing but stays published; the given next one signs from now on.
pub async fn activate_next(
    conn: &mut PgConnection,
    kid: &str,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    sqlx::query!(
        "update signing_keys set state = 'retiring', retiring_since = $1 where state = 'active'",
        now
    )
    .execute(&mut *conn)
    .await?;
    let done = sqlx::query!(
        "update signing_keys set state = 'active', activated_at = $2 where kid = $1 and state = 'next'",
        kid,
        now
    )
    .execute(&mut *conn)
    .await?;
    notify(conn, Topic::SigningKeys, kid).await?;
    Ok(done.rows_affected() == 1)
}

/// Takes a retiring key out of the published set and forgets its private part.
pub async fn mark_retired(
    conn: &mut PgConnection,
    kid: &str,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update signing_keys set state = 'retired', retired_at = $2, private_sealed = null
         where kid = $1 and state = 'retiring'",
        kid,
        now
    )
    .execute(&mut *conn)
    .await?;
    notify(conn, Topic::SigningKeys, kid).await?;
    Ok(done.rows_affected() == 1)
}
