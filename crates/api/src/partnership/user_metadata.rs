//! `GET :userId/:projectId/metadata`.

use axum::Json;
use axum::extract::State;
use cp_domain::ControlPlane;

use crate::docs::errors::{BadRequestError, NotFoundError, PartnerErrors};
use crate::params::{PartnerParam, ProjectParam, ProjectPath, UserParam, UserPath};
use crate::partner_auth::CoBranded;
use crate::problem::Problem;
use crate::wire::project::UserMetadataResponse;

/// Get the metadata of a user's project
///
/// How to connect to a project of a connected user. Key and host are null, and `shareable` is
/// true, for a project that was made elsewhere and that its owner has not shared with you.
#[utoipa::path(
    get,
    path = "/partnership/v1/{partnerId}/{userId}/{projectId}/metadata",
    tag = "Co-branded",
    security(("partnership_secret" = [])),
    params(PartnerParam, UserParam, ProjectParam),
    responses(
        (status = 200, description = "The project", body = UserMetadataResponse),
        BadRequestError, NotFoundError, PartnerErrors,
    )
)]
pub async fn get_user_project_metadata(
    State(control_plane): State<ControlPlane>,
    CoBranded(by): CoBranded,
    UserPath(user): UserPath,
    ProjectPath(id): ProjectPath,
) -> Result<Json<UserMetadataResponse>, Problem> {
    let seen = control_plane
        .user_project_view(&by.partner, user, id)
        .await?;
    Ok(Json(UserMetadataResponse {
        project: seen.into(),
    }))
}
