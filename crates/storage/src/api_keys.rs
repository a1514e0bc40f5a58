//! People's API keys (`uak_…`).

use chrono::{DateTime, Utc};
use cp_model::{ApiKeyId, Scopes, UserId};
use sqlx::PgConnection;

use crate::accounts::UserRecord;
use crate::error::StorageResult;

/// A key without its secret.
#[derive(Debug, Clone)]
pub struct ApiKeyRecord {
    pub id: ApiKeyId,
    pub name: String,
    /// The last four characters of the secret.
    pub hint: String,
    /// None: everything that the person may do.
    pub scopes: Option<Scopes>,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A live key and whose it is.
pub struct LiveApiKey {
    pub id: ApiKeyId,
    pub scopes: Option<Scopes>,
    pub last_used_at: Option<DateTime<Utc>>,
    pub user: UserRecord,
}

pub async fn insert_key(
    conn: &mut PgConnection,
    user: UserId,
    key: &ApiKeyRecord,
    hash: &[u8],
) -> StorageResult<()> {
    let scopes = key.scopes.as_ref().map(Scopes::to_texts);
    sqlx::query!(
        "insert into user_api_keys (id, user_id, name, hash, hint, scopes, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        key.id.0,
        user.0,
        key.name,
        hash,
        key.hint,
        scopes.as_deref(),
        key.created_at,
        key.expires_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The live key with this hash, of an account that is not disabled.
pub async fn find_key(
    conn: &mut PgConnection,
    hash: &[u8],
    now: DateTime<Utc>,
) -> StorageResult<Option<LiveApiKey>> {
    let row = sqlx::query!(
        "select k.id as key_id, k.scopes, k.last_used_at,
                u.id, u.email, u.name, u.avatar_url, u.password_hash, u.email_verified_at, u.disabled_at, u.created_at
         from user_api_keys k join users u on u.id = k.user_id
         where k.hash = $1 and k.revoked_at is null and (k.expires_at is null or k.expires_at > $2)
           and u.disabled_at is null",
        hash,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| LiveApiKey {
        id: ApiKeyId(row.key_id),
        scopes: row.scopes.as_deref().map(Scopes::from_texts),
        last_used_at: row.last_used_at,
        user: UserRecord {
            id: UserId(row.id),
            email: row.email,
            name: row.name,
            avatar_url: row.avatar_url,
            password_hash: row.password_hash,
            email_verified_at: row.email_verified_at,
            disabled_at: row.disabled_at,
            created_at: row.created_at,
        },
    }))
}

pub async fn mark_used(
    conn: &mut PgConnection,
    id: ApiKeyId,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update user_api_keys set last_used_at = $2
         where id = $1 and revoked_at is null and (last_used_at is null or last_used_at < $2)",
        id.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The person's keys that are not revoked, expired ones included, the newest first.
pub async fn list_keys(conn: &mut PgConnection, user: UserId) -> StorageResult<Vec<ApiKeyRecord>> {
    let rows = sqlx::query!(
        "select id, name, hint, scopes, created_at, expires_at, last_used_at from user_api_keys
         where user_id = $1 and revoked_at is null order by created_at desc, id desc",
        user.0
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ApiKeyRecord {
            id: ApiKeyId(row.id),
            name: row.name,
            hint: row.hint,
            scopes: row.scopes.as_deref().map(Scopes::from_texts),
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
        })
        .collect())
}

/// How many keys the person has that are not revoked.
pub async fn count_keys(conn: &mut PgConnection, user: UserId) -> StorageResult<i64> {
    let count = sqlx::query_scalar!(
        "select count(*) from user_api_keys where user_id = $1 and revoked_at is null",
        user.0
    )
    .fetch_one(conn)
    .await?;
    Ok(count.unwrap_or(0))
}

/// Ends one key of the person. False: they have no such key.
pub async fn mark_revoked(
    conn: &mut PgConnection,
    user: UserId,
    id: ApiKeyId,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update user_api_keys set revoked_at = $3 where user_id = $1 and id = $2 and revoked_at is null",
        user.0,
        id.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn mark_all_revoked(
    conn: &mut PgConnection,
    user: UserId,
    now: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "update user_api_keys set revoked_at = $2 where user_id = $1 and revoked_at is null",
        user.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

pub async fn is_live(
    conn: &mut PgConnection,
    user: UserId,
    id: ApiKeyId,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let found = sqlx::query_scalar!(
        "select exists (select 1 from user_api_keys where user_id = $1 and id = $2 and revoked_at is null
                        and (expires_at is null or expires_at > $3))",
        user.0,
        id.0,
        now
    )
    .fetch_one(conn)
    .await?;
    Ok(found.unwrap_or(false))
}
