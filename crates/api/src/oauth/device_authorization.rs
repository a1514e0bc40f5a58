//! `POST /api/oauth/v1/device_authorization` (RFC 8628 section 3.1): a device without a browser
//! asks for a code that a person enters elsewhere.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cp_domain::oauth::{OAuthError, OAuthErrorCode};
use cp_domain::{ControlPlane, DomainResult};
use cp_model::OAuthClient;
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;

use super::client_auth::ClientRequest;
use crate::docs::errors::{OAuthErrors, OAuthRateLimitError};
use crate::problem::{Problem, set_rate_limit};

/// For the document.
#[derive(ToSchema)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
pub struct DeviceAuthorizationRequest {
    #[schema(example = "clf_abc123xyz")]
    client_id: Option<String>,
    client_secret: Option<String>,
    #[schema(example = "user:read projects:read")]
    scope: String,
}

/// The device code is a credential, so this has no `Debug`.
#[derive(Serialize, ToSchema)]
struct DeviceAuthorizationResponse<'a> {
    /// For the device: what it polls the token endpoint with.
    #[schema(example = "idc_...")]
    device_code: &'a str,
    /// For the person.
    #[schema(example = "BCDF-GHJK")]
    user_code: &'a str,
    /// Where the person enters it.
    #[schema(example = "https://api.insforge.dev/device")]
    verification_uri: &'a str,
    /// The same with the code filled in.
    #[schema(example = "https://api.insforge.dev/device?user_code=BCDF-GHJK")]
    verification_uri_complete: &'a str,
    /// Seconds.
    #[schema(example = 900)]
    expires_in: i64,
    /// Seconds between two polls.
    #[schema(example = 5)]
    interval: i64,
}

/// Begin a device sign-in
///
/// For programs that cannot open a browser: show the person `user_code` and `verification_uri`,
/// and poll the token endpoint with `device_code`.
#[utoipa::path(
    post,
    path = "/api/oauth/v1/device_authorization",
    tag = "OAuth",
    security((), ("client_secret" = [])),
    request_body(content(
        (DeviceAuthorizationRequest = "application/x-www-form-urlencoded"),
        (DeviceAuthorizationRequest = "application/json"),
    )),
    responses(
        (status = 200, description = "The codes", body = DeviceAuthorizationResponse),
        OAuthErrors, OAuthRateLimitError,
    )
)]
pub async fn authorize_device(
    State(control_plane): State<ControlPlane>,
    request: ClientRequest,
) -> Result<Response, Problem> {
    let client = request.client(&control_plane).await?;
    // Each makes a row, and a public client is anybody: counted with the polls of devices.
    let limit = control_plane
        .take_device_request(&client, request.caller.address)
        .await?;
    let mut response = begin(&control_plane, &client, &request)
        .await
        .unwrap_or_else(|error| Problem::from(error).into_response());
    set_rate_limit(response.headers_mut(), limit);
    Ok(response)
}

async fn begin(
    control_plane: &ControlPlane,
    client: &OAuthClient,
    request: &ClientRequest,
) -> DomainResult<Response> {
    let scope = request.parameters.get("scope").ok_or_else(|| {
        OAuthError::new(
            OAuthErrorCode::InvalidScope,
            "The parameter scope is missing.",
        )
    })?;
    let started = control_plane
        .begin_device(
            client,
            scope,
            &request.caller,
            request.user_agent.as_deref(),
        )
        .await?;
    let page = format!("{}/device", control_plane.settings().base_url);
    Ok(Json(DeviceAuthorizationResponse {
        device_code: started.device_code.expose_secret(),
        user_code: &started.user_code,
        verification_uri: &page,
        // Of letters and a dash: nothing to percent-encode.
        verification_uri_complete: &format!("{page}?user_code={}", started.user_code),
        expires_in: started.expires_in,
        interval: started.interval,
    })
    .into_response())
}
