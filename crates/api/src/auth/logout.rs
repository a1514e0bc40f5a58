//! `POST /auth/v1/logout`.

use axum::Json;
use axum::extract::State;
use cp_domain::ControlPlane;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;

use super::origin::FromOurs;
use super::refresh_cookie;
use crate::caller::Calling;
use crate::docs::errors::LogoutErrors;
use crate::problem::Problem;

#[derive(Serialize, ToSchema)]
pub struct LogoutResponse {
    #[schema(value_type = String, example = "Logged out.")]
    message: &'static str,
}

/// Log out
///
/// Ends the sign-in of the cookie `refreshToken`, with its access tokens, and clears the cookie.
/// Without the cookie there is nothing to do, and the answer is the same.
#[utoipa::path(
    post,
    path = "/auth/v1/logout",
    tag = "Accounts",
    responses(
        (status = 200, description = "Logged out", body = LogoutResponse),
        LogoutErrors,
    )
)]
pub async fn log_out(
    State(control_plane): State<ControlPlane>,
    _: FromOurs,
    Calling(caller): Calling,
    headers: HeaderMap,
) -> Result<([(HeaderName, HeaderValue); 1], Json<LogoutResponse>), Problem> {
    if let Some(token) = refresh_cookie::read(&headers) {
        control_plane
            .log_out(token.expose_secret(), &caller)
            .await?;
    }
    let gone = refresh_cookie::clear(&control_plane.settings().base_url)?;
    let message = "Logged out.";
    Ok(([(SET_COOKIE, gone)], Json(LogoutResponse { message })))
}
