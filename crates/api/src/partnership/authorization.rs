//! `POST :projectId/authorization`.

use axum::extract::State;
use axum::response::Response;
use cp_domain::ControlPlane;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::{JsonBody, RequestBody};
use crate::docs::errors::{ConflictError, InputErrors, NotFoundError, PartnerErrors};
use crate::idempotency::{Answer, IdempotencyKey, IdempotencyParam, once_without_effect};
use crate::params::{PartnerParam, ProjectParam, ProjectPath};
use crate::partner_auth::WhiteLabel;
use crate::problem::Problem;

/// Nothing is asked for; a body may be sent all the same.
#[derive(Default, Deserialize)]
pub struct AuthorizationRequest {}

impl RequestBody for AuthorizationRequest {
    fn when_absent() -> Option<Self> {
        Some(Self::default())
    }
}

/// A signed authorization. The code is a credential, so this has no `Debug`.
#[derive(Serialize, ToSchema)]
struct AuthorizationResponse {
    /// A JWT signed with RS256, to be verified with the keys at `/.well-known/jwks.json`.
    #[schema(
        example = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6Imluc2ZvcmdlLWtleS0yMDI1LTA4LTEzIn0..."
    )]
    code: String,
    /// Seconds.
    #[schema(example = 600)]
    expires_in: i64,
    #[serde(rename = "type")]
    #[schema(rename = "type", value_type = String, example = "Bearer")]
    kind: &'static str,
}

/// Authorize access to a project
///
/// A signed token that lets its bearer into the project's backend for 10 minutes. The project
/// must be active.
#[utoipa::path(
    post,
    path = "/partnership/v1/{partnerId}/{projectId}/authorization",
    tag = "White-label",
    security(("partnership_secret" = [])),
    params(PartnerParam, ProjectParam, IdempotencyParam),
    responses(
        (status = 200, description = "The authorization", body = AuthorizationResponse),
        InputErrors, NotFoundError, ConflictError, PartnerErrors,
    )
)]
pub async fn authorize_project(
    State(control_plane): State<ControlPlane>,
    WhiteLabel(by): WhiteLabel,
    ProjectPath(id): ProjectPath,
    key: IdempotencyKey,
    body: JsonBody<AuthorizationRequest>,
) -> Result<Response, Problem> {
    let key = key.with_body(&body.raw);
    let answer = async {
        let authorization = control_plane.authorize_project(&by, id).await?;
        Answer::ok(&AuthorizationResponse {
            code: authorization.code,
            expires_in: authorization.expires_in,
            kind: "Bearer",
        })
    };
    once_without_effect(&control_plane, &by, key.as_ref(), answer).await
}
