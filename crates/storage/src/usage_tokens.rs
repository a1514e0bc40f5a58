//! Tokens of the services that post usage events.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::StorageResult;

/// A token as operators see it.
#[derive(Debug, Clone)]
pub struct UsageTokenSummary {
    pub name: String,
    pub sources: Vec<String>,
    pub created_at: DateTime<Utc>,
    pub revoked_at: Option<DateTime<Utc>>,
}

/// False: a live token has this name.
pub async fn insert_token(
    conn: &mut PgConnection,
    name: &str,
    sources: &[String],
    token_hash: &[u8],
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "insert into usage_tokens (id, name, sources, token_hash, created_at) values ($1, $2, $3, $4, $5)
         on conflict (name) where revoked_at is null do nothing",
        Uuid::now_v7(),
        name,
        sources,
        token_hash,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Name and sources of the service that has this token.
pub async fn find_live(
    conn: &mut PgConnection,
    token_hash: &[u8],
) -> StorageResult<Option<(String, Vec<String>)>> {
    let row = sqlx::query!(
        "select name, sources from usage_tokens where token_hash = $1 and revoked_at is null",
        token_hash
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.name, row.sources)))
}

pub async fn list_tokens(conn: &mut PgConnection) -> StorageResult<Vec<UsageTokenSummary>> {
    Ok(sqlx::query_as!(
        UsageTokenSummary,
        "select name, sources, created_at, revoked_at from usage_tokens order by created_at, id"
    )
    .fetch_all(conn)
    .await?)
}

/// False: no live token has this name.
pub async fn mark_revoked(
    conn: &mut PgConnection,
    name: &str,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update usage_tokens set revoked_at = $2 where name = $1 and revoked_at is null",
        name,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
