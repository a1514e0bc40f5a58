//! `/organizations/v1/{organizationId}/projects`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cp_domain::{ControlPlane, ProjectRequest};
use cp_model::{InstanceType, ProjectId, Region, Scope};
use http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::bearer::Bearer;
use crate::body::{JsonBody, RequestBody};
use crate::docs::errors::{BearerErrors, MemberErrors, PlatformInputErrors};
use crate::params::{self, OrganizationParam, OrganizationPath, QueryText, one_of};
use crate::problem::Problem;
use crate::wire::member_project::{ProjectResponse, ProjectsResponse};
use crate::wire::schema;

const MAX_LIMIT: u32 = 100;

/// The body of a new project.
#[derive(Deserialize, ToSchema)]
pub struct CreateProjectRequest {
    #[schema(min_length = 2, max_length = 64, example = "storefront")]
    name: String,
    #[schema(schema_with = schema::optional_region)]
    region: Option<String>,
}

impl RequestBody for CreateProjectRequest {}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// `next_cursor` of the page before.
    #[param(value_type = Option<Uuid>, required = false, nullable = false)]
    cursor: Option<String>,
    /// Projects on a page; all of them if left out.
    #[param(value_type = Option<u32>, required = false, nullable = false, minimum = 1, maximum = 100)]
    limit: Option<String>,
}

/// List an organization's projects
///
/// Oldest first; all of them, or with `limit` in pages. Branches are listed with their parents. Asks for the scope
/// `projects:read`.
#[utoipa::path(
    get,
    path = "/organizations/v1/{organizationId}/projects",
    tag = "Projects",
    security(("bearer" = ["projects:read"])),
    params(OrganizationParam, PageQuery),
    responses(
        (status = 200, description = "The projects", body = ProjectsResponse),
        BearerErrors, MemberErrors,
    )
)]
pub async fn list_organization_projects(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    OrganizationPath(id): OrganizationPath,
    QueryText(query): QueryText<PageQuery>,
) -> Result<Json<ProjectsResponse>, Problem> {
    by.require(Scope::ProjectsRead)?;
    let after = params::id("cursor", query.cursor.as_deref())?.map(ProjectId);
    let limit = query
        .limit
        .as_deref()
        .map(|given| params::number("limit", Some(given), 1..=MAX_LIMIT, MAX_LIMIT))
        .transpose()?;
    let page = control_plane
        .list_organization_projects(&by, id, after, limit)
        .await?;
    Ok(Json(ProjectsResponse {
        projects: page.items.into_iter().map(Into::into).collect(),
        next_cursor: page.next,
    }))
}

/// Create a project
///
/// Answered at once, with status `provisioning`; id, app key and region are final. Ask for it until it is `active`.
/// Asks for the scope `projects:write`.
#[utoipa::path(
    post,
    path = "/organizations/v1/{organizationId}/projects",
    tag = "Projects",
    security(("bearer" = ["projects:write"])),
    params(OrganizationParam),
    request_body = CreateProjectRequest,
    responses(
        (status = 201, description = "It is being made", body = ProjectResponse),
        BearerErrors, MemberErrors, PlatformInputErrors,
    )
)]
pub async fn create_project(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    OrganizationPath(organization): OrganizationPath,
    body: JsonBody<CreateProjectRequest>,
) -> Result<Response, Problem> {
    by.require(Scope::ProjectsWrite)?;
    let CreateProjectRequest { name, region } = body.value;
    let region = match region.as_deref() {
        Some(given) => one_of("region", given, Region::ALL, Region::as_str)?,
        None => Region::DEFAULT,
    };
    let request = ProjectRequest {
        name,
        region,
        instance_type: InstanceType::DEFAULT,
        external_id: None,
        metadata: None,
    };
    let id = control_plane
        .create_project(&by, organization, &request)
        .await?;
    let made = control_plane.member_project(&by, id).await?;
    let body = Json(ProjectResponse::from(made));
    Ok((StatusCode::CREATED, body).into_response())
}
