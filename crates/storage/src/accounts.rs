//! People and the organizations that own projects.

use chrono::{DateTime, Utc};
use cp_model::{OrganizationId, Plan, UserId};
use sqlx::PgConnection;

use crate::error::{StorageResult, parse};

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

pub async fn insert_organization(
    conn: &mut PgConnection,
    id: OrganizationId,
    name: &str,
    kind: &str,
    plan: Plan,
    now: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "insert into organizations (id, name, kind, plan, created_at) values ($1, $2, $3, $4, $5)",
        id.0,
        name,
        kind,
        plan.as_str(),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn insert_administrator(
    conn: &mut PgConnection,
    organization: OrganizationId,
    user: UserId,
    now: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "insert into organization_members (organization_id, user_id, role, joined_at)
         values ($1, $2, 'administrator', $3)",
        organization.0,
        user.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A person's own organization, locked until the transaction ends: two projects cannot take the
/// plan's last place at once.
pub async fn lock_personal_organization(
    conn: &mut PgConnection,
    user: UserId,
) -> StorageResult<Option<(OrganizationId, Plan)>> {
    let row = sqlx::query!(
        "select o.id, o.plan from organizations o
         join organization_members m on m.organization_id = o.id
         where m.user_id = $1 and o.kind = 'personal' order by o.created_at limit 1 for update of o",
        user.0
    )
    .fetch_optional(conn)
    .await?;
    row.map(|r| {
        Ok((
            OrganizationId(r.id),
            parse("organizations", "plan", &r.plan)?,
        ))
    })
    .transpose()
}

/// Locks an organization until the transaction ends; gives its plan.
pub async fn lock_organization(conn: &mut PgConnection, id: OrganizationId) -> StorageResult<Plan> {
    let plan = sqlx::query_scalar!(
        "select plan from organizations where id = $1 for update",
        id.0
    )
    .fetch_one(conn)
    .await?;
    parse("organizations", "plan", &plan)
}

pub async fn set_plan(
    conn: &mut PgConnection,
    organization: OrganizationId,
    plan: Plan,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update organizations set plan = $2 where id = $1",
        organization.0,
        plan.as_str()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Sets a person's password (Argon2id, PHC form), and that the address is verified if told so.
pub async fn set_password(
    conn: &mut PgConnection,
    user: UserId,
    password_hash: &str,
    verified_at: Option<DateTime<Utc>>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update users set password_hash = $2, email_verified_at = coalesce($3, email_verified_at) where id = $1",
        user.0,
        password_hash,
        verified_at
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
