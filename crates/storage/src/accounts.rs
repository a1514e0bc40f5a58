//! People.

use chrono::{DateTime, Utc};
use cp_model::{GrantId, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::StorageResult;

/// A person's account. Holds the hash of a password, so it has no `Debug`.
pub struct UserRecord {
    pub id: UserId,
    pub email: String,
    pub name: String,
    pub avatar_url: Option<String>,
    /// Argon2id in PHC form; none until the person has set one.
    pub password_hash: Option<String>,
    pub email_verified_at: Option<DateTime<Utc>>,
    pub disabled_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

struct UserRow {
    id: Uuid,
    email: String,
    name: String,
    avatar_url: Option<String>,
    password_hash: Option<String>,
    email_verified_at: Option<DateTime<Utc>>,
    disabled_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl From<UserRow> for UserRecord {
    fn from(row: UserRow) -> Self {
        Self {
            id: UserId(row.id),
            email: row.email,
            name: row.name,
            avatar_url: row.avatar_url,
            password_hash: row.password_hash,
            email_verified_at: row.email_verified_at,
            disabled_at: row.disabled_at,
            created_at: row.created_at,
        }
    }
}

/// The account with this address, whatever its case.
pub async fn find_user_by_email(
    conn: &mut PgConnection,
    email: &str,
) -> StorageResult<Option<UserRecord>> {
    let row = sqlx::query_as!(
        UserRow,
        "select id, email, name, avatar_url, password_hash, email_verified_at, disabled_at, created_at
         from users where lower(email) = lower($1)",
        email
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(UserRecord::from))
}

pub async fn find_user(conn: &mut PgConnection, id: UserId) -> StorageResult<Option<UserRecord>> {
    let row = sqlx::query_as!(
        UserRow,
        "select id, email, name, avatar_url, password_hash, email_verified_at, disabled_at, created_at
         from users where id = $1",
        id.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(UserRecord::from))
}

/// The account, locked until the transaction ends. `for update` also holds up whoever inserts a
/// session, key or grant of the person, since their foreign keys lock the same row: what is ended
/// after this call cannot be begun beside it. Whoever locks more locks this first, then sessions,
/// codes and grants, in this order (see `oauth_codes`).
pub async fn lock_user(conn: &mut PgConnection, id: UserId) -> StorageResult<Option<UserRecord>> {
    let row = sqlx::query_as!(
        UserRow,
        "select id, email, name, avatar_url, password_hash, email_verified_at, disabled_at, created_at
         from users where id = $1 for update",
        id.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(UserRecord::from))
}

/// The newest accounts first.
pub async fn list_users(conn: &mut PgConnection, limit: i64) -> StorageResult<Vec<UserRecord>> {
    let rows = sqlx::query_as!(
        UserRow,
        "select id, email, name, avatar_url, password_hash, email_verified_at, disabled_at, created_at
         from users order by created_at desc, id desc limit $1",
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(UserRecord::from).collect())
}

/// Makes the account unless the address (whatever its case) has one. Gives the account's id and
/// whether it is new.
pub async fn upsert_user(
    conn: &mut PgConnection,
    email: &str,
    name: &str,
    now: DateTime<Utc>,
) -> StorageResult<(UserId, bool)> {
    let id = UserId::generate();
    let inserted = sqlx::query!(
        "insert into users (id, email, name, created_at) values ($1, $2, $3, $4)
         on conflict (lower(email)) do nothing",
        id.0,
        email,
        name,
        now
    )
    .execute(&mut *conn)
    .await?;
    if inserted.rows_affected() == 1 {
        return Ok((id, true));
    }
    let existing =
        sqlx::query_scalar!("select id from users where lower(email) = lower($1)", email)
            .fetch_one(conn)
            .await?;
    Ok((UserId(existing), false))
}

/// Sets a person's password (Argon2id, PHC form), and that the address is verified if told so.
pub async fn set_password(
    conn: &mut PgConnection,
    user: UserId,
    password_hash: &str,
    verified_at: Option<DateTime<Utc>>,
) -> StorageResult<()> {
    sqlx::query!(
        "update users set password_hash = $2, email_verified_at = coalesce(email_verified_at, $3) where id = $1",
        user.0,
        password_hash,
        verified_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Sets a new password in place of the one that the person has just proven. False: it was changed
/// meanwhile.
pub async fn replace_password(
    conn: &mut PgConnection,
    user: UserId,
    former_hash: Option<&str>,
    password_hash: &str,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update users set password_hash = $3 where id = $1 and password_hash is not distinct from $2",
        user.0,
        former_hash,
        password_hash
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Removes the password of an account whose address nobody has proven: whoever set it may be
/// somebody else than who reads that mail. Gives whether there was one; none: the address is
/// proven.
pub async fn delete_unproven_password(
    conn: &mut PgConnection,
    user: UserId,
) -> StorageResult<Option<bool>> {
    let had_password = sqlx::query_scalar!(
        r#"with unproven as (
             select id, password_hash from users where id = $1 and email_verified_at is null for update
         )
         update users u set password_hash = null from unproven where u.id = unproven.id
         returning unproven.password_hash is not null as "had_password!""#,
        user.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(had_password)
}

/// Gives the person and the organization that is theirs alone this name.
pub async fn rename_user(conn: &mut PgConnection, user: UserId, name: &str) -> StorageResult<()> {
    sqlx::query!("update users set name = $2 where id = $1", user.0, name)
        .execute(&mut *conn)
        .await?;
    sqlx::query!(
        "update organizations set name = $2 where home_user_id = $1",
        user.0,
        name
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether the person still has this password, which then stays until the transaction ends.
pub async fn lock_password(
    conn: &mut PgConnection,
    user: UserId,
    password_hash: &str,
) -> StorageResult<bool> {
    let found = sqlx::query_scalar!(
        "select id from users where id = $1 and password_hash = $2 and disabled_at is null for share",
        user.0,
        password_hash
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

/// Notes that the person reads the address. False: that was known.
pub async fn mark_verified(
    conn: &mut PgConnection,
    user: UserId,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update users set email_verified_at = $2 where id = $1 and email_verified_at is null",
        user.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Disables the account since then, or enables it. False: it was so already.
pub async fn mark_disabled(
    conn: &mut PgConnection,
    user: UserId,
    since: Option<DateTime<Utc>>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update users set disabled_at = $2 where id = $1 and (disabled_at is null) <> ($2::timestamptz is null)",
        user.0,
        since
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends the sign-ins that were made by typing the password to us, but one.
pub async fn revoke_password_grants(
    conn: &mut PgConnection,
    user: UserId,
    except: Option<GrantId>,
    because: &str,
    now: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "update oauth_grants set revoked_at = $4, revoked_because = $3
         where user_id = $1 and id is distinct from $2 and revoked_at is null
           and (origin = 'password' or client_id in (select id from oauth_clients where first_party))",
        user.0,
        except.map(|id| id.0),
        because,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets what the person has allowed applications.
pub async fn delete_consents(conn: &mut PgConnection, user: UserId) -> StorageResult<u64> {
    let done = sqlx::query!("delete from oauth_consents where user_id = $1", user.0)
        .execute(conn)
        .await?;
    Ok(done.rows_affected())
}

pub async fn is_grant_live(
    conn: &mut PgConnection,
    user: UserId,
    id: GrantId,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let found = sqlx::query_scalar!(
        "select exists (select 1 from oauth_grants
                        where user_id = $1 and id = $2 and revoked_at is null and expires_at > $3)",
        user.0,
        id.0,
        now
    )
    .fetch_one(conn)
    .await?;
    Ok(found.unwrap_or(false))
}
