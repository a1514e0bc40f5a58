//! Sign-ins of people to applications, and the refresh tokens of each. The hot statements of the
//! provider are here: each is one round trip.

use chrono::{DateTime, Utc};
use cp_model::{ClientId, GrantId, Scopes, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{StorageResult, parse};

/// The account that a sign-in is for.
#[derive(Debug, Clone)]
pub struct Account {
    pub id: UserId,
    pub email: String,
    pub name: String,
    pub avatar_url: Option<String>,
    pub email_verified_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

/// Takes an account out of a row that has its columns.
macro_rules! account {
    ($row:ident) => {
        Account {
            id: UserId($row.user_id),
            email: $row.email,
            name: $row.name,
            avatar_url: $row.avatar_url,
            email_verified_at: $row.email_verified_at,
            created_at: $row.user_created_at,
        }
    };
}

/// How a sign-in came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    AuthorizationCode,
    DeviceCode,
    Password,
}

impl Origin {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::DeviceCode => "device_code",
            Self::Password => "password",
        }
    }
}

pub struct NewGrant<'a> {
    pub id: GrantId,
    pub user: UserId,
    pub client: &'a ClientId,
    pub scopes: &'a Scopes,
    pub origin: Origin,
    pub address: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    /// Of the family's first refresh token.
    pub refresh_hash: &'a [u8],
    pub refresh_expires_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub now: DateTime<Utc>,
}

/// Makes the sign-in and its first refresh token. None: the account is disabled, or gone.
pub async fn insert_grant(
    conn: &mut PgConnection,
    new: &NewGrant<'_>,
) -> StorageResult<Option<Account>> {
    let row = sqlx::query!(
        r#"with person as (
             select id, email, name, avatar_url, email_verified_at, created_at
             from users where id = $2 and disabled_at is null for key share
         ), granted as (
             insert into oauth_grants (id, user_id, client_id, scopes, origin, address, user_agent,
                                       created_at, last_used_at, expires_at)
             select $1, id, $3, $4, $5, $6, $7, $8, $8, $9 from person
         ), token as (
             insert into oauth_refresh_tokens (hash, grant_id, created_at, expires_at)
             select $10, $1, $8, $11 from person
         )
         select id as "user_id!", email as "email!", name as "name!", avatar_url as "avatar_url?",
                email_verified_at as "email_verified_at?", created_at as "user_created_at!" from person"#,
        new.id.0,
        new.user.0,
        new.client.as_str(),
        &new.scopes.to_texts(),
        new.origin.as_str(),
        new.address,
        new.user_agent,
        new.now,
        new.expires_at,
        new.refresh_hash,
        new.refresh_expires_at
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| account!(row)))
}

pub struct Rotation<'a> {
    /// Of the presented token.
    pub hash: &'a [u8],
    /// Of the one that takes its place.
    pub successor: &'a [u8],
    pub client: &'a ClientId,
    /// What is asked for; none: everything that was granted.
    pub scopes: Option<&'a Scopes>,
    /// How long the successor lives if it is not used.
    pub expires_at: DateTime<Utc>,
    /// A sign-in last seen before this is noted as used now.
    pub seen_before: DateTime<Utc>,
    pub now: DateTime<Utc>,
}

/// A live sign-in that a token led to.
pub struct LiveGrant {
    pub id: GrantId,
    pub scopes: Scopes,
    pub expires_at: DateTime<Utc>,
    pub account: Account,
}

/// Uses a refresh token and makes its successor, all in one statement; none if the token is not
/// live for this client, or less was granted than is asked for.
///
/// Of any number of callers with the same token one gets through; the others wait for its row and
/// then find it used. Whoever ends a sign-in meanwhile is obeyed nevertheless: tokens of an ended
/// sign-in are refused wherever they are shown.
pub async fn rotate_refresh_token(
    conn: &mut PgConnection,
    rotation: &Rotation<'_>,
) -> StorageResult<Option<LiveGrant>> {
    let scopes = rotation.scopes.map(Scopes::to_texts);
    let row = sqlx::query!(
        r#"with used as (
             update oauth_refresh_tokens t set used_at = $1
             from oauth_grants g join users u on u.id = g.user_id
             where t.hash = $2 and t.used_at is null and t.expires_at > $1
               and g.id = t.grant_id and g.client_id = $3 and g.revoked_at is null and g.expires_at > $1
               and ($4::text[] is null or g.scopes @> $4) and u.disabled_at is null
             returning g.id, g.scopes, g.expires_at, u.id as user_id, u.email, u.name, u.avatar_url,
                       u.email_verified_at, u.created_at
         ), made as (
             insert into oauth_refresh_tokens (hash, grant_id, created_at, expires_at)
             select $5, id, $1, least($6, expires_at) from used
         ), seen as (
             update oauth_grants g set last_used_at = $1 from used where g.id = used.id and g.last_used_at < $7
         )
         select id as "id!", scopes as "scopes!", expires_at as "expires_at!", user_id as "user_id!",
                email as "email!", name as "name!", avatar_url as "avatar_url?",
                email_verified_at as "email_verified_at?", created_at as "user_created_at!" from used"#,
        rotation.now,
        rotation.hash,
        rotation.client.as_str(),
        scopes.as_deref(),
        rotation.successor,
        rotation.expires_at,
        rotation.seen_before
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| LiveGrant {
        id: GrantId(row.id),
        scopes: Scopes::from_texts(&row.scopes),
        expires_at: row.expires_at,
        account: account!(row),
    }))
}

/// Everything about a refresh token that was once ours to give.
pub struct KnownRefreshToken {
    pub client: ClientId,
    pub grant: LiveGrant,
    /// Whether the sign-in has ended, or its account is disabled.
    pub is_over: bool,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub used_at: Option<DateTime<Utc>>,
    /// Which of the given candidates is the family's live token.
    pub live_successor: Option<Vec<u8>>,
}

/// Looks a refresh token up in one statement, so that what it tells was true at one moment.
pub async fn find_refresh_token(
    conn: &mut PgConnection,
    hash: &[u8],
    successors: &[Vec<u8>],
    now: DateTime<Utc>,
) -> StorageResult<Option<KnownRefreshToken>> {
    sqlx::query!(
        r#"select t.created_at, t.expires_at, t.used_at, g.id as grant_id, g.client_id, g.scopes,
                g.expires_at as grant_expires_at,
                (g.revoked_at is not null or g.expires_at <= $3 or u.disabled_at is not null) as "is_over!",
                u.id as user_id, u.email, u.name, u.avatar_url, u.email_verified_at, u.created_at as user_created_at,
                s.hash as "live_successor?"
         from oauth_refresh_tokens t
         join oauth_grants g on g.id = t.grant_id
         join users u on u.id = g.user_id
         left join oauth_refresh_tokens s
             on s.hash = any($2) and s.grant_id = t.grant_id and s.used_at is null and s.expires_at > $3
         where t.hash = $1"#,
        hash,
        successors,
        now
    )
    .fetch_optional(conn)
    .await?
    .map(|row| {
        Ok(KnownRefreshToken {
            client: parse("oauth_grants", "client_id", &row.client_id)?,
            is_over: row.is_over,
            created_at: row.created_at,
            expires_at: row.expires_at,
            used_at: row.used_at,
            live_successor: row.live_successor,
            grant: LiveGrant {
                id: GrantId(row.grant_id),
                scopes: Scopes::from_texts(&row.scopes),
                expires_at: row.grant_expires_at,
                account: account!(row),
            },
        })
    })
    .transpose()
}

/// Whom an access token stands for, now.
pub struct Bearer {
    pub account: Account,
    /// What was granted; the token may have been asked for with less.
    pub scopes: Scopes,
    /// Of the client.
    pub first_party: bool,
}

/// Which sign-in an access token says that it belongs to.
#[derive(Debug, Clone)]
pub struct BearerKey {
    pub user: UserId,
    pub grant: GrantId,
    pub client: ClientId,
}

/// The accounts behind access tokens of these sign-ins, in their order; none where something has
/// ended it since: the person, the client, an operator.
pub async fn find_bearers(
    conn: &mut PgConnection,
    keys: &[BearerKey],
    now: DateTime<Utc>,
) -> StorageResult<Vec<Option<Bearer>>> {
    let users: Vec<Uuid> = keys.iter().map(|key| key.user.0).collect();
    let grants: Vec<Uuid> = keys.iter().map(|key| key.grant.0).collect();
    let clients: Vec<String> = keys.iter().map(|key| key.client.to_string()).collect();
    let rows = sqlx::query!(
        r#"select k.place as "place!", u.id as user_id, u.email, u.name, u.avatar_url, u.email_verified_at,
                  u.created_at as user_created_at, g.scopes, c.first_party
           from unnest($1::uuid[], $2::uuid[], $3::text[]) with ordinality as k (user_id, grant_id, client_id, place)
           join oauth_grants g on g.user_id = k.user_id and g.id = k.grant_id and g.client_id = k.client_id
           join users u on u.id = g.user_id
           join oauth_clients c on c.id = g.client_id
           where g.revoked_at is null and g.expires_at > $4 and u.disabled_at is null and c.disabled_at is null"#,
        &users,
        &grants,
        &clients,
        now
    )
    .fetch_all(conn)
    .await?;
    let mut found: Vec<Option<Bearer>> = keys.iter().map(|_| None).collect();
    for row in rows {
        let place = usize::try_from(row.place - 1).ok();
        if let Some(slot) = place.and_then(|place| found.get_mut(place)) {
            *slot = Some(Bearer {
                scopes: Scopes::from_texts(&row.scopes),
                first_party: row.first_party,
                account: account!(row),
            });
        }
    }
    Ok(found)
}

/// Ends a sign-in and all its tokens. False: it had ended before.
pub async fn mark_revoked(
    conn: &mut PgConnection,
    grant: GrantId,
    because: &str,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update oauth_grants set revoked_at = $2, revoked_because = $3 where id = $1 and revoked_at is null",
        grant.0,
        now,
        because
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends the person's sign-ins to one client, or to all; gives how many.
///
/// Use [`crate::oauth_codes::delete_unused_codes`] and
/// [`crate::oauth_devices::withdraw_approvals`] before: they wait for whoever is making a sign-in
/// of a code, and this then sees it.
pub async fn mark_users_revoked(
    conn: &mut PgConnection,
    user: UserId,
    client: Option<&ClientId>,
    because: &str,
    now: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "update oauth_grants set revoked_at = $3, revoked_because = $4
         where user_id = $1 and ($2::text is null or client_id = $2) and revoked_at is null",
        user.0,
        client.map(ClientId::as_str),
        now,
        because
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Live sign-ins of a person to one client with the same scopes.
pub struct SignIns {
    pub client: ClientId,
    pub scopes: Scopes,
    pub since: DateTime<Utc>,
    pub last_used_at: DateTime<Utc>,
}

/// What is signed in for the person: neither ended nor unused since `used_since`.
pub async fn list_live_sign_ins(
    conn: &mut PgConnection,
    user: UserId,
    used_since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> StorageResult<Vec<SignIns>> {
    sqlx::query!(
        r#"select client_id, scopes, min(created_at) as "since!", max(last_used_at) as "last_used_at!"
         from oauth_grants
         where user_id = $1 and revoked_at is null and expires_at > $2 and last_used_at > $3
         group by client_id, scopes"#,
        user.0,
        now,
        used_since
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(|row| {
        Ok(SignIns {
            client: parse("oauth_grants", "client_id", &row.client_id)?,
            scopes: Scopes::from_texts(&row.scopes),
            since: row.since,
            last_used_at: row.last_used_at,
        })
    })
    .collect()
}
