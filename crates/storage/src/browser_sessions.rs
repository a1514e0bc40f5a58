//! Browsers in which people are signed in to our pages.

use chrono::{DateTime, Utc};
use cp_model::{BrowserSessionId, UserId};
use sqlx::PgConnection;

use crate::accounts::UserRecord;
use crate::error::StorageResult;

/// A session that begins.
#[derive(Debug)]
pub struct NewBrowserSession<'a> {
    pub id: BrowserSessionId,
    /// SHA-256 of the cookie.
    pub hash: &'a [u8],
    pub user: UserId,
    pub address: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    pub now: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

/// What a person sees of a session.
#[derive(Debug, Clone)]
pub struct BrowserSessionRecord {
    pub id: BrowserSessionId,
    pub address: Option<String>,
    pub user_agent: Option<String>,
    pub created_at: DateTime<Utc>,
    pub last_seen_at: DateTime<Utc>,
}

/// A live session and whose it is.
pub struct LiveBrowserSession {
    pub id: BrowserSessionId,
    pub created_at: DateTime<Utc>,
    pub last_seen_at: DateTime<Utc>,
    pub user: UserRecord,
}

/// False: there is no such account, or it is disabled.
pub async fn insert_session(
    conn: &mut PgConnection,
    new: &NewBrowserSession<'_>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "insert into browser_sessions (id, hash, user_id, address, user_agent, created_at, last_seen_at, expires_at)
         select $1, $2, u.id, $4, $5, $6, $6, $7
         from (select id from users where id = $3 and disabled_at is null for key share) u",
        new.id.0,
        new.hash,
        new.user.0,
        new.address,
        new.user_agent,
        new.now,
        new.expires_at
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// When the person signed in there.
pub async fn find_beginning(
    conn: &mut PgConnection,
    user: UserId,
    id: BrowserSessionId,
) -> StorageResult<Option<DateTime<Utc>>> {
    let began = sqlx::query_scalar!(
        "select created_at from browser_sessions where user_id = $1 and id = $2",
        user.0,
        id.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(began)
}

/// The live session with this cookie, of an account that is not disabled.
pub async fn find_session(
    conn: &mut PgConnection,
    hash: &[u8],
    now: DateTime<Utc>,
) -> StorageResult<Option<LiveBrowserSession>> {
    let row = sqlx::query!(
        "select s.id as session_id, s.created_at as begun_at, s.last_seen_at,
                u.id, u.email, u.name, u.avatar_url, u.password_hash, u.email_verified_at, u.disabled_at, u.created_at
         from browser_sessions s join users u on u.id = s.user_id
         where s.hash = $1 and s.revoked_at is null and s.expires_at > $2 and u.disabled_at is null",
        hash,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| LiveBrowserSession {
        id: BrowserSessionId(row.session_id),
        created_at: row.begun_at,
        last_seen_at: row.last_seen_at,
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

/// Notes that the session was used; a revoked one stays as it is.
pub async fn mark_seen(
    conn: &mut PgConnection,
    id: BrowserSessionId,
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update browser_sessions set last_seen_at = $2, expires_at = $3
         where id = $1 and revoked_at is null and last_seen_at < $2",
        id.0,
        now,
        expires_at
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The person's live sessions, the one used last first.
pub async fn list_sessions(
    conn: &mut PgConnection,
    user: UserId,
    now: DateTime<Utc>,
) -> StorageResult<Vec<BrowserSessionRecord>> {
    let rows = sqlx::query!(
        "select id, address, user_agent, created_at, last_seen_at from browser_sessions
         where user_id = $1 and revoked_at is null and expires_at > $2 order by last_seen_at desc, id",
        user.0,
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| BrowserSessionRecord {
            id: BrowserSessionId(row.id),
            address: row.address,
            user_agent: row.user_agent,
            created_at: row.created_at,
            last_seen_at: row.last_seen_at,
        })
        .collect())
}

/// Ends the session with this cookie; gives whose it was.
pub async fn mark_revoked_by_hash(
    conn: &mut PgConnection,
    hash: &[u8],
    now: DateTime<Utc>,
) -> StorageResult<Option<(BrowserSessionId, UserId)>> {
    let row = sqlx::query!(
        "update browser_sessions set revoked_at = $2 where hash = $1 and revoked_at is null returning id, user_id",
        hash,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (BrowserSessionId(row.id), UserId(row.user_id))))
}

/// Ends one session of the person. False: they have no such live session.
pub async fn mark_revoked(
    conn: &mut PgConnection,
    user: UserId,
    id: BrowserSessionId,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update browser_sessions set revoked_at = $3
         where user_id = $1 and id = $2 and revoked_at is null and expires_at > $3",
        user.0,
        id.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends all sessions of the person but one; gives how many there were.
pub async fn mark_all_revoked(
    conn: &mut PgConnection,
    user: UserId,
    except: Option<BrowserSessionId>,
    now: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "update browser_sessions set revoked_at = $3
         where user_id = $1 and id is distinct from $2 and revoked_at is null and expires_at > $3",
        user.0,
        except.map(|id| id.0),
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

pub async fn is_live(
    conn: &mut PgConnection,
    user: UserId,
    id: BrowserSessionId,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let found = sqlx::query_scalar!(
        "select exists (select 1 from browser_sessions
                        where user_id = $1 and id = $2 and revoked_at is null and expires_at > $3)",
        user.0,
        id.0,
        now
    )
    .fetch_one(conn)
    .await?;
    Ok(found.unwrap_or(false))
}
