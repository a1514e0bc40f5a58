//! Branches, each with its project. Who may see one follows from its project: queries for tenants
//! name the tenant, what runs for the service itself says so.

use chrono::{DateTime, Utc};
use cp_model::{
    Branch, BranchCopies, BranchMode, BranchState, OrganizationId, PartnerId, ProjectId, UserId,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{StorageError, StorageResult, parse};
use crate::operations::find_in_flight;
use crate::projects::find_project;

/// A branch that does not exist yet, of a project that does. It is born `creating`.
pub struct NewBranch<'a> {
    pub project: ProjectId,
    pub parent: ProjectId,
    pub name: &'a str,
    pub mode: BranchMode,
    pub expires_at: Option<DateTime<Utc>>,
    pub now: DateTime<Utc>,
}

/// Refused with the unique constraint `branches_name_key` while the parent has a live branch of this
/// name.
pub async fn insert_branch(conn: &mut PgConnection, new: &NewBranch<'_>) -> StorageResult<()> {
    sqlx::query!(
        "insert into branches (project_id, parent_id, name, mode, state, created_at, expires_at, updated_at)
         values ($1, $2, $3, $4, 'creating', $5, $6, $5)",
        new.project.0,
        new.parent.0,
        new.name,
        new.mode.as_str(),
        new.now,
        new.expires_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

struct BranchRow {
    project_id: Uuid,
    parent_id: Uuid,
    name: String,
    mode: String,
    state: String,
    serves: bool,
    copies: serde_json::Value,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    merged_at: Option<DateTime<Utc>>,
}

/// Selects branches `b` with their projects `p` by the rest of a statement.
macro_rules! query_branches {
    ($rest:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            BranchRow,
            "select b.project_id, b.parent_id, b.name, b.mode, b.state, b.serves, b.copies, b.created_at, \
                    b.expires_at, b.merged_at from branches b join projects p on p.id = b.project_id " + $rest
            $(, $arg)*
        )
    };
}

/// The branch with its project. A parent has few, so that one statement for each is no burden.
async fn with_project(conn: &mut PgConnection, row: BranchRow) -> StorageResult<Branch> {
    let id = ProjectId(row.project_id);
    let missing = |column, detail: String| StorageError::Inconsistent {
        table: "branches",
        column,
        detail,
    };
    let project = find_project(conn, id)
        .await?
        .ok_or_else(|| missing("project_id", id.to_string()))?;
    let copies: BranchCopies =
        serde_json::from_value(row.copies).map_err(|error| missing("copies", error.to_string()))?;
    let state: BranchState = parse("branches", "state", &row.state)?;
    let work = if state.is_transitional() {
        find_in_flight(conn, id).await?
    } else {
        None
    };
    Ok(Branch {
        project,
        parent_id: ProjectId(row.parent_id),
        name: row.name,
        mode: parse("branches", "mode", &row.mode)?,
        state,
        serves: row.serves,
        copies,
        created_at: row.created_at,
        expires_at: row.expires_at,
        merged_at: row.merged_at,
        work,
    })
}

async fn with_projects(
    conn: &mut PgConnection,
    rows: Vec<BranchRow>,
) -> StorageResult<Vec<Branch>> {
    let mut branches = Vec::with_capacity(rows.len());
    for row in rows {
        branches.push(with_project(conn, row).await?);
    }
    Ok(branches)
}

/// A live branch of one of the partner's own projects; of that one, if a parent is named.
pub async fn find_partner_branch(
    conn: &mut PgConnection,
    partner: &PartnerId,
    parent: Option<ProjectId>,
    id: ProjectId,
) -> StorageResult<Option<Branch>> {
    let row = query_branches!(
        "where p.partner_id = $1 and b.project_id = $2 and ($3::uuid is null or b.parent_id = $3) and b.state <> 'deleted'",
        partner.as_str(),
        id.0,
        parent.map(|parent| parent.0)
    )
    .fetch_optional(&mut *conn)
    .await?;
    match row {
        Some(row) => with_project(conn, row).await.map(Some),
        None => Ok(None),
    }
}

/// A live branch in one of the person's organizations; of a partner's embedded projects never.
pub async fn find_user_branch(
    conn: &mut PgConnection,
    user: UserId,
    id: ProjectId,
) -> StorageResult<Option<Branch>> {
    let row = query_branches!(
        "join organization_members m on m.organization_id = p.organization_id
         where m.user_id = $1 and b.project_id = $2 and p.user_id is not null and b.state <> 'deleted'",
        user.0,
        id.0
    )
    .fetch_optional(&mut *conn)
    .await?;
    match row {
        Some(row) => with_project(conn, row).await.map(Some),
        None => Ok(None),
    }
}

/// For the service itself: any branch, dead or alive. None: that project is no branch.
pub async fn find_branch(conn: &mut PgConnection, id: ProjectId) -> StorageResult<Option<Branch>> {
    let row = query_branches!("where b.project_id = $1", id.0)
        .fetch_optional(&mut *conn)
        .await?;
    match row {
        Some(row) => with_project(conn, row).await.map(Some),
        None => Ok(None),
    }
}

/// The live branches of a project, oldest first. Whoever asks has found the parent as a tenant.
pub async fn list_branches(
    conn: &mut PgConnection,
    parent: ProjectId,
) -> StorageResult<Vec<Branch>> {
    let rows = query_branches!(
        "where b.parent_id = $1 and b.state <> 'deleted' order by b.created_at, b.project_id",
        parent.0
    )
    .fetch_all(&mut *conn)
    .await?;
    with_projects(conn, rows).await
}

/// Live branches of the parent. Holds while the caller has the organization's lock.
pub async fn count_branches(conn: &mut PgConnection, parent: ProjectId) -> StorageResult<i64> {
    let count = sqlx::query_scalar!(
        "select count(*) from branches where parent_id = $1 and state <> 'deleted'",
        parent.0
    )
    .fetch_one(conn)
    .await?;
    Ok(count.unwrap_or(0))
}

/// Projects of the organization with live branches, that one aside.
pub async fn count_other_parents(
    conn: &mut PgConnection,
    organization: OrganizationId,
    parent: ProjectId,
) -> StorageResult<i64> {
    let count = sqlx::query_scalar!(
        "select count(distinct b.parent_id) from branches b join projects p on p.id = b.project_id
         where p.organization_id = $1 and b.parent_id <> $2 and b.state <> 'deleted'",
        organization.0,
        parent.0
    )
    .fetch_one(conn)
    .await?;
    Ok(count.unwrap_or(0))
}

/// Moves the branch from `from` to `to`, if it still is in `from`. Remembers where a merge, a rebase or a
/// reset began.
pub async fn mark_state(
    conn: &mut PgConnection,
    id: ProjectId,
    from: BranchState,
    to: BranchState,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    debug_assert!(from.can_become(to), "{from} cannot become {to}");
    let done = sqlx::query!(
        "update branches set state = $3, updated_at = $4,
                previous_state = case when $3 in ('merging', 'resetting') then $2 end,
                merged_at = case when $3 = 'ready' then null else merged_at end
         where project_id = $1 and state = $2",
        id.0,
        from.as_str(),
        to.as_str(),
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes that the branch's changes came to its parent at `now`.
pub async fn set_merged_at(
    conn: &mut PgConnection,
    id: ProjectId,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update branches set merged_at = $2 where project_id = $1",
        id.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Where the merge, rebase or reset in flight began.
pub async fn find_previous_state(
    conn: &mut PgConnection,
    id: ProjectId,
) -> StorageResult<Option<BranchState>> {
    let state = sqlx::query_scalar!(
        "select previous_state from branches where project_id = $1",
        id.0
    )
    .fetch_optional(conn)
    .await?;
    state
        .flatten()
        .map(|state| parse("branches", "previous_state", &state))
        .transpose()
}

/// False: it was so already.
pub async fn set_serves(
    conn: &mut PgConnection,
    id: ProjectId,
    serves: bool,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update branches set serves = $2 where project_id = $1 and serves <> $2 and state <> 'deleted'",
        id.0,
        serves
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn set_copies(
    conn: &mut PgConnection,
    id: ProjectId,
    copies: &BranchCopies,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update branches set copies = $2 where project_id = $1",
        id.0,
        serde_json::json!(copies)
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Live branches whose time is over.
pub async fn list_expired(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
    limit: i64,
) -> StorageResult<Vec<Branch>> {
    let rows = query_branches!(
        "where b.state <> 'deleted' and b.expires_at <= $1 order by b.expires_at limit $2",
        now,
        limit
    )
    .fetch_all(&mut *conn)
    .await?;
    with_projects(conn, rows).await
}

/// Live branches whose time is over before `before`, of which nobody was told yet.
pub async fn list_to_warn(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> StorageResult<Vec<Branch>> {
    let rows = query_branches!(
        "where b.state <> 'deleted' and b.expires_at <= $1 and b.warned_at is null order by b.expires_at limit $2",
        before,
        limit
    )
    .fetch_all(&mut *conn)
    .await?;
    with_projects(conn, rows).await
}

/// True for the one who is to tell.
pub async fn mark_warned(
    conn: &mut PgConnection,
    id: ProjectId,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update branches set warned_at = $2 where project_id = $1 and warned_at is null and state <> 'deleted'",
        id.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
