//! What people have allowed applications, so that these need not ask again.

use chrono::{DateTime, Utc};
use cp_model::{ClientId, Scopes, UserId};
use sqlx::PgConnection;

use crate::error::{StorageResult, parse};

pub struct Consent {
    pub client: ClientId,
    pub scopes: Scopes,
    pub granted_at: DateTime<Utc>,
}

/// Adds the scopes to what the person has allowed the client so far.
pub async fn upsert_consent(
    conn: &mut PgConnection,
    user: UserId,
    client: &ClientId,
    scopes: &Scopes,
    now: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "insert into oauth_consents as c (user_id, client_id, scopes, granted_at) values ($1, $2, $3, $4)
         on conflict (user_id, client_id) do update set
             scopes = (select array_agg(distinct s order by s) from unnest(c.scopes || excluded.scopes) s),
             granted_at = excluded.granted_at",
        user.0,
        client.as_str(),
        &scopes.to_texts(),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn find_consent(
    conn: &mut PgConnection,
    user: UserId,
    client: &ClientId,
) -> StorageResult<Option<Scopes>> {
    let scopes = sqlx::query_scalar!(
        "select scopes from oauth_consents where user_id = $1 and client_id = $2",
        user.0,
        client.as_str()
    )
    .fetch_optional(conn)
    .await?;
    Ok(scopes.map(|texts| Scopes::from_texts(&texts)))
}

pub async fn list_consents(conn: &mut PgConnection, user: UserId) -> StorageResult<Vec<Consent>> {
    sqlx::query!(
        "select client_id, scopes, granted_at from oauth_consents where user_id = $1",
        user.0
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(|row| {
        Ok(Consent {
            client: parse("oauth_consents", "client_id", &row.client_id)?,
            scopes: Scopes::from_texts(&row.scopes),
            granted_at: row.granted_at,
        })
    })
    .collect()
}

pub async fn delete_consent(
    conn: &mut PgConnection,
    user: UserId,
    client: &ClientId,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "delete from oauth_consents where user_id = $1 and client_id = $2",
        user.0,
        client.as_str()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
