//! Applications that people sign in to with us, and the secrets of the confidential ones.

use chrono::{DateTime, Utc};
use cp_model::{ClientId, OAuthClient, Scopes};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{StorageError, StorageResult, parse};
use crate::notifications::{Topic, notify};

struct ClientRow {
    id: String,
    name: String,
    kind: String,
    redirect_uris: Vec<String>,
    scopes: Vec<String>,
    first_party: bool,
    device_grant: bool,
    rate_limit: i32,
    logo_url: Option<String>,
    color: Option<String>,
    homepage_url: Option<String>,
    disabled_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl TryFrom<ClientRow> for OAuthClient {
    type Error = StorageError;
    fn try_from(row: ClientRow) -> StorageResult<Self> {
        Ok(Self {
            id: parse("oauth_clients", "id", &row.id)?,
            name: row.name,
            kind: parse("oauth_clients", "kind", &row.kind)?,
            redirect_uris: row.redirect_uris,
            scopes: Scopes::from_texts(&row.scopes),
            first_party: row.first_party,
            device_grant: row.device_grant,
            rate_limit: u32::try_from(row.rate_limit).unwrap_or(1),
            logo_url: row.logo_url,
            color: row.color,
            homepage_url: row.homepage_url,
            disabled_at: row.disabled_at,
            created_at: row.created_at,
        })
    }
}

/// Selects clients `c` by the rest of a statement.
macro_rules! query_clients {
    ($rest:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            ClientRow,
            "select c.id, c.name, c.kind, c.redirect_uris, c.scopes, c.first_party, c.device_grant, c.rate_limit, \
                    c.logo_url, c.color, c.homepage_url, c.disabled_at, c.created_at from oauth_clients c " + $rest
            $(, $arg)*
        )
    };
}

pub async fn insert_client(conn: &mut PgConnection, client: &OAuthClient) -> StorageResult<()> {
    sqlx::query!(
        "insert into oauth_clients (id, name, kind, redirect_uris, scopes, first_party, device_grant, rate_limit,
                                    logo_url, color, homepage_url, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        client.id.as_str(),
        client.name,
        client.kind.as_str(),
        &client.redirect_uris,
        &client.scopes.to_texts(),
        client.first_party,
        client.device_grant,
        i32::try_from(client.rate_limit).unwrap_or(i32::MAX),
        client.logo_url,
        client.color,
        client.homepage_url,
        client.created_at
    )
    .execute(&mut *conn)
    .await?;
    notify(conn, Topic::OAuthClients, client.id.as_str()).await
}

pub async fn find_client(
    conn: &mut PgConnection,
    id: &ClientId,
) -> StorageResult<Option<OAuthClient>> {
    query_clients!("where c.id = $1", id.as_str())
        .fetch_optional(conn)
        .await?
        .map(OAuthClient::try_from)
        .transpose()
}

/// Locks the client until the transaction ends: two rotations of its secret take turns.
pub async fn lock_client(
    conn: &mut PgConnection,
    id: &ClientId,
) -> StorageResult<Option<OAuthClient>> {
    query_clients!("where c.id = $1 for no key update", id.as_str())
        .fetch_optional(conn)
        .await?
        .map(OAuthClient::try_from)
        .transpose()
}

pub async fn list_clients(conn: &mut PgConnection) -> StorageResult<Vec<OAuthClient>> {
    query_clients!("order by c.created_at, c.id")
        .fetch_all(conn)
        .await?
        .into_iter()
        .map(OAuthClient::try_from)
        .collect()
}

pub async fn list_clients_by_id(
    conn: &mut PgConnection,
    ids: &[String],
) -> StorageResult<Vec<OAuthClient>> {
    query_clients!("where c.id = any($1) order by lower(c.name), c.id", ids)
        .fetch_all(conn)
        .await?
        .into_iter()
        .map(OAuthClient::try_from)
        .collect()
}

/// A secret of a client that has not ended.
pub struct LiveSecret {
    pub hash: Vec<u8>,
    pub expires_at: Option<DateTime<Utc>>,
}

pub async fn list_live_secrets(
    conn: &mut PgConnection,
    client: &ClientId,
    now: DateTime<Utc>,
) -> StorageResult<Vec<LiveSecret>> {
    Ok(sqlx::query_as!(
        LiveSecret,
        "select hash, expires_at from oauth_client_secrets
         where client_id = $1 and (expires_at is null or expires_at > $2)",
        client.as_str(),
        now
    )
    .fetch_all(conn)
    .await?)
}

pub async fn insert_secret(
    conn: &mut PgConnection,
    client: &ClientId,
    hash: &[u8],
    now: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "insert into oauth_client_secrets (id, client_id, hash, created_at) values ($1, $2, $3, $4)",
        Uuid::now_v7(),
        client.as_str(),
        hash,
        now
    )
    .execute(&mut *conn)
    .await?;
    notify(conn, Topic::OAuthClients, client.as_str()).await
}

/// Lets the client's newest secret end at `at`, and at once what was ending already: a client has
/// two live secrets at most. Gives how many go on until `at`.
pub async fn expire_secrets(
    conn: &mut PgConnection,
    client: &ClientId,
    at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> StorageResult<u64> {
    sqlx::query!(
        "update oauth_client_secrets set expires_at = $2 where client_id = $1 and expires_at > $2",
        client.as_str(),
        now
    )
    .execute(&mut *conn)
    .await?;
    let done = sqlx::query!(
        "update oauth_client_secrets set expires_at = $2 where client_id = $1 and expires_at is null",
        client.as_str(),
        at
    )
    .execute(&mut *conn)
    .await?;
    notify(conn, Topic::OAuthClients, client.as_str()).await?;
    Ok(done.rows_affected())
}

pub async fn mark_disabled(
    conn: &mut PgConnection,
    client: &ClientId,
    at: Option<DateTime<Utc>>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update oauth_clients set disabled_at = $2 where id = $1",
        client.as_str(),
        at
    )
    .execute(&mut *conn)
    .await?;
    notify(conn, Topic::OAuthClients, client.as_str()).await?;
    Ok(done.rows_affected() == 1)
}
