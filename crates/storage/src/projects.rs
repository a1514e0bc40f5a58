//! Projects. Tenant queries name the tenant first; what runs for the service itself says so.

use chrono::{DateTime, Utc};
use cp_model::{
    Failure, InstanceType, MachineSize, OrganizationId, PartnerId, Project, ProjectId,
    ProjectStatus, Region, UserId,
};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{StorageError, StorageResult, parse};
use crate::notifications::{Topic, notify};

struct ProjectRow {
    id: Uuid,
    organization_id: Uuid,
    partner_id: Option<String>,
    user_id: Option<Uuid>,
    parent_id: Option<Uuid>,
    external_id: Option<String>,
    name: String,
    app_key: String,
    region: String,
    instance_type: String,
    volume_gib: i32,
    status: String,
    failure_code: Option<String>,
    failure_message: Option<String>,
    access_host: Option<String>,
    release: Option<String>,
    metadata: Option<Value>,
    last_activity_at: Option<DateTime<Utc>>,
    customized_domain: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<ProjectRow> for Project {
    type Error = StorageError;
    fn try_from(row: ProjectRow) -> StorageResult<Self> {
        Ok(Self {
            id: ProjectId(row.id),
            organization_id: OrganizationId(row.organization_id),
            partner_id: row
                .partner_id
                .map(|id| parse("projects", "partner_id", &id))
                .transpose()?,
            user_id: row.user_id.map(UserId),
            parent_id: row.parent_id.map(ProjectId),
            external_id: row.external_id,
            name: row.name,
            app_key: row.app_key,
            region: parse("projects", "region", &row.region)?,
            instance_type: parse("projects", "instance_type", &row.instance_type)?,
            volume_gib: row.volume_gib,
            status: parse("projects", "status", &row.status)?,
            failure: failure(row.failure_code, row.failure_message),
            access_host: row.access_host,
            release: row.release,
            metadata: row.metadata,
            last_activity_at: row.last_activity_at,
            customized_domain: row.customized_domain,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

fn failure(code: Option<String>, message: Option<String>) -> Option<Failure> {
    code.map(|code| Failure {
        code,
        message: message.unwrap_or_default(),
    })
}

/// Selects projects `p` by the rest of a statement.
macro_rules! query_projects {
    ($rest:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            ProjectRow,
            "select p.id, p.organization_id, p.partner_id, p.user_id, p.parent_id, p.external_id, p.name, p.app_key, p.region, \
                    p.instance_type, p.volume_gib, p.status, p.failure_code, p.failure_message, p.access_host, p.release, \
                    p.metadata, p.last_activity_at, p.customized_domain, p.created_at, p.updated_at from projects p " + $rest
            $(, $arg)*
        )
    };
}

/// A project that does not exist yet. It is born `provisioning`.
pub struct NewProject<'a> {
    pub id: ProjectId,
    pub organization_id: OrganizationId,
    pub partner_id: Option<&'a PartnerId>,
    pub user_id: Option<UserId>,
    /// The project that it is a branch of.
    pub parent_id: Option<ProjectId>,
    pub external_id: Option<&'a str>,
    pub name: &'a str,
    pub app_key: &'a str,
    pub region: Region,
    pub size: MachineSize,
    pub metadata: Option<&'a Value>,
    pub now: DateTime<Utc>,
}

/// Inserts the project unless a unique index has its name or external id already; false then.
pub async fn insert_project(conn: &mut PgConnection, new: &NewProject<'_>) -> StorageResult<bool> {
    let done = sqlx::query!(
        "insert into projects (id, organization_id, partner_id, user_id, external_id, name, app_key, region,
                               instance_type, status, metadata, created_at, updated_at, parent_id, volume_gib,
                               next_backup_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'provisioning', $10, $11, $11, $12, $13, $14)
         on conflict do nothing",
        new.id.0,
        new.organization_id.0,
        new.partner_id.map(PartnerId::as_str),
        new.user_id.map(|id| id.0),
        new.external_id,
        new.name,
        new.app_key,
        new.region.as_str(),
        new.size.instance_type.as_str(),
        new.metadata,
        new.now,
        new.parent_id.map(|id| id.0),
        new.size.volume_gib,
        new.now + cp_model::backup::BACKUP_EVERY
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The live project that a partner synced for a person under this name.
pub async fn find_synced(
    conn: &mut PgConnection,
    partner: &PartnerId,
    user: UserId,
    name: &str,
) -> StorageResult<Option<Project>> {
    query_projects!(
        "where p.partner_id = $1 and p.user_id = $2 and p.name = $3 and p.parent_id is null and p.status not in ('deleting', 'deleted')",
        partner.as_str(),
        user.0,
        name
    )
    .fetch_optional(conn)
    .await?
    .map(Project::try_from)
    .transpose()
}

/// The partner's live embedded project with this external id.
pub async fn find_by_external_id(
    conn: &mut PgConnection,
    partner: &PartnerId,
    external_id: &str,
) -> StorageResult<Option<Project>> {
    query_projects!(
        "where p.partner_id = $1 and p.external_id = $2 and p.status not in ('deleting', 'deleted')",
        partner.as_str(),
        external_id
    )
    .fetch_optional(conn)
    .await?
    .map(Project::try_from)
    .transpose()
}

/// A live project that was made through the partner.
pub async fn find_partner_project(
    conn: &mut PgConnection,
    partner: &PartnerId,
    id: ProjectId,
) -> StorageResult<Option<Project>> {
    query_projects!(
        "where p.partner_id = $1 and p.id = $2 and p.status not in ('deleting', 'deleted')",
        partner.as_str(),
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(Project::try_from)
    .transpose()
}

/// Everything that `GET metadata` tells, in one round trip.
pub struct PartnerProjectView {
    pub project: Project,
    pub api_key_sealed: Option<Vec<u8>>,
    pub operation: Option<OperationInFlight>,
}

/// What a tenant is told of the work on its project.
pub struct OperationInFlight {
    pub id: Uuid,
    pub kind: String,
    pub state: String,
}

struct ViewRow {
    id: Uuid,
    organization_id: Uuid,
    user_id: Option<Uuid>,
    parent_id: Option<Uuid>,
    external_id: Option<String>,
    name: String,
    app_key: String,
    region: String,
    instance_type: String,
    volume_gib: i32,
    status: String,
    failure_code: Option<String>,
    failure_message: Option<String>,
    access_host: Option<String>,
    release: Option<String>,
    metadata: Option<Value>,
    last_activity_at: Option<DateTime<Utc>>,
    customized_domain: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    api_key_sealed: Option<Vec<u8>>,
    operation_id: Option<Uuid>,
    operation_kind: Option<String>,
    operation_state: Option<String>,
}

/// A live project of the partner with its key and the operation in flight. The hot path: one
/// indexed statement.
pub async fn find_partner_project_view(
    conn: &mut PgConnection,
    partner: &PartnerId,
    id: ProjectId,
) -> StorageResult<Option<PartnerProjectView>> {
    let row = sqlx::query_as!(
        ViewRow,
        r#"select p.id, p.organization_id, p.user_id, p.parent_id, p.external_id, p.name, p.app_key, p.region,
                p.instance_type, p.volume_gib, p.status, p.failure_code, p.failure_message, p.access_host, p.release, p.metadata,
                p.last_activity_at, p.customized_domain, p.created_at, p.updated_at, s.sealed as "api_key_sealed?",
                o.id as "operation_id?", o.kind as "operation_kind?", o.state as "operation_state?"
         from projects p
         left join project_secrets s on s.project_id = p.id and s.kind = 'api_key'
         left join operations o on o.project_id = p.id and o.state in ('queued', 'running', 'waiting')
         where p.partner_id = $1 and p.id = $2 and p.status not in ('deleting', 'deleted')"#,
        partner.as_str(),
        id.0
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let operation = match (row.operation_id, row.operation_kind, row.operation_state) {
        (Some(id), Some(kind), Some(state)) => Some(OperationInFlight { id, kind, state }),
        _ => None,
    };
    let project = Project::try_from(ProjectRow {
        id: row.id,
        organization_id: row.organization_id,
        partner_id: Some(partner.as_str().to_owned()),
        user_id: row.user_id,
        parent_id: row.parent_id,
        external_id: row.external_id,
        name: row.name,
        app_key: row.app_key,
        region: row.region,
        instance_type: row.instance_type,
        volume_gib: row.volume_gib,
        status: row.status,
        failure_code: row.failure_code,
        failure_message: row.failure_message,
        access_host: row.access_host,
        release: row.release,
        metadata: row.metadata,
        last_activity_at: row.last_activity_at,
        customized_domain: row.customized_domain,
        created_at: row.created_at,
        updated_at: row.updated_at,
    })?;
    Ok(Some(PartnerProjectView {
        project,
        api_key_sealed: row.api_key_sealed,
        operation,
    }))
}

/// The live projects of a person's own organization, newest first; a partner's embedded ones and branches never. What a
/// partner is told of a connected person: the organizations that others share with them are none of its business.
pub async fn list_home_projects(
    conn: &mut PgConnection,
    user: UserId,
) -> StorageResult<Vec<Project>> {
    query_projects!(
        "join organizations o on o.id = p.organization_id
         where o.home_user_id = $1 and p.user_id is not null and p.parent_id is null
           and p.status not in ('deleting', 'deleted')
         order by p.id desc limit 100",
        user.0
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Project::try_from)
    .collect()
}

/// One of [`list_home_projects`], or a branch of one.
pub async fn find_home_project(
    conn: &mut PgConnection,
    user: UserId,
    id: ProjectId,
) -> StorageResult<Option<Project>> {
    query_projects!(
        "join organizations o on o.id = p.organization_id
         where o.home_user_id = $1 and p.id = $2 and p.user_id is not null and p.status not in ('deleting', 'deleted')",
        user.0,
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(Project::try_from)
    .transpose()
}

/// A live project of one of the person's organizations, embedded ones never.
pub async fn find_user_project(
    conn: &mut PgConnection,
    user: UserId,
    id: ProjectId,
) -> StorageResult<Option<Project>> {
    query_projects!(
        "join organization_members m on m.organization_id = p.organization_id
         where m.user_id = $1 and p.id = $2 and p.user_id is not null and p.status not in ('deleting', 'deleted')",
        user.0,
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(Project::try_from)
    .transpose()
}

/// What an organization's people see of a project.
pub struct MemberProjectView {
    pub id: ProjectId,
    pub organization_id: OrganizationId,
    pub parent_id: Option<ProjectId>,
    pub name: String,
    pub app_key: String,
    pub region: Region,
    pub instance_type: InstanceType,
    pub volume_gib: i32,
    pub status: ProjectStatus,
    pub failure: Option<Failure>,
    pub access_host: Option<String>,
    pub customized_domain: Option<String>,
    /// The version that its backend tells, without knowing whether it is the newest; until then the one that it is
    /// pinned to.
    pub version: Option<String>,
    /// The kind of the operation in flight.
    pub operation: Option<String>,
    /// Whether the operation in flight gives it another release.
    pub changes_release: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What lists are made of: each column is paid for once a row.
struct MemberViewRow {
    id: Uuid,
    organization_id: Uuid,
    parent_id: Option<Uuid>,
    name: String,
    app_key: String,
    region: String,
    instance_type: String,
    volume_gib: i32,
    status: String,
    failure_code: Option<String>,
    failure_message: Option<String>,
    access_host: Option<String>,
    customized_domain: Option<String>,
    version: Option<String>,
    operation: Option<String>,
    changes_release: Option<bool>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<MemberViewRow> for MemberProjectView {
    type Error = StorageError;
    fn try_from(row: MemberViewRow) -> StorageResult<Self> {
        Ok(Self {
            id: ProjectId(row.id),
            organization_id: OrganizationId(row.organization_id),
            parent_id: row.parent_id.map(ProjectId),
            name: row.name,
            app_key: row.app_key,
            region: parse("projects", "region", &row.region)?,
            instance_type: parse("projects", "instance_type", &row.instance_type)?,
            volume_gib: row.volume_gib,
            status: parse("projects", "status", &row.status)?,
            failure: failure(row.failure_code, row.failure_message),
            access_host: row.access_host,
            customized_domain: row.customized_domain,
            version: row.version,
            operation: row.operation,
            changes_release: row.changes_release.unwrap_or(false),
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Selects what people see of projects `p` by the rest of a statement.
macro_rules! query_member_views {
    ($rest:literal $(+ $more:literal)? $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            MemberViewRow,
            r#"select p.id, p.organization_id, p.parent_id, p.name, p.app_key, p.region, p.instance_type, p.volume_gib,
                    p.status, p.failure_code, p.failure_message, p.access_host, p.customized_domain,
                    coalesce(a.backend_version, p.release) as version, o.kind as "operation?",
                    o.data ->> 'release' is not null as changes_release, p.created_at, p.updated_at
               from projects p
               left join machines a on a.project_id = p.id
               left join operations o on o.project_id = p.id and o.state in ('queued', 'running', 'waiting') "# + $rest $(+ $more)?
            $(, $arg)*
        )
    };
}

/// A live project of one of the person's organizations, or a branch of one. The hot path: one indexed statement.
pub async fn find_member_view(
    conn: &mut PgConnection,
    user: UserId,
    id: ProjectId,
) -> StorageResult<Option<MemberProjectView>> {
    query_member_views!(
        "join organization_members m on m.organization_id = p.organization_id
         where m.user_id = $1 and p.id = $2 and p.user_id is not null and p.status not in ('deleting', 'deleted')",
        user.0,
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(MemberProjectView::try_from)
    .transpose()
}

/// How many rows are asked for at once.
///
/// A limit that were a parameter would have Postgres plan the statement anew each time: it takes an unknown limit for a
/// tenth of all rows, so that the plan for any looks dearer than that for the number at hand, and planning takes longer
/// than the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtMost {
    FiftyOne,
    HundredAndOne,
    All,
}

impl AtMost {
    /// Enough for a page of this size, and one more to know whether there is another page.
    pub fn for_page_of(size: Option<u32>) -> Self {
        match size {
            Some(..=50) => Self::FiftyOne,
            Some(51..=100) => Self::HundredAndOne,
            Some(101..) | None => Self::All,
        }
    }
}

/// The live projects of an organization that the person belongs to, oldest first, after `after`. Branches are listed
/// with their parents; a partner's embedded projects are in no organization of people.
pub async fn list_member_views(
    conn: &mut PgConnection,
    user: UserId,
    organization: OrganizationId,
    after: Option<ProjectId>,
    at_most: AtMost,
) -> StorageResult<Vec<MemberProjectView>> {
    // No id is smaller; a null would keep the index from finding the place.
    let after = after.map_or(Uuid::nil(), |id| id.0);
    macro_rules! list {
        ($limit:literal) => {
            query_member_views!(
                "join organization_members m on m.organization_id = p.organization_id
         where m.user_id = $1 and p.organization_id = $2 and p.user_id is not null and p.parent_id is null
           and p.status not in ('deleting', 'deleted') and p.id > $3
         order by p.id" + $limit,
                user.0,
                organization.0,
                after,
            )
            .fetch_all(conn)
            .await?
        };
    }
    let rows = match at_most {
        AtMost::FiftyOne => list!(" limit 51"),
        AtMost::HundredAndOne => list!(" limit 101"),
        AtMost::All => list!(""),
    };
    rows.into_iter().map(MemberProjectView::try_from).collect()
}

/// How many live projects the organization has; branches go with their parents.
pub async fn count_live(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> StorageResult<i64> {
    let count = sqlx::query_scalar!(
        "select count(*) from projects
         where organization_id = $1 and parent_id is null and status not in ('deleting', 'deleted')",
        organization.0
    )
    .fetch_one(conn)
    .await?;
    Ok(count.unwrap_or(0))
}

/// Changes what is given. An empty domain is none.
pub async fn update_project(
    conn: &mut PgConnection,
    id: ProjectId,
    name: Option<&str>,
    customized_domain: Option<&str>,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update projects set name = coalesce($2, name),
                customized_domain = nullif(coalesce($3, customized_domain), ''), updated_at = $4
         where id = $1 and status not in ('deleting', 'deleted')",
        id.0,
        name,
        customized_domain,
        now
    )
    .execute(&mut *conn)
    .await?;
    notify(conn, Topic::Projects, &id.to_string()).await?;
    Ok(done.rows_affected() == 1)
}

/// Gives a project and its branches to another organization.
pub async fn set_organization(
    conn: &mut PgConnection,
    id: ProjectId,
    organization: OrganizationId,
    now: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "update projects set organization_id = $2, updated_at = $3 where id = $1 or parent_id = $1",
        id.0,
        organization.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Whether the owner shared the project's keys with the partner.
pub async fn is_shared(
    conn: &mut PgConnection,
    partner: &PartnerId,
    id: ProjectId,
) -> StorageResult<bool> {
    let shared = sqlx::query_scalar!(
        "select exists (select 1 from project_shares where partner_id = $1 and project_id = $2)",
        partner.as_str(),
        id.0
    )
    .fetch_one(conn)
    .await?;
    Ok(shared.unwrap_or(false))
}

pub async fn insert_share(
    conn: &mut PgConnection,
    partner: &PartnerId,
    id: ProjectId,
    now: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "insert into project_shares (project_id, partner_id, shared_at) values ($1, $2, $3) on conflict do nothing",
        id.0,
        partner.as_str(),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Nobody reads the project's keys by a share any more.
pub async fn delete_shares(conn: &mut PgConnection, id: ProjectId) -> StorageResult<u64> {
    let done = sqlx::query!("delete from project_shares where project_id = $1", id.0)
        .execute(conn)
        .await?;
    Ok(done.rows_affected())
}

/// How many of the organization's projects take a place of its plan; branches have limits of their own
/// (`ProjectStatus::counts_against_plan`).
pub async fn count_against_plan(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> StorageResult<i64> {
    let counted: Vec<String> = ProjectStatus::ALL
        .iter()
        .filter(|s| s.counts_against_plan())
        .map(|s| s.as_str().to_owned())
        .collect();
    let count = sqlx::query_scalar!(
        "select count(*) from projects where organization_id = $1 and parent_id is null and status = any($2)",
        organization.0,
        &counted
    )
    .fetch_one(conn)
    .await?;
    Ok(count.unwrap_or(0))
}

/// A page of the partner's live projects by id, after `cursor`. Branches are listed with their parents.
pub async fn list_partner_projects(
    conn: &mut PgConnection,
    partner: &PartnerId,
    after: Option<ProjectId>,
    status: Option<ProjectStatus>,
    limit: i64,
) -> StorageResult<Vec<Project>> {
    query_projects!(
        "where p.partner_id = $1 and p.parent_id is null and p.status not in ('deleting', 'deleted')
           and ($2::uuid is null or p.id > $2) and ($3::text is null or p.status = $3)
         order by p.id limit $4",
        partner.as_str(),
        after.map(|id| id.0),
        status.map(ProjectStatus::as_str),
        limit
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Project::try_from)
    .collect()
}

/// For the service itself: any project, whoever owns it, dead or alive.
pub async fn find_project(
    conn: &mut PgConnection,
    id: ProjectId,
) -> StorageResult<Option<Project>> {
    query_projects!("where p.id = $1", id.0)
        .fetch_optional(conn)
        .await?
        .map(Project::try_from)
        .transpose()
}

/// For the service itself; locked until the transaction ends.
pub async fn lock_project(
    conn: &mut PgConnection,
    id: ProjectId,
) -> StorageResult<Option<Project>> {
    query_projects!("where p.id = $1 for update", id.0)
        .fetch_optional(conn)
        .await?
        .map(Project::try_from)
        .transpose()
}

/// Moves the project from `from` to `to`, if it still is in `from`. Clears or sets the failure.
pub async fn mark_status(
    conn: &mut PgConnection,
    id: ProjectId,
    from: ProjectStatus,
    to: ProjectStatus,
    failure: Option<&Failure>,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    debug_assert!(from.can_become(to), "{from} cannot become {to}");
    let done = sqlx::query!(
        "update projects set status = $3, failure_code = $4, failure_message = $5, updated_at = $6,
                deleted_at = case when $3 = 'deleted' then $6 else deleted_at end,
                access_host = case when $3 in ('deleting', 'deleted') then null else access_host end
         where id = $1 and status = $2",
        id.0,
        from.as_str(),
        to.as_str(),
        failure.map(|f| f.code.as_str()),
        failure.map(|f| f.message.as_str()),
        now
    )
    .execute(&mut *conn)
    .await?;
    notify(conn, Topic::Projects, &id.to_string()).await?;
    Ok(done.rows_affected() == 1)
}

pub async fn set_access_host(
    conn: &mut PgConnection,
    id: ProjectId,
    access_host: &str,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update projects set access_host = $2 where id = $1 and status not in ('deleting', 'deleted')",
        id.0,
        access_host
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What its machine is made of, and a next one would be.
pub async fn set_size(
    conn: &mut PgConnection,
    id: ProjectId,
    size: MachineSize,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update projects set instance_type = $2, volume_gib = $3 where id = $1",
        id.0,
        size.instance_type.as_str(),
        size.volume_gib
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn set_release(
    conn: &mut PgConnection,
    id: ProjectId,
    release: &str,
) -> StorageResult<()> {
    sqlx::query!(
        "update projects set release = $2 where id = $1",
        id.0,
        release
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn set_last_activity(
    conn: &mut PgConnection,
    id: ProjectId,
    now: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "update projects set last_activity_at = greatest(last_activity_at, $2) where id = $1",
        id.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether the project's backend may run beside its database.
pub async fn find_serves(conn: &mut PgConnection, id: ProjectId) -> StorageResult<bool> {
    let serves = sqlx::query_scalar!("select serves from projects where id = $1", id.0)
        .fetch_optional(conn)
        .await?;
    Ok(serves.unwrap_or(true))
}

/// False: it was so already.
pub async fn set_serves(
    conn: &mut PgConnection,
    id: ProjectId,
    serves: bool,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update projects set serves = $2 where id = $1 and serves <> $2",
        id.0,
        serves
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
