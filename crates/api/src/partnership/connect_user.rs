//! `POST connect-user`.

use axum::extract::State;
use axum::response::Response;
use cp_domain::{ControlPlane, Effect};
use cp_model::{UserId, field};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::{JsonBody, RequestBody};
use crate::docs::errors::{ConflictError, InputErrors, PartnerErrors};
use crate::idempotency::{Answer, IdempotencyKey, IdempotencyParam, once};
use crate::params::PartnerParam;
use crate::partner_auth::CoBranded;
use crate::problem::Problem;

/// The body of `connect-user`.
#[derive(Deserialize, ToSchema)]
pub struct ConnectUserRequest {
    /// 1 to 100 characters after trimming.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$",
        example = "John Doe"
    )]
    name: String,
    /// Compared without regard to case.
    #[schema(format = Email, min_length = 3, max_length = 254, example = "john@example.com")]
    email: String,
}

impl RequestBody for ConnectUserRequest {}

/// The answer to `connect-user`.
#[derive(Serialize, ToSchema)]
struct ConnectUserResponse {
    account: Account,
}

/// A user of InsForge.
#[derive(Serialize, ToSchema)]
struct Account {
    #[schema(value_type = Uuid)]
    id: UserId,
}

/// Connect a user
///
/// Links the InsForge account with this e-mail address to your partnership, and makes one if
/// there is none. The answer is the same in both cases. An existing account keeps its name.
#[utoipa::path(
    post,
    path = "/partnership/v1/{partnerId}/connect-user",
    tag = "Co-branded",
    security(("partnership_secret" = [])),
    params(PartnerParam, IdempotencyParam),
    request_body = ConnectUserRequest,
    responses(
        (status = 200, description = "The user's account", body = ConnectUserResponse),
        InputErrors, ConflictError, PartnerErrors,
    )
)]
pub async fn connect_user(
    State(control_plane): State<ControlPlane>,
    CoBranded(by): CoBranded,
    key: IdempotencyKey,
    body: JsonBody<ConnectUserRequest>,
) -> Result<Response, Problem> {
    let name = field::person_name("name", &body.value.name)?;
    let email = field::email("email", &body.value.email)?;
    let key = key.with_body(&body.raw);
    let effect = control_plane.connect_user(&by, &name, &email, key.as_ref());
    once(
        &control_plane,
        &by,
        key.as_ref(),
        effect,
        async |effect| match effect {
            Effect::User(id) => Answer::ok(&ConnectUserResponse {
                account: Account { id },
            }),
            Effect::Project(_) | Effect::Operation { .. } => Err(Problem::internal(
                "connect-user left the effect of another verb",
            )),
        },
    )
    .await
}
