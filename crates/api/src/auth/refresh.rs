//! `POST /auth/v1/refresh`: the cookie's refresh token for a new pair. For pages of ours; the
//! command-line client asks the token endpoint.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cp_domain::oauth::{OAuthError, OAuthErrorCode, TokenPair};
use cp_domain::{ControlPlane, DomainError, DomainResult};
use http::header::SET_COOKIE;
use http::{HeaderMap, StatusCode};
use secrecy::ExposeSecret;

use super::origin::FromOurs;
use super::user::{SessionResponse, answer_session};
use super::{command_line_client, refresh_cookie};
use crate::caller::Calling;
use crate::docs::errors::RefreshErrors;
use crate::problem::{Problem, set_rate_limit};

/// Refresh the session
///
/// A new access token and a new cookie `refreshToken` for the one that is sent.
#[utoipa::path(
    post,
    path = "/auth/v1/refresh",
    tag = "Accounts",
    responses(
        (status = 200, description = "The session goes on", body = SessionResponse,
            headers(("Set-Cookie" = String, description = "`refreshToken`, for 30 days"))),
        RefreshErrors,
    )
)]
pub async fn refresh_session(
    State(control_plane): State<ControlPlane>,
    _: FromOurs,
    Calling(caller): Calling,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let token = refresh_cookie::read(&headers).ok_or_else(Problem::unauthorized)?;
    let base_url = &control_plane.settings().base_url;
    let client = command_line_client(&control_plane, &caller).await?;
    let limit = control_plane
        .take_token_request(&client, caller.address)
        .await?;
    let refreshed = control_plane
        .refresh(&client, token.expose_secret(), None, &caller)
        .await;
    let mut response = answer(refreshed, base_url).unwrap_or_else(IntoResponse::into_response);
    set_rate_limit(response.headers_mut(), limit);
    Ok(response)
}

fn answer(refreshed: DomainResult<TokenPair>, base_url: &str) -> Result<Response, Problem> {
    match refreshed {
        Ok(tokens) => answer_session(StatusCode::OK, &tokens, base_url),
        Err(DomainError::OAuth(OAuthError {
            code: OAuthErrorCode::InvalidGrant,
            ..
        })) => {
            let gone = [(SET_COOKIE, refresh_cookie::clear(base_url)?)];
            Ok((gone, Problem::unauthorized()).into_response())
        }
        Err(error) => Err(error.into()),
    }
}
