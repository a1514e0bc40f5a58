//! Backups of projects' databases. Who may see one follows from its project, which callers have found for their tenant.

use chrono::{DateTime, Utc};
use cp_model::{
    Backup, BackupId, BackupStatus, BackupTrigger, Failure, OperationId, OperationState,
    OrganizationId, Plan, ProjectId, Region, StoredCopy, UserId,
};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{StorageError, StorageResult, parse};

/// A backup that a worker has yet to make.
pub struct NewBackup<'a> {
    pub id: BackupId,
    pub project: ProjectId,
    pub operation: OperationId,
    pub name: Option<&'a str>,
    pub plan: Plan,
    pub trigger: BackupTrigger,
    pub created_by: Option<UserId>,
    pub now: DateTime<Utc>,
}

pub async fn insert_backup(conn: &mut PgConnection, new: &NewBackup<'_>) -> StorageResult<()> {
    sqlx::query!(
        "insert into backups (id, project_id, operation_id, name, plan, trigger_source, created_by, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        new.id.0,
        new.project.0,
        new.operation.0,
        new.name,
        new.plan.as_str(),
        new.trigger.as_str(),
        new.created_by.map(|id| id.0),
        new.now
    )
    .execute(conn)
    .await?;
    Ok(())
}

struct BackupRow {
    id: Uuid,
    project_id: Uuid,
    organization_id: Uuid,
    name: Option<String>,
    plan: String,
    trigger_source: String,
    created_by: Option<Uuid>,
    created_at: DateTime<Utc>,
    copy: Option<Value>,
    operation_state: Option<String>,
    started_at: Option<DateTime<Utc>>,
    error_code: Option<String>,
    error_message: Option<String>,
}

impl TryFrom<BackupRow> for Backup {
    type Error = StorageError;
    fn try_from(row: BackupRow) -> StorageResult<Self> {
        let copy: Option<StoredCopy> =
            row.copy
                .map(serde_json::from_value)
                .transpose()
                .map_err(|error| StorageError::Inconsistent {
                    table: "backups",
                    column: "copy",
                    detail: error.to_string(),
                })?;
        let state = row.operation_state;
        let state = state.map(|state| parse("operations", "state", &state));
        let is_made = state
            .transpose()?
            .is_some_and(|state: OperationState| state.is_in_flight());
        Ok(Self {
            id: BackupId(row.id),
            project_id: ProjectId(row.project_id),
            organization_id: OrganizationId(row.organization_id),
            plan: parse("backups", "plan", &row.plan)?,
            status: match (&copy, is_made) {
                (Some(_), _) => BackupStatus::Completed,
                (None, true) => BackupStatus::Running,
                (None, false) => BackupStatus::Failed,
            },
            trigger: parse("backups", "trigger_source", &row.trigger_source)?,
            name: row.name,
            failure: row.error_code.map(|code| Failure {
                code,
                message: row.error_message.unwrap_or_default(),
            }),
            copy,
            created_by: row.created_by.map(UserId),
            created_at: row.created_at,
            started_at: row.started_at,
        })
    }
}

/// Selects backups `b`, with their projects `p` and operations `o`, by the rest of a statement.
macro_rules! query_backups {
    ($rest:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            BackupRow,
            r#"select b.id, b.project_id, p.organization_id, b.name, b.plan, b.trigger_source, b.created_by, b.created_at, b.copy,
                      o.state as "operation_state?", o.started_at as "started_at?", o.error_code as "error_code?",
                      o.error_message as "error_message?"
               from backups b join projects p on p.id = b.project_id left join operations o on o.id = b.operation_id "# + $rest
            $(, $arg)*
        )
    };
}

/// Newest first.
pub async fn list_backups(
    conn: &mut PgConnection,
    project: ProjectId,
) -> StorageResult<Vec<Backup>> {
    query_backups!(
        "where b.project_id = $1 and b.deleted_at is null order by b.created_at desc, b.id desc",
        project.0
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Backup::try_from)
    .collect()
}

pub async fn find_backup(
    conn: &mut PgConnection,
    project: ProjectId,
    id: BackupId,
) -> StorageResult<Option<Backup>> {
    query_backups!(
        "where b.project_id = $1 and b.id = $2 and b.deleted_at is null",
        project.0,
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(Backup::try_from)
    .transpose()
}

/// For workers, also after it was deleted: an operation that began goes on.
pub async fn find_backup_in_work(
    conn: &mut PgConnection,
    project: ProjectId,
    id: BackupId,
) -> StorageResult<Option<Backup>> {
    query_backups!("where b.project_id = $1 and b.id = $2", project.0, id.0)
        .fetch_optional(conn)
        .await?
        .map(Backup::try_from)
        .transpose()
}

/// The users' own roles, as `cp-dump` wrote them.
pub async fn find_roles(conn: &mut PgConnection, id: BackupId) -> StorageResult<Value> {
    let roles = sqlx::query_scalar!("select roles from backups where id = $1", id.0)
        .fetch_optional(conn)
        .await?;
    Ok(roles.flatten().unwrap_or_default())
}

pub async fn has_backups(conn: &mut PgConnection, project: ProjectId) -> StorageResult<bool> {
    let has = sqlx::query_scalar!(
        r#"select exists (select from backups where project_id = $1) as "has!""#,
        project.0
    )
    .fetch_one(conn)
    .await?;
    Ok(has)
}

/// The newest whole one.
pub async fn find_latest(
    conn: &mut PgConnection,
    project: ProjectId,
) -> StorageResult<Option<Backup>> {
    query_backups!(
        "where b.project_id = $1 and b.deleted_at is null and b.completed_at is not null
         order by b.created_at desc, b.id desc limit 1",
        project.0
    )
    .fetch_optional(conn)
    .await?
    .map(Backup::try_from)
    .transpose()
}

pub async fn set_name(
    conn: &mut PgConnection,
    project: ProjectId,
    id: BackupId,
    name: Option<&str>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update backups set name = $3 where project_id = $1 and id = $2 and deleted_at is null",
        project.0,
        id.0,
        name
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What a worker has stored: the backup is whole from now on.
pub async fn mark_completed(
    conn: &mut PgConnection,
    project: ProjectId,
    id: BackupId,
    copy: &StoredCopy,
    roles: &Value,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update backups set copy = $3, roles = $4, completed_at = $5
         where project_id = $1 and id = $2 and completed_at is null and deleted_at is null",
        project.0,
        id.0,
        serde_json::json!(copy),
        roles,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn mark_deleted(
    conn: &mut PgConnection,
    project: ProjectId,
    id: BackupId,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update backups set deleted_at = $3 where project_id = $1 and id = $2 and deleted_at is null",
        project.0,
        id.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Scheduled ones of before that time, but for each project's newest whole one; and those that failed before it.
pub async fn mark_expired(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
    now: DateTime<Utc>,
    limit: i64,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "update backups set deleted_at = $2 where id in
             (select b.id from backups b left join operations o on o.id = b.operation_id
              where b.created_at < $1 and b.deleted_at is null and (b.completed_at is null or b.trigger_source = 'scheduled')
                and case when b.completed_at is null then coalesce(o.state, '') not in ('queued', 'running', 'waiting')
                         else exists (select from backups n where n.project_id = b.project_id and n.deleted_at is null
                                          and n.completed_at is not null and n.trigger_source = 'scheduled'
                                          and n.created_at > b.created_at) end
                and not exists (select from operations r where r.project_id = b.project_id and r.kind = 'restore_backup'
                                and r.state in ('queued', 'running', 'waiting'))
              limit $3)",
        before,
        now,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// A backup whose stored content is to be deleted.
pub struct DeletedBackup {
    pub id: BackupId,
    pub project: ProjectId,
    pub region: Region,
}

/// For the service itself: those deleted before then, the longest deleted first.
pub async fn list_deleted(
    conn: &mut PgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> StorageResult<Vec<DeletedBackup>> {
    let rows = sqlx::query!(
        "select b.id, b.project_id, p.region from backups b join projects p on p.id = b.project_id
         where b.deleted_at < $1
           and not exists (select from operations r where r.project_id = b.project_id and r.kind = 'restore_backup'
                           and r.state in ('queued', 'running', 'waiting'))
         order by b.deleted_at limit $2",
        before,
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(DeletedBackup {
                id: BackupId(row.id),
                project: ProjectId(row.project_id),
                region: parse("projects", "region", &row.region)?,
            })
        })
        .collect()
}

/// What could not be deleted goes behind the others.
pub async fn put_off_deletion(
    conn: &mut PgConnection,
    id: BackupId,
    now: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "update backups set deleted_at = $2 where id = $1 and deleted_at is not null",
        id.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Its stored content is gone.
pub async fn delete_backup(conn: &mut PgConnection, id: BackupId) -> StorageResult<()> {
    sqlx::query!(
        "delete from backups where id = $1 and deleted_at is not null",
        id.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The project is gone, and all that was stored for it.
pub async fn delete_backups_of(conn: &mut PgConnection, project: ProjectId) -> StorageResult<()> {
    sqlx::query!("delete from backups where project_id = $1", project.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// Only one process begins scheduled backups at a time. False: another one is at it. Held until the transaction ends.
pub async fn try_lock_schedule(conn: &mut PgConnection) -> StorageResult<bool> {
    let locked =
        sqlx::query_scalar("select pg_try_advisory_xact_lock(hashtext('scheduled_backups'))");
    Ok(locked.fetch_one(conn).await?)
}

/// For the service itself: active projects, branches never, whose next backup is due.
pub async fn list_due_projects(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
    limit: i64,
) -> StorageResult<Vec<ProjectId>> {
    let rows = sqlx::query_scalar!(
        "select id from projects where status = 'active' and parent_id is null and next_backup_at <= $1
         order by next_backup_at limit $2",
        now,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(ProjectId).collect())
}

/// For the service itself: how long the longest of [`list_due_projects`] has been due, in seconds; 0: none is.
pub async fn oldest_due_seconds(conn: &mut PgConnection, now: DateTime<Utc>) -> StorageResult<f64> {
    let seconds = sqlx::query_scalar!(
        r#"select extract(epoch from $1 - min(next_backup_at))::float8 as "seconds" from projects
           where status = 'active' and parent_id is null and next_backup_at <= $1"#,
        now
    )
    .fetch_one(conn)
    .await?;
    Ok(seconds.unwrap_or(0.0))
}

/// When the project's next scheduled backup is due. False: it is not due now.
pub async fn put_off_next(
    conn: &mut PgConnection,
    project: ProjectId,
    next: DateTime<Utc>,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update projects set next_backup_at = $2 where id = $1 and next_backup_at <= $3",
        project.0,
        next,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A scheduled one that made way comes soon again.
pub async fn bring_forward(
    conn: &mut PgConnection,
    project: ProjectId,
    next: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "update projects set next_backup_at = least(next_backup_at, $2) where id = $1",
        project.0,
        next
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// For the service itself: how many scheduled backups are being made.
pub async fn count_scheduled_in_flight(conn: &mut PgConnection) -> StorageResult<i64> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from operations
           where kind = 'backup' and requested_by = 'system' and state in ('queued', 'running', 'waiting')"#
    )
    .fetch_one(conn)
    .await?;
    Ok(count)
}
