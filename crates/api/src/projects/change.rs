//! What changes a project, its end, and whose it is.

use axum::Json;
use axum::extract::State;
use cp_domain::{ControlPlane, ProjectCaller, ProjectUpdate};
use cp_model::{OrganizationId, Scope};
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::bearer::Bearer;
use crate::body::{IgnoredBody, JsonBody, RequestBody};
use crate::docs::errors::{
    BearerErrors, OwnProjectErrors, PlatformChangeErrors, PlatformInputErrors,
};
use crate::params::{self, ProjectParam, ProjectPath};
use crate::problem::Problem;
use crate::wire::member_project::ProjectResponse;

/// The body of a change of a project: at least one.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateProjectRequest {
    #[schema(min_length = 2, max_length = 64, example = "storefront")]
    name: Option<String>,
    /// A host name of your own. Noted with the project; leading it there is up to your DNS and proxy. Empty: none any
    /// more.
    #[schema(max_length = 253, example = "api.example.com")]
    customized_domain: Option<String>,
    /// The size of its disk, in GiB; at least the present one, since a disk only grows. For administrators of
    /// organizations that pay.
    #[schema(minimum = 8, maximum = 16384, example = 20)]
    storage_disk_size: Option<i64>,
}

impl RequestBody for UpdateProjectRequest {}

/// The body of a transfer.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransferRequest {
    #[schema(format = Uuid, example = "019a2f60-44d0-7c3e-b1a5-0d5e7f9a2c31")]
    target_organization_id: String,
}

impl RequestBody for TransferRequest {}

/// Change a project
///
/// Its name, its domain, the size of its disk: all of what is given, or nothing. The disk grows while the project
/// serves; `operation_status` tells when it is done. Asks for the scope `projects:write`.
#[utoipa::path(
    put,
    path = "/projects/v1/{projectId}",
    tag = "Projects",
    security(("bearer" = ["projects:write"])),
    params(ProjectParam),
    request_body = UpdateProjectRequest,
    responses(
        (status = 200, description = "The project", body = ProjectResponse),
        BearerErrors, OwnProjectErrors, PlatformInputErrors, PlatformChangeErrors,
    )
)]
pub async fn update_project(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    ProjectPath(id): ProjectPath,
    body: JsonBody<UpdateProjectRequest>,
) -> Result<Json<ProjectResponse>, Problem> {
    by.require(Scope::ProjectsWrite)?;
    if body.value.storage_disk_size.is_some() {
        // It costs money.
        by.require_everything()?;
    }
    let update = ProjectUpdate {
        name: body.value.name,
        customized_domain: body.value.customized_domain,
        storage_disk_size: body.value.storage_disk_size,
    };
    control_plane.update_project(&by, id, &update).await?;
    Ok(Json(control_plane.member_project(&by, id).await?.into()))
}

/// Delete a project
///
/// Cannot be undone. Access ends with the answer, to its branches too; the machine is taken down after it. For
/// administrators. Asks for the scope `projects:write`.
#[utoipa::path(
    delete,
    path = "/projects/v1/{projectId}",
    tag = "Projects",
    security(("bearer" = ["projects:write", "administrator"])),
    params(ProjectParam),
    responses(
        (status = 204, description = "The project is deleted"),
        BearerErrors, OwnProjectErrors, PlatformChangeErrors,
    )
)]
pub async fn delete_own_project(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    ProjectPath(id): ProjectPath,
    IgnoredBody(_): IgnoredBody,
) -> Result<StatusCode, Problem> {
    by.require(Scope::ProjectsWrite)?;
    let caller = ProjectCaller::Person(&by);
    control_plane.delete_project(caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Transfer a project
///
/// Gives the project, with its branches, to another organization that you administer. It goes on serving meanwhile.
#[utoipa::path(
    post,
    path = "/projects/v1/{projectId}/transfer",
    tag = "Projects",
    security(("bearer" = ["account", "administrator"])),
    params(ProjectParam),
    request_body = TransferRequest,
    responses(
        (status = 200, description = "The project", body = ProjectResponse),
        BearerErrors, OwnProjectErrors, PlatformInputErrors, PlatformChangeErrors,
    )
)]
pub async fn transfer_project(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    ProjectPath(id): ProjectPath,
    body: JsonBody<TransferRequest>,
) -> Result<Json<ProjectResponse>, Problem> {
    by.require_everything()?;
    let field = "targetOrganizationId";
    let target = params::parse_id(field, &body.value.target_organization_id)?;
    control_plane
        .transfer_project(&by, id, OrganizationId(target))
        .await?;
    Ok(Json(control_plane.member_project(&by, id).await?.into()))
}
