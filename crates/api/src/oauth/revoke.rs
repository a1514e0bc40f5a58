//! `POST /api/oauth/v1/revoke` (RFC 7009).

use axum::Json;
use axum::extract::State;
use cp_domain::ControlPlane;
use serde::Serialize;
use utoipa::ToSchema;

use super::client_auth::ClientRequest;
use crate::docs::errors::OAuthErrors;
use crate::problem::Problem;

/// For the document.
#[derive(ToSchema)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
pub struct RevocationRequest {
    /// A refresh token or an access token.
    token: String,
    /// Not needed: what kind of token it is can be seen.
    token_type_hint: Option<String>,
    #[schema(example = "clf_abc123xyz")]
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// Nothing to tell. An object all the same, for clients that read every answer as JSON.
#[derive(Serialize, ToSchema)]
pub struct RevocationResponse {}

/// Revoke a token
///
/// Ends the sign-in that the token belongs to: its refresh token and all of its access tokens. A
/// token that is unknown, or not the client's, is answered the same.
#[utoipa::path(
    post,
    path = "/api/oauth/v1/revoke",
    tag = "OAuth",
    security((), ("client_secret" = [])),
    request_body(content(
        (RevocationRequest = "application/x-www-form-urlencoded"),
        (RevocationRequest = "application/json"),
    )),
    responses(
        (status = 200, description = "The token is good for nothing", body = RevocationResponse),
        OAuthErrors,
    )
)]
pub async fn revoke_token(
    State(control_plane): State<ControlPlane>,
    request: ClientRequest,
) -> Result<Json<RevocationResponse>, Problem> {
    let client = request.client(&control_plane).await?;
    let token = request.parameters.required("token")?;
    control_plane
        .revoke_token(&client, token, &request.caller)
        .await?;
    Ok(Json(RevocationResponse {}))
}
