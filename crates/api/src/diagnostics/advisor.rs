//! The platform's advisor. It makes no scans: a backend advises itself, and the client asks here only when that one
//! has no such route. So there is never one to show.

use axum::extract::State;
use cp_domain::{ControlPlane, UserCaller};
use cp_model::{ProjectId, Scope};
use http::StatusCode;

use crate::bearer::Bearer;
use crate::docs::errors::{BearerErrors, OwnProjectErrors};
use crate::params::{ProjectParam, ProjectPath};
use crate::problem::Problem;

async fn no_scan(
    control_plane: &ControlPlane,
    by: &UserCaller,
    id: ProjectId,
) -> Result<(), Problem> {
    by.require(Scope::ProjectsRead)?;
    control_plane.member_project(by, id).await?;
    Err(Problem::new(
        StatusCode::NOT_FOUND,
        "no_scan",
        "There is no scan of this project: its backend advises itself.",
    ))
}

/// Get the latest scan
///
/// There is none: the platform makes no scans, backends advise themselves. Asks for the scope `projects:read`.
#[utoipa::path(
    get,
    path = "/projects/v1/{projectId}/advisor/latest",
    tag = "Diagnostics",
    security(("bearer" = ["projects:read"])),
    params(ProjectParam),
    responses(BearerErrors, OwnProjectErrors)
)]
pub async fn get_latest_scan(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    ProjectPath(id): ProjectPath,
) -> Result<(), Problem> {
    no_scan(&control_plane, &by, id).await
}

/// List the latest scan's issues
///
/// There are none: the platform makes no scans, backends advise themselves. Asks for the scope `projects:read`.
#[utoipa::path(
    get,
    path = "/projects/v1/{projectId}/advisor/latest/issues",
    tag = "Diagnostics",
    security(("bearer" = ["projects:read"])),
    params(ProjectParam),
    responses(BearerErrors, OwnProjectErrors)
)]
pub async fn list_latest_issues(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    ProjectPath(id): ProjectPath,
) -> Result<(), Problem> {
    no_scan(&control_plane, &by, id).await
}
