//! `GET :projectId/metadata`: what partners poll, so kept to one statement on the database.

use axum::Json;
use axum::extract::State;
use cp_domain::ControlPlane;

use crate::docs::errors::{BadRequestError, NotFoundError, PartnerErrors};
use crate::params::{PartnerParam, ProjectParam, ProjectPath};
use crate::partner_auth::WhiteLabel;
use crate::problem::Problem;
use crate::wire::project::MetadataResponse;

/// Get a project's metadata
///
/// How to connect to the project and how it is, with the operation in flight if there is one.
#[utoipa::path(
    get,
    path = "/partnership/v1/{partnerId}/{projectId}/metadata",
    tag = "White-label",
    security(("partnership_secret" = [])),
    params(PartnerParam, ProjectParam),
    responses(
        (status = 200, description = "The project", body = MetadataResponse),
        BadRequestError, NotFoundError, PartnerErrors,
    )
)]
pub async fn get_project_metadata(
    State(control_plane): State<ControlPlane>,
    WhiteLabel(by): WhiteLabel,
    ProjectPath(id): ProjectPath,
) -> Result<Json<MetadataResponse>, Problem> {
    let view = control_plane.project_view(&by.partner, id).await?;
    Ok(Json(view.into()))
}
