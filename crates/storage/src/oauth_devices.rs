//! Devices that wait for a person (RFC 8628).

use chrono::{DateTime, Utc};
use cp_model::{BrowserSessionId, ClientId, Scopes, UserId};
use sqlx::PgConnection;

use crate::error::{StorageResult, parse};

pub struct NewDevice<'a> {
    pub hash: &'a [u8],
    /// Without the dash.
    pub user_code: &'a str,
    pub client: &'a ClientId,
    pub scopes: &'a Scopes,
    pub address: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    /// Seconds.
    pub poll_interval: i32,
    pub expires_at: DateTime<Utc>,
    pub now: DateTime<Utc>,
}

/// False: another device has this user code.
pub async fn insert_device(conn: &mut PgConnection, new: &NewDevice<'_>) -> StorageResult<bool> {
    let done = sqlx::query!(
        "insert into oauth_device_codes
             (hash, user_code, client_id, scopes, state, address, user_agent, poll_interval, created_at, expires_at)
         values ($1, $2, $3, $4, 'pending', $5, $6, $7, $8, $9)
         on conflict (user_code) do nothing",
        new.hash,
        new.user_code,
        new.client.as_str(),
        &new.scopes.to_texts(),
        new.address,
        new.user_agent,
        new.poll_interval,
        new.now,
        new.expires_at
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A device that waits, as its person is shown it.
pub struct WaitingDevice {
    pub client: ClientId,
    pub scopes: Scopes,
    pub address: Option<String>,
    pub user_agent: Option<String>,
    pub created_at: DateTime<Utc>,
}

pub async fn find_waiting_device(
    conn: &mut PgConnection,
    user_code: &str,
    now: DateTime<Utc>,
) -> StorageResult<Option<WaitingDevice>> {
    sqlx::query!(
        "select client_id, scopes, address, user_agent, created_at from oauth_device_codes
         where user_code = $1 and state = 'pending' and expires_at > $2",
        user_code,
        now
    )
    .fetch_optional(conn)
    .await?
    .map(|row| {
        Ok(WaitingDevice {
            client: parse("oauth_device_codes", "client_id", &row.client_id)?,
            scopes: Scopes::from_texts(&row.scopes),
            address: row.address,
            user_agent: row.user_agent,
            created_at: row.created_at,
        })
    })
    .transpose()
}

/// Writes down the person's answer; gives the client, or none when nothing waits with this code or
/// the person's session has ended. To be called after [`crate::oauth_codes::hold_person`].
pub async fn mark_decided(
    conn: &mut PgConnection,
    user: UserId,
    session: BrowserSessionId,
    user_code: &str,
    approved: bool,
    now: DateTime<Utc>,
) -> StorageResult<Option<ClientId>> {
    sqlx::query_scalar!(
        "update oauth_device_codes d set state = $3, user_id = $2
         where d.user_code = $1 and d.state = 'pending' and d.expires_at > $4
           and exists (select 1 from browser_sessions s
                       where s.user_id = $2 and s.id = $5 and s.revoked_at is null and s.expires_at > $4)
         returning d.client_id",
        user_code,
        user.0,
        if approved { "approved" } else { "denied" },
        now,
        session.0
    )
    .fetch_optional(conn)
    .await?
    .map(|id| parse("oauth_device_codes", "client_id", &id))
    .transpose()
}

/// What a poll meets.
pub struct Poll {
    /// `pending`, `approved`, `denied` or `used`.
    pub state: String,
    /// The poll before was less than the interval ago.
    pub too_soon: bool,
}

/// Notes a poll of a pending code. One that comes more than half a second before the interval is
/// over adds five seconds to it, for good (RFC 8628 section 3.5).
pub async fn poll_device(
    conn: &mut PgConnection,
    hash: &[u8],
    client: &ClientId,
    now: DateTime<Utc>,
) -> StorageResult<Option<Poll>> {
    Ok(sqlx::query_as!(
        Poll,
        r#"with met as (
             select hash, state,
                    coalesce(last_polled_at + poll_interval * interval '1 second'
                             - interval '500 milliseconds' > $3, false) as too_soon
             from oauth_device_codes where hash = $1 and client_id = $2 and expires_at > $3 for update
         ), noted as (
             update oauth_device_codes d set
                 last_polled_at = $3,
                 poll_interval = d.poll_interval + case when met.too_soon then 5 else 0 end
             from met where d.hash = met.hash and met.state = 'pending'
         )
         select state as "state!", too_soon as "too_soon!" from met"#,
        hash,
        client.as_str(),
        now
    )
    .fetch_optional(conn)
    .await?)
}

/// Uses an approved code; gives who approved what.
pub async fn take_approved_device(
    conn: &mut PgConnection,
    hash: &[u8],
    client: &ClientId,
    now: DateTime<Utc>,
) -> StorageResult<Option<(UserId, Scopes)>> {
    let row = sqlx::query!(
        r#"with person as (
             select u.id from oauth_device_codes d join users u on u.id = d.user_id
             where d.hash = $1 for key share of u
         )
         update oauth_device_codes d set state = 'used' from person
         where d.hash = $1 and d.client_id = $2 and d.user_id = person.id and d.state = 'approved'
           and d.expires_at > $3
         returning d.user_id as "user_id!", d.scopes"#,
        hash,
        client.as_str(),
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (UserId(row.user_id), Scopes::from_texts(&row.scopes))))
}

/// Takes back the person's approvals that no device has used yet; of one client, or of all.
pub async fn withdraw_approvals(
    conn: &mut PgConnection,
    user: UserId,
    client: Option<&ClientId>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "update oauth_device_codes set state = 'denied'
         where user_id = $1 and state = 'approved' and ($2::text is null or client_id = $2)",
        user.0,
        client.map(ClientId::as_str)
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
