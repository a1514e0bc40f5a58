//! `GET operations/:id`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::ApiState;
use crate::docs::errors::{BadRequestError, NotFoundError, PartnerErrors};
use crate::params::{self, OperationPath, PartnerParam, QueryText};
use crate::partner_auth::AnyPartner;
use crate::places::Place;
use crate::problem::Problem;
use crate::wire::operation::OperationResponse;

/// The longest that the call may be held open, in seconds.
const MAX_WAIT_SECONDS: u64 = 60;

/// For the document: the operation in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
struct OperationParam {
    /// The operation's id.
    #[param(
        rename = "operationId",
        example = "0192d3b4-5c6d-7e8f-9a0b-1c2d3e4f5a6d"
    )]
    operation_id: Uuid,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// Hold the answer back until the operation has ended, for at most so many seconds.
    #[param(value_type = Option<u64>, required = false, nullable = false, minimum = 0, maximum = 60)]
    wait: Option<String>,
}

/// Get an operation
///
/// How a long piece of work on one of your projects stands.
#[utoipa::path(
    get,
    path = "/partnership/v1/{partnerId}/operations/{operationId}",
    tag = "Both models",
    security(("partnership_secret" = [])),
    params(PartnerParam, OperationParam, WaitQuery),
    responses(
        (status = 200, description = "The operation", body = OperationResponse),
        BadRequestError, NotFoundError, PartnerErrors,
    )
)]
pub async fn get_operation(
    State(state): State<ApiState>,
    AnyPartner(by): AnyPartner,
    OperationPath(id): OperationPath,
    place: Place,
    QueryText(query): QueryText<WaitQuery>,
) -> Result<Json<OperationResponse>, Problem> {
    let wait = params::number("wait", query.wait.as_deref(), 0..=MAX_WAIT_SECONDS, 0)?;
    let wait = Duration::from_secs(wait);
    let now = || {
        let control_plane = &state.control_plane;
        control_plane.partner_operation(&by.partner, id, Duration::ZERO)
    };
    let waiting = if wait.is_zero() {
        None
    } else {
        state.waits.begin(&by.partner.id, &place)
    };
    let operation = match waiting {
        None => now().await,
        Some(_waiting) => tokio::select! {
            ended = state.control_plane.partner_operation(&by.partner, id, wait) => ended,
            () = state.shutdown.cancelled() => now().await,
        },
    }?;
    Ok(Json(operation.into()))
}
