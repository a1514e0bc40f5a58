//! `/organizations/v1/{organizationId}/members` and `…/invitations`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cp_domain::ControlPlane;
use cp_model::{MemberRole, Scope};
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::bearer::Bearer;
use crate::body::{IgnoredBody, JsonBody, RequestBody};
use crate::docs::errors::{
    BearerErrors, MemberErrors, PlatformChangeErrors, PlatformInputErrors, RateLimitError,
};
use crate::params::{
    InvitationParam, InvitationPath, MemberParam, MemberPath, OrganizationParam, OrganizationPath,
    one_of,
};
use crate::problem::Problem;
use crate::wire::organization::{Invitation, InvitationResponse, MemberResponse, MembersResponse};
use crate::wire::schema;

fn role(given: &str) -> Result<MemberRole, Problem> {
    Ok(one_of("role", given, MemberRole::ALL, MemberRole::as_str)?)
}

/// The body of an invitation.
#[derive(Deserialize, ToSchema)]
pub struct InviteRequest {
    #[schema(example = "lin@example.com")]
    email: String,
    #[schema(schema_with = schema::optional_member_role)]
    role: Option<String>,
}

impl RequestBody for InviteRequest {}

/// The body of a change of a role.
#[derive(Deserialize, ToSchema)]
pub struct RoleRequest {
    #[schema(schema_with = schema::member_role)]
    role: String,
}

impl RequestBody for RoleRequest {}

/// List members
///
/// Who belongs to the organization, and who is invited and has not accepted. Asks for the scope `organizations:read`.
#[utoipa::path(
    get,
    path = "/organizations/v1/{organizationId}/members",
    tag = "Organizations",
    security(("bearer" = ["organizations:read"])),
    params(OrganizationParam),
    responses(
        (status = 200, description = "Members and invitations", body = MembersResponse),
        BearerErrors, MemberErrors,
    )
)]
pub async fn list_members(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    OrganizationPath(id): OrganizationPath,
) -> Result<Json<MembersResponse>, Problem> {
    by.require(Scope::OrganizationsRead)?;
    let (members, invitations) = control_plane.list_members(&by, id).await?;
    let now = control_plane.clock().now();
    Ok(Json(MembersResponse {
        members: members.into_iter().map(Into::into).collect(),
        invitations: invitations
            .into_iter()
            .map(|invitation| Invitation::at(invitation, now))
            .collect(),
    }))
}

/// Invite somebody
///
/// Mails a link that is good for seven days. Inviting an address again sends a new link in place of the old one. For
/// administrators.
#[utoipa::path(
    post,
    path = "/organizations/v1/{organizationId}/members/invite",
    tag = "Organizations",
    security(("bearer" = ["account", "administrator"])),
    params(OrganizationParam),
    request_body = InviteRequest,
    responses(
        (status = 201, description = "The invitation", body = InvitationResponse),
        BearerErrors, MemberErrors, PlatformInputErrors, PlatformChangeErrors, RateLimitError,
    )
)]
pub async fn invite_member(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    OrganizationPath(id): OrganizationPath,
    body: JsonBody<InviteRequest>,
) -> Result<Response, Problem> {
    by.require_everything()?;
    let InviteRequest { email, role: given } = body.value;
    let role = given.as_deref().map_or(Ok(MemberRole::Developer), role)?;
    let invitation = control_plane.invite_member(&by, id, &email, role).await?;
    let invitation = Invitation::at(invitation, control_plane.clock().now());
    let body = Json(InvitationResponse { invitation });
    Ok((StatusCode::CREATED, body).into_response())
}

/// Take back an invitation
///
/// One that nobody has answered. Its link ends at once. For administrators.
#[utoipa::path(
    delete,
    path = "/organizations/v1/{organizationId}/invitations/{invitationId}",
    tag = "Organizations",
    security(("bearer" = ["account", "administrator"])),
    params(OrganizationParam, InvitationParam),
    responses(
        (status = 204, description = "It is taken back"),
        BearerErrors, MemberErrors, PlatformChangeErrors,
    )
)]
pub async fn revoke_invitation(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    InvitationPath(id, invitation): InvitationPath,
    IgnoredBody(_): IgnoredBody,
) -> Result<StatusCode, Problem> {
    by.require_everything()?;
    control_plane.revoke_invitation(&by, id, invitation).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove a member
///
/// At once; what they made stays. The last administrator cannot be removed. For administrators.
#[utoipa::path(
    delete,
    path = "/organizations/v1/{organizationId}/members/{memberId}",
    tag = "Organizations",
    security(("bearer" = ["account", "administrator"])),
    params(OrganizationParam, MemberParam),
    responses(
        (status = 204, description = "They do not belong to it any more"),
        BearerErrors, MemberErrors, PlatformChangeErrors,
    )
)]
pub async fn remove_member(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    MemberPath(id, member): MemberPath,
    IgnoredBody(_): IgnoredBody,
) -> Result<StatusCode, Problem> {
    by.require_everything()?;
    control_plane.remove_member(&by, id, member).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Change a member's role
///
/// Developers work with the projects; what ends them, costs money or changes who belongs to the organization is for
/// administrators. The last administrator stays one. For administrators.
#[utoipa::path(
    put,
    path = "/organizations/v1/{organizationId}/members/{memberId}/role",
    tag = "Organizations",
    security(("bearer" = ["account", "administrator"])),
    params(OrganizationParam, MemberParam),
    request_body = RoleRequest,
    responses(
        (status = 200, description = "The member", body = MemberResponse),
        BearerErrors, MemberErrors, PlatformInputErrors, PlatformChangeErrors,
    )
)]
pub async fn set_member_role(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    MemberPath(id, member): MemberPath,
    body: JsonBody<RoleRequest>,
) -> Result<Json<MemberResponse>, Problem> {
    by.require_everything()?;
    let role = role(&body.value.role)?;
    let member = control_plane
        .set_member_role(&by, id, member, role)
        .await?
        .into();
    Ok(Json(MemberResponse { member }))
}
