//! Organizations, their members and who is invited. A person's queries name the person first: what they do not belong
//! to is not there for them.

use chrono::{DateTime, Utc};
use cp_model::{
    Invitation, InvitationId, Member, MemberId, MemberRole, Organization, OrganizationId,
    OrganizationKind, Plan, UserId,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{StorageError, StorageResult, parse};

struct OrganizationRow {
    id: Uuid,
    name: String,
    kind: String,
    plan: String,
    home_user_id: Option<Uuid>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<OrganizationRow> for Organization {
    type Error = StorageError;
    fn try_from(row: OrganizationRow) -> StorageResult<Self> {
        Ok(Self {
            id: OrganizationId(row.id),
            name: row.name,
            kind: parse("organizations", "kind", &row.kind)?,
            plan: parse("organizations", "plan", &row.plan)?,
            home_of: row.home_user_id.map(UserId),
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Selects organizations `o` by the rest of a statement.
macro_rules! query_organizations {
    ($rest:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            OrganizationRow,
            "select o.id, o.name, o.kind, o.plan, o.home_user_id, o.created_at, o.updated_at from organizations o " + $rest
            $(, $arg)*
        )
    };
}

/// An organization that does not exist yet.
pub struct NewOrganization<'a> {
    pub id: OrganizationId,
    pub name: &'a str,
    pub kind: OrganizationKind,
    pub plan: Plan,
    /// Whose own it is.
    pub home_of: Option<UserId>,
    pub now: DateTime<Utc>,
}

pub async fn insert_organization(
    conn: &mut PgConnection,
    new: &NewOrganization<'_>,
) -> StorageResult<()> {
    sqlx::query!(
        "insert into organizations (id, name, kind, plan, granted_plan, home_user_id, created_at, updated_at)
         values ($1, $2, $3, $4, nullif($4, 'free'), $5, $6, $6)",
        new.id.0,
        new.name,
        new.kind.as_str(),
        new.plan.as_str(),
        new.home_of.map(|id| id.0),
        new.now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The organizations that the person belongs to, their own first.
pub async fn list_user_organizations(
    conn: &mut PgConnection,
    user: UserId,
) -> StorageResult<Vec<Organization>> {
    query_organizations!(
        "join organization_members m on m.organization_id = o.id
         where m.user_id = $1 and o.deleted_at is null
         order by o.home_user_id is not distinct from $1 desc, o.created_at, o.id",
        user.0
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Organization::try_from)
    .collect()
}

/// An organization that the person belongs to.
pub async fn find_user_organization(
    conn: &mut PgConnection,
    user: UserId,
    id: OrganizationId,
) -> StorageResult<Option<Organization>> {
    query_organizations!(
        "join organization_members m on m.organization_id = o.id
         where m.user_id = $1 and o.id = $2 and o.deleted_at is null",
        user.0,
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(Organization::try_from)
    .transpose()
}

/// What the person may do in an organization; none: they do not belong to it.
pub async fn find_role(
    conn: &mut PgConnection,
    user: UserId,
    organization: OrganizationId,
) -> StorageResult<Option<MemberRole>> {
    let role = sqlx::query_scalar!(
        "select m.role from organization_members m join organizations o on o.id = m.organization_id
         where m.user_id = $1 and m.organization_id = $2 and o.deleted_at is null",
        user.0,
        organization.0
    )
    .fetch_optional(conn)
    .await?;
    role.map(|role| parse("organization_members", "role", &role))
        .transpose()
}

/// A person's own organization.
pub async fn find_home(
    conn: &mut PgConnection,
    user: UserId,
) -> StorageResult<Option<OrganizationId>> {
    let found = sqlx::query_scalar!(
        "select id from organizations where home_user_id = $1",
        user.0
    );
    Ok(found.fetch_optional(conn).await?.map(OrganizationId))
}

/// A person's own organization, locked until the transaction ends: two projects cannot take the
/// plan's last place at once.
pub async fn lock_personal_organization(
    conn: &mut PgConnection,
    user: UserId,
) -> StorageResult<Option<(OrganizationId, Plan)>> {
    let row = sqlx::query!(
        "select id, plan from organizations where home_user_id = $1 for update",
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

/// Locks an organization until the transaction ends; gives its plan. Whoever changes its members, its projects'
/// number or the organization itself locks it first.
pub async fn lock_organization(conn: &mut PgConnection, id: OrganizationId) -> StorageResult<Plan> {
    let plan = sqlx::query_scalar!(
        "select plan from organizations where id = $1 for update",
        id.0
    )
    .fetch_one(conn)
    .await?;
    parse("organizations", "plan", &plan)
}

pub async fn find_plan(conn: &mut PgConnection, id: OrganizationId) -> StorageResult<Plan> {
    let plan = sqlx::query_scalar!("select plan from organizations where id = $1", id.0)
        .fetch_one(conn)
        .await?;
    parse("organizations", "plan", &plan)
}

/// Whether there is such an organization of people.
pub async fn is_of_people(conn: &mut PgConnection, id: OrganizationId) -> StorageResult<bool> {
    let found = sqlx::query_scalar!(
        "select exists (select from organizations where id = $1 and kind <> 'partner' and deleted_at is null) as \"found!\"",
        id.0
    );
    Ok(found.fetch_one(conn).await?)
}

/// What the operator gave it.
pub async fn find_granted_plan(
    conn: &mut PgConnection,
    id: OrganizationId,
) -> StorageResult<Option<Plan>> {
    let granted = sqlx::query_scalar!("select granted_plan from organizations where id = $1", id.0)
        .fetch_one(conn)
        .await?;
    granted
        .map(|plan| parse("organizations", "granted_plan", &plan))
        .transpose()
}

pub async fn set_granted_plan(
    conn: &mut PgConnection,
    id: OrganizationId,
    plan: Option<Plan>,
) -> StorageResult<bool> {
    let plan = plan.map(Plan::as_str);
    let done = sqlx::query!(
        "update organizations set granted_plan = $2 where id = $1",
        id.0,
        plan
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What follows from what is granted and what is paid for.
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

/// Changes what is given.
pub async fn update_organization(
    conn: &mut PgConnection,
    id: OrganizationId,
    name: Option<&str>,
    kind: Option<OrganizationKind>,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update organizations set name = coalesce($2, name), kind = coalesce($3, kind), updated_at = $4
         where id = $1 and deleted_at is null",
        id.0,
        name,
        kind.map(OrganizationKind::as_str),
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends the organization: nobody belongs to it, nobody is invited, the row stays.
pub async fn delete_organization(
    conn: &mut PgConnection,
    id: OrganizationId,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update organizations set deleted_at = $2, updated_at = $2
         where id = $1 and deleted_at is null and home_user_id is null",
        id.0,
        now
    )
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query!(
        "delete from organization_members where organization_id = $1",
        id.0
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "update organization_invitations set status = 'revoked', settled_at = $2
         where organization_id = $1 and status = 'pending'",
        id.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(true)
}

/// How many organizations of the free plan the person administers, besides their own.
pub async fn count_free_organizations(conn: &mut PgConnection, user: UserId) -> StorageResult<i64> {
    let count = sqlx::query_scalar!(
        "select count(*) from organizations o join organization_members m on m.organization_id = o.id
         where m.user_id = $1 and m.role = 'administrator' and o.plan = 'free' and o.deleted_at is null
           and o.home_user_id is null",
        user.0
    )
    .fetch_one(conn)
    .await?;
    Ok(count.unwrap_or(0))
}

struct MemberRow {
    id: Uuid,
    organization_id: Uuid,
    user_id: Uuid,
    role: String,
    invited_by: Option<Uuid>,
    joined_at: DateTime<Utc>,
    name: String,
    email: String,
    avatar_url: Option<String>,
}

impl TryFrom<MemberRow> for Member {
    type Error = StorageError;
    fn try_from(row: MemberRow) -> StorageResult<Self> {
        Ok(Self {
            id: MemberId(row.id),
            organization_id: OrganizationId(row.organization_id),
            user_id: UserId(row.user_id),
            role: parse("organization_members", "role", &row.role)?,
            invited_by: row.invited_by.map(UserId),
            joined_at: row.joined_at,
            name: row.name,
            email: row.email,
            avatar_url: row.avatar_url,
        })
    }
}

/// Selects members `m` with their accounts `u` by the rest of a statement.
macro_rules! query_members {
    ($rest:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            MemberRow,
            "select m.id, m.organization_id, m.user_id, m.role, m.invited_by, m.joined_at, u.name, u.email, u.avatar_url \
             from organization_members m join users u on u.id = m.user_id " + $rest
            $(, $arg)*
        )
    };
}

/// Who belongs to the organization, the longest first.
pub async fn list_members(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> StorageResult<Vec<Member>> {
    query_members!(
        "where m.organization_id = $1 order by m.joined_at, m.id",
        organization.0
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Member::try_from)
    .collect()
}

pub async fn find_member(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: MemberId,
) -> StorageResult<Option<Member>> {
    query_members!(
        "where m.organization_id = $1 and m.id = $2",
        organization.0,
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(Member::try_from)
    .transpose()
}

/// The person's own membership.
pub async fn find_membership(
    conn: &mut PgConnection,
    organization: OrganizationId,
    user: UserId,
) -> StorageResult<Option<Member>> {
    query_members!(
        "where m.organization_id = $1 and m.user_id = $2",
        organization.0,
        user.0
    )
    .fetch_optional(conn)
    .await?
    .map(Member::try_from)
    .transpose()
}

/// Whether an account with this address, whatever its case, belongs to the organization.
pub async fn is_member_by_email(
    conn: &mut PgConnection,
    organization: OrganizationId,
    email: &str,
) -> StorageResult<bool> {
    let found = sqlx::query_scalar!(
        "select exists (select 1 from organization_members m join users u on u.id = m.user_id
                        where m.organization_id = $1 and lower(u.email) = lower($2))",
        organization.0,
        email
    )
    .fetch_one(conn)
    .await?;
    Ok(found.unwrap_or(false))
}

/// Makes the person a member. False: they are one, with the role that they have.
pub async fn insert_member(
    conn: &mut PgConnection,
    organization: OrganizationId,
    user: UserId,
    role: MemberRole,
    invited_by: Option<UserId>,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "insert into organization_members (id, organization_id, user_id, role, invited_by, joined_at)
         values ($1, $2, $3, $4, $5, $6) on conflict (organization_id, user_id) do nothing",
        MemberId::generate().0,
        organization.0,
        user.0,
        role.as_str(),
        invited_by.map(|id| id.0),
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn set_role(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: MemberId,
    role: MemberRole,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update organization_members set role = $3 where organization_id = $1 and id = $2",
        organization.0,
        id.0,
        role.as_str()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn delete_member(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: MemberId,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "delete from organization_members where organization_id = $1 and id = $2",
        organization.0,
        id.0
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// How many administrators the organization has besides this one who can sign in.
pub async fn count_other_administrators(
    conn: &mut PgConnection,
    organization: OrganizationId,
    except: UserId,
) -> StorageResult<i64> {
    let count = sqlx::query_scalar!(
        "select count(*) from organization_members m join users u on u.id = m.user_id
         where m.organization_id = $1 and m.role = 'administrator' and u.disabled_at is null and u.id <> $2",
        organization.0,
        except.0
    )
    .fetch_one(conn)
    .await?;
    Ok(count.unwrap_or(0))
}

struct InvitationRow {
    id: Uuid,
    organization_id: Uuid,
    email: String,
    role: String,
    status: String,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

impl TryFrom<InvitationRow> for Invitation {
    type Error = StorageError;
    fn try_from(row: InvitationRow) -> StorageResult<Self> {
        Ok(Self {
            id: InvitationId(row.id),
            organization_id: OrganizationId(row.organization_id),
            email: row.email,
            role: parse("organization_invitations", "role", &row.role)?,
            status: parse("organization_invitations", "status", &row.status)?,
            created_at: row.created_at,
            expires_at: row.expires_at,
        })
    }
}

/// Selects invitations `i` by the rest of a statement.
macro_rules! query_invitations {
    ($rest:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            InvitationRow,
            "select i.id, i.organization_id, i.email, i.role, i.status, i.created_at, i.expires_at \
             from organization_invitations i " + $rest
            $(, $arg)*
        )
    };
}

/// An invitation that shall be mailed.
pub struct NewInvitation<'a> {
    pub organization: OrganizationId,
    pub email: &'a str,
    pub role: MemberRole,
    /// SHA-256 of the secret in the mailed link.
    pub hash: &'a [u8],
    pub invited_by: UserId,
    pub now: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

/// Invites the address, or again: then the link that was mailed before ends, and what was said before is replaced.
pub async fn upsert_invitation(
    conn: &mut PgConnection,
    new: &NewInvitation<'_>,
) -> StorageResult<Invitation> {
    let row = sqlx::query_as!(
        InvitationRow,
        "insert into organization_invitations as i
             (id, organization_id, email, role, hash, invited_by, status, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, 'pending', $7, $8)
         on conflict (organization_id, lower(email)) where status = 'pending' do update
             set role = excluded.role, hash = excluded.hash, invited_by = excluded.invited_by,
                 expires_at = excluded.expires_at
         returning i.id, i.organization_id, i.email, i.role, i.status, i.created_at, i.expires_at",
        InvitationId::generate().0,
        new.organization.0,
        new.email,
        new.role.as_str(),
        new.hash,
        new.invited_by.0,
        new.now,
        new.expires_at
    )
    .fetch_one(conn)
    .await?;
    row.try_into()
}

/// Who is invited and has not answered, expired ones too, and who declined; the newest last.
pub async fn list_invitations(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> StorageResult<Vec<Invitation>> {
    query_invitations!(
        "where i.organization_id = $1 and i.status in ('pending', 'declined') order by i.created_at, i.id",
        organization.0
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Invitation::try_from)
    .collect()
}

/// How many invitations to other addresses nobody has answered yet.
pub async fn count_other_invitations(
    conn: &mut PgConnection,
    organization: OrganizationId,
    email: &str,
    now: DateTime<Utc>,
) -> StorageResult<i64> {
    let count = sqlx::query_scalar!(
        "select count(*) from organization_invitations
         where organization_id = $1 and status = 'pending' and expires_at > $3 and lower(email) <> lower($2)",
        organization.0,
        email,
        now
    )
    .fetch_one(conn)
    .await?;
    Ok(count.unwrap_or(0))
}

/// An invitation that can be answered, as its page shows it.
pub struct OpenInvitation {
    pub invitation: Invitation,
    pub organization_name: String,
    pub inviter_name: String,
    pub inviter_email: String,
    pub inviter: UserId,
}

/// The invitation whose link was opened, if it can still be answered: whoever sent it must still be an administrator who
/// can sign in.
pub async fn find_open_invitation(
    conn: &mut PgConnection,
    hash: &[u8],
    now: DateTime<Utc>,
) -> StorageResult<Option<OpenInvitation>> {
    let row = sqlx::query!(
        "select i.id, i.organization_id, i.email, i.role, i.status, i.created_at, i.expires_at,
                o.name as organization_name, u.name as inviter_name, u.email as inviter_email, u.id as inviter
         from organization_invitations i
         join organizations o on o.id = i.organization_id
         join users u on u.id = i.invited_by and u.disabled_at is null
         join organization_members m on m.organization_id = i.organization_id and m.user_id = i.invited_by
             and m.role = 'administrator'
         where i.hash = $1 and i.status = 'pending' and i.expires_at > $2 and o.deleted_at is null",
        hash,
        now
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let invitation = InvitationRow {
        id: row.id,
        organization_id: row.organization_id,
        email: row.email,
        role: row.role,
        status: row.status,
        created_at: row.created_at,
        expires_at: row.expires_at,
    };
    Ok(Some(OpenInvitation {
        invitation: invitation.try_into()?,
        organization_name: row.organization_name,
        inviter_name: row.inviter_name,
        inviter_email: row.inviter_email,
        inviter: UserId(row.inviter),
    }))
}

/// Answers a pending invitation, once. False: it was answered, taken back or has expired.
pub async fn mark_answered(
    conn: &mut PgConnection,
    id: InvitationId,
    accepted: bool,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update organization_invitations set status = $2, settled_at = $3
         where id = $1 and status = 'pending' and expires_at > $3",
        id.0,
        if accepted { "accepted" } else { "declined" },
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes back an invitation that nobody has answered. Gives its address.
pub async fn mark_revoked(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: InvitationId,
    now: DateTime<Utc>,
) -> StorageResult<Option<String>> {
    let email = sqlx::query_scalar!(
        "update organization_invitations set status = 'revoked', settled_at = $3
         where organization_id = $1 and id = $2 and status = 'pending' returning email",
        organization.0,
        id.0,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(email)
}

/// Takes back what somebody who no longer administers the organization has offered.
pub async fn revoke_invitations_by(
    conn: &mut PgConnection,
    organization: OrganizationId,
    inviter: UserId,
    now: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "update organization_invitations set status = 'revoked', settled_at = $3
         where organization_id = $1 and invited_by = $2 and status = 'pending'",
        organization.0,
        inviter.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
