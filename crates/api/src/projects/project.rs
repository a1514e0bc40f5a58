//! Reading a project.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cp_domain::ControlPlane;
use cp_model::Scope;
use http::HeaderValue;
use http::header::CACHE_CONTROL;
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;

use crate::bearer::Bearer;
use crate::docs::errors::{BearerErrors, OwnProjectErrors};
use crate::params::{ProjectParam, ProjectPath};
use crate::problem::Problem;
use crate::wire::member_project::ProjectResponse;

/// Get a project
///
/// Asks for the scope `projects:read`.
#[utoipa::path(
    get,
    path = "/projects/v1/{projectId}",
    tag = "Projects",
    security(("bearer" = ["projects:read"])),
    params(ProjectParam),
    responses(
        (status = 200, description = "The project", body = ProjectResponse),
        BearerErrors, OwnProjectErrors,
    )
)]
pub async fn get_project(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    ProjectPath(id): ProjectPath,
) -> Result<Json<ProjectResponse>, Problem> {
    by.require(Scope::ProjectsRead)?;
    Ok(Json(control_plane.member_project(&by, id).await?.into()))
}

/// The key of a project's backend. A credential, so this has no `Debug`.
#[derive(Serialize, ToSchema)]
struct AccessApiKeyResponse<'a> {
    #[schema(example = "ik_0123456789abcdef0123456789abcdef")]
    access_api_key: &'a str,
}

/// Get a project's API key
///
/// With it everything can be done to the project's backend, so this asks for the scope `projects:write`.
#[utoipa::path(
    get,
    path = "/projects/v1/{projectId}/access-api-key",
    tag = "Projects",
    security(("bearer" = ["projects:write"])),
    params(ProjectParam),
    responses(
        (status = 200, description = "The key", body = AccessApiKeyResponse),
        BearerErrors, OwnProjectErrors,
    )
)]
pub async fn get_access_api_key(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    ProjectPath(id): ProjectPath,
) -> Result<Response, Problem> {
    by.require(Scope::ProjectsWrite)?;
    let key = control_plane.access_api_key(&by, id).await?;
    let body = Json(AccessApiKeyResponse {
        access_api_key: key.expose_secret(),
    });
    let no_store = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((no_store, body).into_response())
}
