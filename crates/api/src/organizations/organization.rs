//! `/organizations/v1` and `/organizations/v1/{organizationId}`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cp_domain::ControlPlane;
use cp_model::{OrganizationId, OrganizationKind, Scope};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::bearer::Bearer;
use crate::body::{IgnoredBody, JsonBody, RequestBody};
use crate::docs::errors::{BearerErrors, MemberErrors, PlatformChangeErrors, PlatformInputErrors};
use crate::params::{OrganizationParam, OrganizationPath, one_of};
use crate::problem::Problem;
use crate::wire::organization::{OrganizationResponse, OrganizationsResponse};
use crate::wire::schema;

fn kind(given: &str) -> Result<OrganizationKind, Problem> {
    let valid = OrganizationKind::OF_PEOPLE;
    Ok(one_of("type", given, valid, OrganizationKind::as_str)?)
}

/// The body of a new organization.
#[derive(Deserialize, ToSchema)]
pub struct CreateOrganizationRequest {
    #[schema(min_length = 2, max_length = 64, example = "Moreno Labs")]
    name: String,
    #[serde(rename = "type")]
    #[schema(schema_with = schema::organization_type)]
    kind: String,
}

impl RequestBody for CreateOrganizationRequest {}

/// The body of a change of an organization: at least one.
#[derive(Deserialize, ToSchema)]
pub struct UpdateOrganizationRequest {
    #[schema(min_length = 2, max_length = 64, example = "Moreno Labs")]
    name: Option<String>,
    #[serde(rename = "type")]
    #[schema(schema_with = schema::optional_organization_type)]
    kind: Option<String>,
}

impl RequestBody for UpdateOrganizationRequest {}

/// What was done to an organization.
#[derive(Serialize, ToSchema)]
struct LeftResponse {
    #[schema(example = "You have left the organization.")]
    message: &'static str,
}

/// What was done to an organization.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DeletedResponse {
    #[schema(example = "The organization is deleted.")]
    message: &'static str,
    #[schema(value_type = Uuid)]
    organization_id: OrganizationId,
}

/// List your organizations
///
/// Those that you belong to, your own first. Asks for the scope `organizations:read`.
#[utoipa::path(
    get,
    path = "/organizations/v1",
    tag = "Organizations",
    security(("bearer" = ["organizations:read"])),
    responses(
        (status = 200, description = "The organizations", body = OrganizationsResponse),
        BearerErrors,
    )
)]
pub async fn list_organizations(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
) -> Result<Json<OrganizationsResponse>, Problem> {
    by.require(Scope::OrganizationsRead)?;
    let organizations = control_plane.list_organizations(&by).await?;
    Ok(Json(OrganizationsResponse {
        organizations: organizations.into_iter().map(Into::into).collect(),
    }))
}

/// Create an organization
///
/// On the free plan, with you as its administrator. At most three of the free plan besides your own.
#[utoipa::path(
    post,
    path = "/organizations/v1",
    tag = "Organizations",
    security(("bearer" = ["account"])),
    request_body = CreateOrganizationRequest,
    responses(
        (status = 201, description = "The organization", body = OrganizationResponse),
        BearerErrors, PlatformInputErrors,
    )
)]
pub async fn create_organization(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    body: JsonBody<CreateOrganizationRequest>,
) -> Result<Response, Problem> {
    by.require_everything()?;
    let kind = kind(&body.value.kind)?;
    let made = control_plane
        .create_organization(&by, &body.value.name, kind)
        .await?;
    let body = Json(OrganizationResponse::from(made));
    Ok((StatusCode::CREATED, body).into_response())
}

/// Change an organization
///
/// Its name, its type, or both; your own stays personal. For administrators.
#[utoipa::path(
    put,
    path = "/organizations/v1/{organizationId}",
    tag = "Organizations",
    security(("bearer" = ["account", "administrator"])),
    params(OrganizationParam),
    request_body = UpdateOrganizationRequest,
    responses(
        (status = 200, description = "The organization", body = OrganizationResponse),
        BearerErrors, MemberErrors, PlatformInputErrors, PlatformChangeErrors,
    )
)]
pub async fn update_organization(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    OrganizationPath(id): OrganizationPath,
    body: JsonBody<UpdateOrganizationRequest>,
) -> Result<Json<OrganizationResponse>, Problem> {
    by.require_everything()?;
    let UpdateOrganizationRequest { name, kind: given } = body.value;
    let kind = given.as_deref().map(kind).transpose()?;
    let updated = control_plane
        .update_organization(&by, id, name.as_deref(), kind)
        .await?;
    Ok(Json(updated.into()))
}

/// Leave an organization
///
/// The last administrator cannot leave: make somebody else administrator first. Nor can you leave your own.
#[utoipa::path(
    post,
    path = "/organizations/v1/{organizationId}/leave",
    tag = "Organizations",
    security(("bearer" = ["account"])),
    params(OrganizationParam),
    responses(
        (status = 200, description = "You do not belong to it any more", body = LeftResponse),
        BearerErrors, MemberErrors, PlatformChangeErrors,
    )
)]
pub async fn leave_organization(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    OrganizationPath(id): OrganizationPath,
    IgnoredBody(_): IgnoredBody,
) -> Result<Response, Problem> {
    by.require_everything()?;
    control_plane.leave_organization(&by, id).await?;
    let message = "You have left the organization.";
    Ok(Json(LeftResponse { message }).into_response())
}

/// Delete an organization
///
/// Cannot be undone. Refused while it has projects: delete or transfer them first. For administrators.
#[utoipa::path(
    delete,
    path = "/organizations/v1/{organizationId}",
    tag = "Organizations",
    security(("bearer" = ["account", "administrator"])),
    params(OrganizationParam),
    responses(
        (status = 200, description = "It is deleted", body = DeletedResponse),
        BearerErrors, MemberErrors, PlatformChangeErrors,
    )
)]
pub async fn delete_organization(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    OrganizationPath(organization_id): OrganizationPath,
    IgnoredBody(_): IgnoredBody,
) -> Result<Response, Problem> {
    by.require_everything()?;
    control_plane
        .delete_organization(&by, organization_id)
        .await?;
    let body = DeletedResponse {
        message: "The organization is deleted.",
        organization_id,
    };
    Ok(Json(body).into_response())
}
