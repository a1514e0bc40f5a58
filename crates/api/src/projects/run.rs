//! Whether a project runs, with what, on what.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cp_domain::{MemberProject, ProjectCaller, Upgrade, UserCaller};
use cp_model::{InstanceType, ProjectId, Scope, field};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::ApiState;
use crate::bearer::Bearer;
use crate::body::{IgnoredBody, JsonBody, RequestBody};
use crate::docs::errors::{
    BearerErrors, OwnProjectErrors, PlatformChangeErrors, PlatformInputErrors,
};
use crate::params::{ProjectParam, ProjectPath, QueryText, one_of, switch};
use crate::places::Place;
use crate::problem::Problem;
use crate::wire::member_project::{Project, ProjectResponse};
use crate::wire::schema;

/// The query of a restart.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RestartQuery {
    /// The release to run from now on; the present one if left out.
    #[serde(rename = "insforgeOssVersion")]
    #[param(required = false, nullable = false, example = "v2.2.3")]
    release: Option<String>,
    /// `true`: answer only when it is done, or after 60 seconds with 202 and the status so far.
    #[serde(rename = "waitForCompletion")]
    #[param(required = false, nullable = false, example = "true")]
    wait: Option<String>,
}

/// The body of `upgrade-instance`.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeInstanceRequest {
    #[schema(schema_with = schema::instance_type)]
    instance_type: String,
}

impl RequestBody for UpgradeInstanceRequest {}

/// The answer to `upgrade-instance`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UpgradeResult {
    #[schema(example = "The project is being upgraded.")]
    message: &'static str,
    project: Project,
    #[schema(schema_with = schema::instance_type)]
    previous_instance_type: InstanceType,
    #[schema(schema_with = schema::instance_type)]
    new_instance_type: InstanceType,
    #[serde(rename = "previousVolumeSizeGiB")]
    #[schema(example = 8)]
    previous_volume_size_gib: i32,
    #[serde(rename = "newVolumeSizeGiB")]
    #[schema(example = 8)]
    new_volume_size_gib: i32,
}

/// The project as it is now: 202 while it is still under way.
async fn answer(state: &ApiState, by: &UserCaller, id: ProjectId) -> Result<Response, Problem> {
    let seen = state.control_plane.member_project(by, id).await?;
    Ok(answer_with(seen))
}

fn answer_with(seen: MemberProject) -> Response {
    let status = if seen.status.is_transitional() {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    (status, Json(ProjectResponse::from(seen))).into_response()
}

/// Pause a project
///
/// Stops its machine; its data stays. Gives its place in the plan away. Pausing a paused project does nothing. Asks for
/// the scope `projects:write`.
#[utoipa::path(
    post,
    path = "/projects/v1/{projectId}/pause",
    tag = "Projects",
    security(("bearer" = ["projects:write"])),
    params(ProjectParam),
    responses(
        (status = 200, description = "It is paused", body = ProjectResponse),
        (status = 202, description = "It is being paused", body = ProjectResponse),
        BearerErrors, OwnProjectErrors, PlatformChangeErrors,
    )
)]
pub async fn pause_own_project(
    State(state): State<ApiState>,
    Bearer(by): Bearer,
    ProjectPath(id): ProjectPath,
    IgnoredBody(_): IgnoredBody,
) -> Result<Response, Problem> {
    by.require(Scope::ProjectsWrite)?;
    let caller = ProjectCaller::Person(&by);
    state.control_plane.pause_project(caller, id).await?;
    answer(&state, &by, id).await
}

/// Restore a project
///
/// Starts the machine of a paused project. Takes a place of the plan again. Restoring an active project does nothing.
/// Asks for the scope `projects:write`.
#[utoipa::path(
    post,
    path = "/projects/v1/{projectId}/restore",
    tag = "Projects",
    security(("bearer" = ["projects:write"])),
    params(ProjectParam),
    responses(
        (status = 200, description = "It is active", body = ProjectResponse),
        (status = 202, description = "It is being restored", body = ProjectResponse),
        BearerErrors, OwnProjectErrors, PlatformChangeErrors,
    )
)]
pub async fn restore_own_project(
    State(state): State<ApiState>,
    Bearer(by): Bearer,
    ProjectPath(id): ProjectPath,
    IgnoredBody(_): IgnoredBody,
) -> Result<Response, Problem> {
    by.require(Scope::ProjectsWrite)?;
    let caller = ProjectCaller::Person(&by);
    state.control_plane.restore_project(caller, id).await?;
    answer(&state, &by, id).await
}

/// Restart a project
///
/// Restarts its backend, with another release of InsForge if one is named. A release that does not become healthy is
/// given up for the one before; `service_version` names what runs. Asks for the scope `projects:write`.
#[utoipa::path(
    post,
    path = "/projects/v1/{projectId}/restart",
    tag = "Projects",
    security(("bearer" = ["projects:write"])),
    params(ProjectParam, RestartQuery),
    responses(
        (status = 200, description = "It has restarted", body = ProjectResponse),
        (status = 202, description = "It is restarting", body = ProjectResponse),
        BearerErrors, OwnProjectErrors, PlatformChangeErrors,
    )
)]
pub async fn restart_own_project(
    State(state): State<ApiState>,
    Bearer(by): Bearer,
    ProjectPath(id): ProjectPath,
    QueryText(query): QueryText<RestartQuery>,
    place: Place,
    IgnoredBody(_): IgnoredBody,
) -> Result<Response, Problem> {
    by.require(Scope::ProjectsWrite)?;
    let release = query.release.as_deref();
    let release = release.map(|given| field::release("insforgeOssVersion", given));
    let release = release.transpose()?;
    let wait = switch("waitForCompletion", query.wait.as_deref())?;
    let control_plane = &state.control_plane;
    let caller = ProjectCaller::Person(&by);
    control_plane
        .restart_project(caller, id, release.as_deref())
        .await?;
    if wait && let Some(_waiting) = state.waits.begin_for_user(by.user.id, &place) {
        let at_most = control_plane.settings().completion_wait;
        let seen = tokio::select! {
            seen = control_plane.wait_for_member_project(&by, id, at_most) => seen,
            () = state.shutdown.cancelled() => control_plane.member_project(&by, id).await,
        };
        return Ok(answer_with(seen?));
    }
    answer(&state, &by, id).await
}

/// Give a project another machine size
///
/// Its machine stops and starts; when it does not come back with the new size it gets the previous one again. Answered
/// when it is under way. For administrators of organizations that pay, since it changes what the project costs.
#[utoipa::path(
    post,
    path = "/projects/v1/{projectId}/upgrade-instance",
    tag = "Projects",
    security(("bearer" = ["account", "administrator"])),
    params(ProjectParam),
    request_body = UpgradeInstanceRequest,
    responses(
        (status = 200, description = "The sizes before and after", body = UpgradeResult),
        BearerErrors, OwnProjectErrors, PlatformInputErrors, PlatformChangeErrors,
    )
)]
pub async fn upgrade_instance(
    State(state): State<ApiState>,
    Bearer(by): Bearer,
    ProjectPath(id): ProjectPath,
    body: JsonBody<UpgradeInstanceRequest>,
) -> Result<Response, Problem> {
    by.require_everything()?;
    let given = &body.value.instance_type;
    let wanted = one_of(
        "instanceType",
        given,
        InstanceType::ALL,
        InstanceType::as_str,
    )?;
    let control_plane = &state.control_plane;
    let caller = ProjectCaller::Person(&by);
    let from = control_plane.member_project(&by, id).await?.size;
    let upgrade = Upgrade::to_instance_type(wanted)?;
    control_plane.upgrade_project(caller, id, upgrade).await?;
    let project: Project = control_plane.member_project(&by, id).await?.into();
    let message = if from.instance_type == wanted {
        "The project has this size already."
    } else {
        "The project is being upgraded."
    };
    let body = UpgradeResult {
        message,
        previous_instance_type: from.instance_type,
        new_instance_type: wanted,
        previous_volume_size_gib: from.volume_gib,
        new_volume_size_gib: project.storage_disk_size,
        project,
    };
    Ok(Json(body).into_response())
}
