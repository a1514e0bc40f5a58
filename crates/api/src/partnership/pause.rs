//! `POST :projectId/pause`.

use axum::extract::State;
use axum::response::Response;
use cp_domain::ProjectCaller;

use super::wait::{WaitRequest, answer_status};
use crate::ApiState;
use crate::body::JsonBody;
use crate::docs::errors::{ConflictError, InputErrors, NotFoundError, PartnerErrors};
use crate::idempotency::{IdempotencyKey, IdempotencyParam};
use crate::params::{PartnerParam, ProjectParam, ProjectPath};
use crate::partner_auth::WhiteLabel;
use crate::places::Place;
use crate::problem::Problem;
use crate::wire::project::StatusResponse;

/// Pause a project
///
/// Stops the project's machine; its data stays. Pausing a paused project does nothing.
#[utoipa::path(
    post,
    path = "/partnership/v1/{partnerId}/{projectId}/pause",
    tag = "White-label",
    security(("partnership_secret" = [])),
    params(PartnerParam, ProjectParam, IdempotencyParam),
    request_body(content = Option<WaitRequest>, description = "May be left out"),
    responses(
        (status = 200, description = "The project's status", body = StatusResponse),
        (status = 202, description = "It takes longer than the call may wait", body = StatusResponse),
        InputErrors, NotFoundError, ConflictError, PartnerErrors,
    )
)]
pub async fn pause_project(
    State(state): State<ApiState>,
    WhiteLabel(by): WhiteLabel,
    ProjectPath(id): ProjectPath,
    place: Place,
    key: IdempotencyKey,
    body: JsonBody<WaitRequest>,
) -> Result<Response, Problem> {
    let wait = body.value.wanted();
    let key = key.with_body(&body.raw);
    let verb = state
        .control_plane
        .pause_project(ProjectCaller::Partner(&by, key.as_ref()), id);
    Box::pin(answer_status(&state, &by, &place, key.as_ref(), verb, wait)).await
}
