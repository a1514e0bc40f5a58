//! Backups of a project's database (contract/platform-api.md 11).

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use cp_domain::{ControlPlane, MemberProject};
use cp_model::{
    Backup, BackupId, BackupStatus, BackupTrigger, FieldError, OrganizationId, Plan, ProjectId,
    ProjectStatus, Scope, UserId,
};
use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::ApiState;
use crate::bearer::Bearer;
use crate::body::{IgnoredBody, JsonBody, RequestBody};
use crate::docs::errors::{
    BackupErrors, BearerErrors, NotConfiguredError, OwnProjectErrors, PlatformChangeErrors,
    PlatformInputErrors,
};
use crate::params::{BackupParam, BackupPath, ProjectParam, ProjectPath, QueryText, switch};
use crate::places::Place;
use crate::problem::Problem;
use crate::wire::{schema, time};

/// How long a download link is good.
const LINK_LIFETIME: Duration = Duration::from_hours(1);

/// A copy of a project's database at one moment.
#[derive(Serialize, ToSchema)]
#[schema(as = Backup)]
pub struct BackupBody {
    #[schema(value_type = Uuid)]
    id: BackupId,
    #[schema(value_type = Uuid)]
    project_id: ProjectId,
    #[schema(value_type = Uuid)]
    organization_id: OrganizationId,
    /// The organization's plan when it was made.
    #[schema(schema_with = schema::plan)]
    plan: Plan,
    #[schema(schema_with = schema::backup_status)]
    status: BackupStatus,
    #[schema(schema_with = schema::backup_trigger)]
    trigger_source: BackupTrigger,
    /// Why it failed, or what its last attempt failed with.
    #[schema(required = true)]
    error_message: Option<String>,
    /// When the work began; null: not yet.
    #[serde(serialize_with = "time::optional_seconds")]
    #[schema(required = true, example = "2026-08-22T03:00:01Z")]
    triggered_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "time::seconds")]
    #[schema(example = "2026-08-22T03:00:00Z")]
    created_at: DateTime<Utc>,
    #[schema(required = true, example = "before-launch")]
    name: Option<String>,
    /// Null until it is complete.
    #[schema(required = true, example = 18_874_368)]
    size_bytes: Option<u64>,
    /// Who asked for it; null: the schedule.
    #[schema(value_type = Option<Uuid>, required = true)]
    created_by: Option<UserId>,
}

impl From<Backup> for BackupBody {
    fn from(backup: Backup) -> Self {
        let is_whole = backup.status == BackupStatus::Completed;
        Self {
            id: backup.id,
            project_id: backup.project_id,
            organization_id: backup.organization_id,
            plan: backup.plan,
            status: backup.status,
            trigger_source: backup.trigger,
            error_message: backup
                .failure
                .filter(|_| !is_whole)
                .map(|failure| failure.message),
            triggered_at: backup.started_at,
            created_at: backup.created_at,
            name: backup.name,
            size_bytes: backup.copy.map(|copy| copy.size),
            created_by: backup.created_by,
        }
    }
}

/// A project's backups, the newest first.
#[derive(Serialize, ToSchema)]
pub struct BackupsResponse {
    backups: Vec<BackupBody>,
}

/// The newest complete backup, to be fetched.
#[derive(Serialize, ToSchema)]
pub struct LatestBackupResponse {
    #[schema(example = "k7m2qx9d-20260822T030000Z.dump")]
    file: String,
    /// Good for an hour, for whoever has it. `pg_restore` of Postgres 15 reads what is there.
    download_url: String,
    #[schema(example = 18_874_368)]
    size_bytes: u64,
}

/// The query of a backup.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct BackupQuery {
    /// `true`: answer only when it is complete, or after five minutes with 202.
    #[serde(rename = "waitForCompletion")]
    #[param(required = false, nullable = false, example = "true")]
    wait: Option<String>,
}

/// The body of a backup.
#[derive(Deserialize, ToSchema)]
pub struct CreateBackupRequest {
    /// 1 to 64 characters.
    #[schema(
        nullable = false,
        min_length = 1,
        max_length = 64,
        example = "before-launch"
    )]
    name: Option<String>,
}

impl RequestBody for CreateBackupRequest {
    fn when_absent() -> Option<Self> {
        Some(Self { name: None })
    }
}

/// What is done with a backup, and to which project.
#[derive(Serialize, ToSchema)]
pub struct BackupWork {
    #[schema(example = "The backup is being made.")]
    message: &'static str,
    project: BackedUpProject,
    backup: BackupBody,
}

impl BackupWork {
    fn new(message: &'static str, project: MemberProject, backup: Backup) -> Self {
        Self {
            message,
            project: BackedUpProject {
                id: project.id,
                name: project.name,
                status: project.status,
            },
            backup: backup.into(),
        }
    }
}

/// The project that is backed up, or restored.
#[derive(Serialize, ToSchema)]
struct BackedUpProject {
    #[schema(value_type = Uuid)]
    id: ProjectId,
    #[schema(example = "storefront")]
    name: String,
    #[schema(schema_with = schema::status)]
    status: ProjectStatus,
}

/// The body of a rename.
#[derive(Deserialize, ToSchema)]
pub struct RenameBackupRequest {
    /// 1 to 64 characters; null: none any more.
    #[serde(default)]
    #[schema(value_type = Option<String>, required = true, min_length = 1, max_length = 64, example = "before-launch")]
    name: NewName,
}

/// Null is not the same as left out.
#[derive(Default)]
enum NewName {
    #[default]
    LeftOut,
    Given(Option<String>),
}

impl<'de> Deserialize<'de> for NewName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self::Given)
    }
}

impl RequestBody for RenameBackupRequest {}

/// The answer to a rename.
#[derive(Serialize, ToSchema)]
pub struct RenamedBackup {
    #[schema(value_type = Uuid)]
    id: BackupId,
    #[schema(required = true, example = "before-launch")]
    name: Option<String>,
}

/// List a project's backups
///
/// Those that people asked for and the daily ones, of which those of the last seven days are kept. Asks for the scope
/// `projects:read`.
#[utoipa::path(
    get,
    path = "/projects/v1/{projectId}/backups",
    tag = "Backups",
    security(("bearer" = ["projects:read"])),
    params(ProjectParam),
    responses(
        (status = 200, description = "The backups", body = BackupsResponse),
        BearerErrors, OwnProjectErrors,
    )
)]
pub async fn list_backups(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    ProjectPath(id): ProjectPath,
) -> Result<Json<BackupsResponse>, Problem> {
    by.require(Scope::ProjectsRead)?;
    let backups = control_plane.list_backups(&by, id).await?;
    let backups = backups.into_iter().map(BackupBody::from).collect();
    Ok(Json(BackupsResponse { backups }))
}

/// Get the newest backup
///
/// A link to all that is in the database, so it asks for the scope `projects:write`.
#[utoipa::path(
    get,
    path = "/projects/v1/{projectId}/backup/latest",
    tag = "Backups",
    security(("bearer" = ["projects:write"])),
    params(ProjectParam),
    responses(
        (status = 200, description = "The backup and a link to it", body = LatestBackupResponse),
        BearerErrors, BackupErrors, NotConfiguredError,
    )
)]
pub async fn get_latest_backup(
    State(state): State<ApiState>,
    Bearer(by): Bearer,
    ProjectPath(id): ProjectPath,
) -> Result<Response, Problem> {
    by.require(Scope::ProjectsWrite)?;
    let (project, backup, copy) = state.control_plane.latest_backup(&by, id).await?;
    let downloads = state.downloads.as_ref().ok_or_else(|| {
        Problem::not_configured(
            "This server was not given the store that backups are in (section [objects]).",
        )
    })?;
    let link = downloads.link(project.region, &copy.key, LINK_LIFETIME);
    let link = link.await.ok_or_else(Problem::unavailable)?;
    let at = backup.created_at.format("%Y%m%dT%H%M%SZ");
    let body = Json(LatestBackupResponse {
        file: format!("{}-{at}.dump", project.app_key),
        download_url: link.expose_secret().to_owned(),
        size_bytes: copy.size,
    });
    let no_store = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((no_store, body).into_response())
}

/// Back a project up
///
/// Copies its database while it serves, with users, configuration and all tables. A plan has places for one backup (free)
/// or five (paid) of a project; the daily ones take none. Asks for the scope `projects:write`.
#[utoipa::path(
    post,
    path = "/projects/v1/{projectId}/backup",
    tag = "Backups",
    security(("bearer" = ["projects:write"])),
    params(ProjectParam, BackupQuery),
    request_body(content = CreateBackupRequest, description = "May be left out"),
    responses(
        (status = 200, description = "It is made", body = BackupWork),
        (status = 202, description = "It is being made", body = BackupWork),
        BearerErrors, OwnProjectErrors, PlatformInputErrors, PlatformChangeErrors,
    )
)]
pub async fn create_backup(
    State(state): State<ApiState>,
    Bearer(by): Bearer,
    ProjectPath(project): ProjectPath,
    QueryText(query): QueryText<BackupQuery>,
    place: Place,
    body: JsonBody<CreateBackupRequest>,
) -> Result<Response, Problem> {
    by.require(Scope::ProjectsWrite)?;
    let wait = switch("waitForCompletion", query.wait.as_deref())?;
    let control_plane = &state.control_plane;
    let name = body.value.name.as_deref();
    let (id, _) = control_plane.create_backup(&by, project, name).await?;
    let waiting = if wait {
        state.waits.begin_for_user(by.user.id, &place)
    } else {
        None
    };
    let at_most = waiting.as_ref().map_or(Duration::ZERO, |_| PATIENCE);
    let look = |at_most| control_plane.wait_for_backup(&by, project, id, at_most);
    let backup = tokio::select! {
        seen = look(at_most) => seen?,
        () = state.shutdown.cancelled() => look(Duration::ZERO).await?,
    };
    let (status, message) = match backup.status {
        BackupStatus::Completed => (StatusCode::OK, "The backup is complete."),
        BackupStatus::Running => (StatusCode::ACCEPTED, "The backup is being made."),
        BackupStatus::Failed => return Err(failed(backup)),
    };
    let project = control_plane.member_project(&by, project).await?;
    let body = BackupWork::new(message, project, backup);
    Ok((status, Json(body)).into_response())
}

/// How long a backup is waited for: HTTP clients give up after five minutes.
const PATIENCE: Duration = Duration::from_secs(270);

fn failed(backup: Backup) -> Problem {
    let why = backup
        .failure
        .map_or_else(|| "it was given up".to_owned(), |failure| failure.message);
    Problem::new(
        StatusCode::CONFLICT,
        "backup_failed",
        format!("The backup was not made: {why}."),
    )
}

/// Rename a backup
///
/// Asks for the scope `projects:write`.
#[utoipa::path(
    patch,
    path = "/projects/v1/{projectId}/backups/{backupId}",
    tag = "Backups",
    security(("bearer" = ["projects:write"])),
    params(ProjectParam, BackupParam),
    request_body = RenameBackupRequest,
    responses(
        (status = 200, description = "Its name from now on", body = RenamedBackup),
        BearerErrors, BackupErrors, PlatformInputErrors,
    )
)]
pub async fn rename_backup(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    BackupPath(project, id): BackupPath,
    body: JsonBody<RenameBackupRequest>,
) -> Result<Json<RenamedBackup>, Problem> {
    by.require(Scope::ProjectsWrite)?;
    let NewName::Given(name) = body.value.name else {
        return Err(FieldError::new("name", "must be given; null for none").into());
    };
    let renamed = control_plane
        .rename_backup(&by, project, id, name.as_deref())
        .await?;
    Ok(Json(RenamedBackup {
        id: renamed.id,
        name: renamed.name,
    }))
}

/// Delete a backup
///
/// For good; one that is being made is given up. For administrators.
#[utoipa::path(
    delete,
    path = "/projects/v1/{projectId}/backups/{backupId}",
    tag = "Backups",
    security(("bearer" = ["projects:write", "administrator"])),
    params(ProjectParam, BackupParam),
    responses(
        (status = 204, description = "It is deleted"),
        BearerErrors, BackupErrors, PlatformChangeErrors,
    )
)]
pub async fn delete_backup(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    BackupPath(project, id): BackupPath,
    IgnoredBody(_): IgnoredBody,
) -> Result<StatusCode, Problem> {
    by.require(Scope::ProjectsWrite)?;
    control_plane.delete_backup(&by, project, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Restore a backup
///
/// The project is offline meanwhile (`restoring`) and has the database of the backup afterwards; what was written since is
/// lost. Its keys stay those of today. A restore that fails leaves the database as it was. Objects in buckets are not part
/// of a backup. For administrators.
#[utoipa::path(
    post,
    path = "/projects/v1/{projectId}/backups/{backupId}/restore",
    tag = "Backups",
    security(("bearer" = ["projects:write", "administrator"])),
    params(ProjectParam, BackupParam),
    responses(
        (status = 202, description = "The project, which is being restored", body = BackupWork),
        BearerErrors, BackupErrors, PlatformChangeErrors,
    )
)]
pub async fn restore_backup(
    State(state): State<ApiState>,
    Bearer(by): Bearer,
    BackupPath(project, id): BackupPath,
    IgnoredBody(_): IgnoredBody,
) -> Result<Response, Problem> {
    by.require(Scope::ProjectsWrite)?;
    let control_plane = &state.control_plane;
    control_plane.restore_backup(&by, project, id).await?;
    let backup = control_plane
        .wait_for_backup(&by, project, id, Duration::ZERO)
        .await?;
    let project = control_plane.member_project(&by, project).await?;
    let body = BackupWork::new("The backup is being restored.", project, backup);
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}
