//! `POST sync-embedded-project`.

use axum::extract::State;
use axum::response::Response;

use super::project_request::{SyncEmbeddedProjectRequest, synced};
use crate::ApiState;
use crate::body::JsonBody;
use crate::docs::errors::{ConflictError, InputErrors, PartnerErrors};
use crate::idempotency::{IdempotencyKey, IdempotencyParam, once};
use crate::params::PartnerParam;
use crate::partner_auth::WhiteLabel;
use crate::places::Place;
use crate::problem::Problem;
use crate::wire::project::SyncResponse;

/// Sync an embedded project
///
/// Makes a project that belongs to your partnership and that nobody else sees. Waits up to 10
/// seconds for it to be `active`, else answers with the status `provisioning`.
#[utoipa::path(
    post,
    path = "/partnership/v1/{partnerId}/sync-embedded-project",
    tag = "White-label",
    security(("partnership_secret" = [])),
    params(PartnerParam, IdempotencyParam),
    request_body = SyncEmbeddedProjectRequest,
    responses(
        (status = 200, description = "The project", body = SyncResponse),
        InputErrors, ConflictError, PartnerErrors,
    )
)]
pub async fn sync_embedded_project(
    State(state): State<ApiState>,
    WhiteLabel(by): WhiteLabel,
    place: Place,
    key: IdempotencyKey,
    body: JsonBody<SyncEmbeddedProjectRequest>,
) -> Result<Response, Problem> {
    let request = body.value.check()?;
    let key = key.with_body(&body.raw);
    let control_plane = &state.control_plane;
    let effect = control_plane.sync_embedded_project(&by, &request, key.as_ref());
    once(control_plane, &by, key.as_ref(), effect, |effect| {
        synced(&state, &by, &place, effect)
    })
    .await
}
