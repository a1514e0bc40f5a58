//! `DELETE :projectId`.

use axum::extract::State;
use axum::response::Response;
use cp_domain::{ControlPlane, ProjectCaller};
use serde::Serialize;
use utoipa::ToSchema;

use crate::body::IgnoredBody;
use crate::docs::errors::{
    BadRequestError, ConflictError, NotFoundError, PartnerErrors, TooLargeError,
};
use crate::idempotency::{Answer, IdempotencyKey, IdempotencyParam, once};
use crate::params::{PartnerParam, ProjectParam, ProjectPath};
use crate::partner_auth::WhiteLabel;
use crate::problem::Problem;

/// The answer to a delete.
#[derive(Serialize, ToSchema)]
struct DeleteResponse<'a> {
    #[schema(example = "Project deleted successfully")]
    message: &'a str,
    #[serde(rename = "requestId")]
    #[schema(example = "xhiahif-fehfe-feae")]
    request_id: &'a str,
}

/// Delete a project
///
/// Cannot be undone. Access ends with the answer; the machine is taken down after it. Usage up to
/// now stays in your reports.
#[utoipa::path(
    delete,
    path = "/partnership/v1/{partnerId}/{projectId}",
    tag = "White-label",
    security(("partnership_secret" = [])),
    params(PartnerParam, ProjectParam, IdempotencyParam),
    responses(
        (status = 200, description = "The project is deleted", body = DeleteResponse),
        BadRequestError, NotFoundError, ConflictError, TooLargeError, PartnerErrors,
    )
)]
pub async fn delete_project(
    State(control_plane): State<ControlPlane>,
    WhiteLabel(by): WhiteLabel,
    ProjectPath(id): ProjectPath,
    key: IdempotencyKey,
    IgnoredBody(body): IgnoredBody,
) -> Result<Response, Problem> {
    let key = key.with_body(&body);
    let effect = control_plane.delete_project(ProjectCaller::Partner(&by, key.as_ref()), id);
    once(
        &control_plane,
        &by,
        key.as_ref(),
        effect,
        async |_deleted| {
            Answer::ok(&DeleteResponse {
                message: "Project deleted successfully",
                request_id: by.caller.request_id.as_str(),
            })
        },
    )
    .await
}
