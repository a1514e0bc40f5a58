//! `POST :userId/sync-project`.

use axum::extract::State;
use axum::response::Response;

use super::project_request::{SyncProjectRequest, synced};
use crate::ApiState;
use crate::body::JsonBody;
use crate::docs::errors::{ConflictError, InputErrors, NotFoundError, PartnerErrors};
use crate::idempotency::{IdempotencyKey, IdempotencyParam, once};
use crate::params::{PartnerParam, UserParam, UserPath};
use crate::partner_auth::CoBranded;
use crate::places::Place;
use crate::problem::Problem;
use crate::wire::project::SyncResponse;

/// Sync a project
///
/// The user's project of this name, made if there is none. Waits up to 10 seconds for it to be
/// `active`, else answers with the status `provisioning`: ask for its metadata until it is ready.
/// At the limit of the user's plan the answer is 403 `project_limit_reached` with the projects
/// that the user could connect instead.
#[utoipa::path(
    post,
    path = "/partnership/v1/{partnerId}/{userId}/sync-project",
    tag = "Co-branded",
    security(("partnership_secret" = [])),
    params(PartnerParam, UserParam, IdempotencyParam),
    request_body = SyncProjectRequest,
    responses(
        (status = 200, description = "The project", body = SyncResponse),
        InputErrors, NotFoundError, ConflictError, PartnerErrors,
    )
)]
pub async fn sync_project(
    State(state): State<ApiState>,
    CoBranded(by): CoBranded,
    UserPath(user): UserPath,
    place: Place,
    key: IdempotencyKey,
    body: JsonBody<SyncProjectRequest>,
) -> Result<Response, Problem> {
    let request = body.value.check()?;
    let key = key.with_body(&body.raw);
    let control_plane = &state.control_plane;
    let effect = control_plane.sync_project(&by, user, &request, key.as_ref());
    once(control_plane, &by, key.as_ref(), effect, |effect| {
        synced(&state, &by, &place, effect)
    })
    .await
}
