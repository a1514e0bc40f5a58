//! Authorization codes (RFC 6749 section 4.1.2). Each is used by one UPDATE.
//!
//! Order of locks, here and in `oauth_devices`: the person first, then the code. Whoever ends
//! everything of a person (a reset password) locks the person's row, ends the sessions, then the
//! codes, then the grants. A code that is being issued or exchanged meanwhile is either seen by
//! them, or waits for them and then finds its session or itself ended.

use chrono::{DateTime, Utc};
use cp_model::{BrowserSessionId, ClientId, GrantId, Scopes, UserId};
use sqlx::PgConnection;

use crate::error::{StorageResult, parse};

/// Holds up whoever locks the person's row, until the transaction ends. False: the account is
/// disabled, or gone.
pub async fn hold_person(conn: &mut PgConnection, user: UserId) -> StorageResult<bool> {
    let found = sqlx::query_scalar!(
        "select id from users where id = $1 and disabled_at is null for key share",
        user.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

pub struct NewCode<'a> {
    pub hash: &'a [u8],
    pub client: &'a ClientId,
    pub user: UserId,
    /// In which the person allowed it.
    pub session: BrowserSessionId,
    pub redirect_uri: &'a str,
    pub code_challenge: &'a str,
    pub scopes: &'a Scopes,
    pub expires_at: DateTime<Utc>,
    pub now: DateTime<Utc>,
}

/// To be called after [`hold_person`]. False: the session has ended.
pub async fn insert_code(conn: &mut PgConnection, new: &NewCode<'_>) -> StorageResult<bool> {
    let done = sqlx::query!(
        "insert into oauth_authorization_codes
             (hash, client_id, user_id, redirect_uri, code_challenge, scopes, created_at, expires_at)
         select $1, $2, s.user_id, $5, $6, $7, $8, $9 from browser_sessions s
         where s.user_id = $3 and s.id = $4 and s.revoked_at is null and s.expires_at > $8",
        new.hash,
        new.client.as_str(),
        new.user.0,
        new.session.0,
        new.redirect_uri,
        new.code_challenge,
        &new.scopes.to_texts(),
        new.now,
        new.expires_at
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What a code stands for.
pub struct TakenCode {
    pub client: ClientId,
    pub user: UserId,
    pub redirect_uri: String,
    pub code_challenge: String,
    pub scopes: Scopes,
}

/// Uses the code: of any number of callers one gets it, and waiting ones see it used.
pub async fn take_code(
    conn: &mut PgConnection,
    hash: &[u8],
    now: DateTime<Utc>,
) -> StorageResult<Option<TakenCode>> {
    sqlx::query!(
        "with person as (
             select u.id from oauth_authorization_codes c join users u on u.id = c.user_id
             where c.hash = $1 for key share of u
         )
         update oauth_authorization_codes c set used_at = $2 from person
         where c.hash = $1 and c.user_id = person.id and c.used_at is null and c.expires_at > $2
         returning c.client_id, c.user_id, c.redirect_uri, c.code_challenge, c.scopes",
        hash,
        now
    )
    .fetch_optional(conn)
    .await?
    .map(|row| {
        Ok(TakenCode {
            client: parse("oauth_authorization_codes", "client_id", &row.client_id)?,
            user: UserId(row.user_id),
            redirect_uri: row.redirect_uri,
            code_challenge: row.code_challenge,
            scopes: Scopes::from_texts(&row.scopes),
        })
    })
    .transpose()
}

/// Remembers what the used code became, for the case that it is used again.
pub async fn set_grant(
    conn: &mut PgConnection,
    hash: &[u8],
    grant: GrantId,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update oauth_authorization_codes set grant_id = $2
         where hash = $1 and used_at is not null and grant_id is null",
        hash,
        grant.0
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What the first use of the code made.
pub async fn find_grant_of_used_code(
    conn: &mut PgConnection,
    hash: &[u8],
) -> StorageResult<Option<GrantId>> {
    let grant = sqlx::query_scalar!(
        "select grant_id from oauth_authorization_codes where hash = $1 and used_at is not null",
        hash
    )
    .fetch_optional(conn)
    .await?;
    Ok(grant.flatten().map(GrantId))
}

/// Deletes the person's codes that nobody has used yet; of one client, or of all.
pub async fn delete_unused_codes(
    conn: &mut PgConnection,
    user: UserId,
    client: Option<&ClientId>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "delete from oauth_authorization_codes
         where user_id = $1 and used_at is null and ($2::text is null or client_id = $2)",
        user.0,
        client.map(ClientId::as_str)
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
