//! Partner platforms, their secrets, and who is connected to them.

use chrono::{DateTime, Utc};
use cp_model::{OrganizationId, Partner, PartnerId, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{StorageError, StorageResult, parse};
use crate::notifications::{Topic, notify};

struct PartnerRow {
    id: String,
    name: String,
    organization_id: Uuid,
    co_branded: bool,
    white_label: bool,
    rate_limit: i32,
    trusted: bool,
    suspended_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl TryFrom<PartnerRow> for Partner {
    type Error = StorageError;
    fn try_from(row: PartnerRow) -> StorageResult<Self> {
        Ok(Self {
            id: parse("partners", "id", &row.id)?,
            name: row.name,
            organization_id: OrganizationId(row.organization_id),
            co_branded: row.co_branded,
            white_label: row.white_label,
            rate_limit: u32::try_from(row.rate_limit).unwrap_or(1),
            trusted: row.trusted,
            suspended_at: row.suspended_at,
            created_at: row.created_at,
        })
    }
}

pub async fn insert_partner(conn: &mut PgConnection, partner: &Partner) -> StorageResult<()> {
    sqlx::query!(
        "insert into partners (id, name, organization_id, co_branded, white_label, rate_limit, trusted, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        partner.id.as_str(),
        partner.name,
        partner.organization_id.0,
        partner.co_branded,
        partner.white_label,
        i32::try_from(partner.rate_limit).unwrap_or(i32::MAX),
        partner.trusted,
        partner.created_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The partner whose live secret has this hash, whatever partner id the caller claims.
pub async fn find_partner_by_secret(
    conn: &mut PgConnection,
    hash: &[u8],
    now: DateTime<Utc>,
) -> StorageResult<Option<Partner>> {
    sqlx::query_as!(
        PartnerRow,
        "select p.id, p.name, p.organization_id, p.co_branded, p.white_label, p.rate_limit, p.trusted,
                p.suspended_at, p.created_at
         from partner_secrets s join partners p on p.id = s.partner_id
         where s.hash = $1 and (s.expires_at is null or s.expires_at > $2)",
        hash,
        now
    )
    .fetch_optional(conn)
    .await?
    .map(Partner::try_from)
    .transpose()
}

pub async fn find_partner(
    conn: &mut PgConnection,
    id: &PartnerId,
) -> StorageResult<Option<Partner>> {
    sqlx::query_as!(
        PartnerRow,
        "select id, name, organization_id, co_branded, white_label, rate_limit, trusted, suspended_at, created_at
         from partners where id = $1",
        id.as_str()
    )
    .fetch_optional(conn)
    .await?
    .map(Partner::try_from)
    .transpose()
}

pub async fn list_partners(conn: &mut PgConnection) -> StorageResult<Vec<Partner>> {
    sqlx::query_as!(
        PartnerRow,
        "select id, name, organization_id, co_branded, white_label, rate_limit, trusted, suspended_at, created_at
         from partners order by created_at, id"
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Partner::try_from)
    .collect()
}

pub async fn insert_secret(
    conn: &mut PgConnection,
    partner: &PartnerId,
    hash: &[u8],
    now: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "insert into partner_secrets (id, partner_id, hash, created_at) values ($1, $2, $3, $4)",
        Uuid::now_v7(),
        partner.as_str(),
        hash,
        now
    )
    .execute(&mut *conn)
    .await?;
    notify(conn, Topic::Partners, partner.as_str()).await
}

/// Lets the partner's newest secret end at `at`, and at once what was ending already: a partner has
/// two live secrets at most. Gives how many go on until `at`.
pub async fn expire_secrets(
    conn: &mut PgConnection,
    partner: &PartnerId,
    at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> StorageResult<u64> {
    sqlx::query!(
        "update partner_secrets set expires_at = $2 where partner_id = $1 and expires_at > $2",
        partner.as_str(),
        now
    )
    .execute(&mut *conn)
    .await?;
    let done = sqlx::query!(
        "update partner_secrets set expires_at = $2 where partner_id = $1 and expires_at is null",
        partner.as_str(),
        at
    )
    .execute(&mut *conn)
    .await?;
    notify(conn, Topic::Partners, partner.as_str()).await?;
    Ok(done.rows_affected())
}

pub async fn mark_suspended(
    conn: &mut PgConnection,
    partner: &PartnerId,
    at: Option<DateTime<Utc>>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update partners set suspended_at = $2 where id = $1",
        partner.as_str(),
        at
    )
    .execute(&mut *conn)
    .await?;
    notify(conn, Topic::Partners, partner.as_str()).await?;
    Ok(done.rows_affected() == 1)
}

pub async fn connect_user(
    conn: &mut PgConnection,
    partner: &PartnerId,
    user: UserId,
    now: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "insert into partner_users (partner_id, user_id, connected_at) values ($1, $2, $3) on conflict do nothing",
        partner.as_str(),
        user.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn is_connected(
    conn: &mut PgConnection,
    partner: &PartnerId,
    user: UserId,
) -> StorageResult<bool> {
    let found = sqlx::query_scalar!(
        "select exists (select 1 from partner_users where partner_id = $1 and user_id = $2)",
        partner.as_str(),
        user.0
    )
    .fetch_one(conn)
    .await?;
    Ok(found.unwrap_or(false))
}
