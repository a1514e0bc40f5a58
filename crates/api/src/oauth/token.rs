//! `POST /api/oauth/v1/token` (RFC 6749 section 3.2): codes, refresh tokens and device codes are
//! turned into access tokens here.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cp_domain::oauth::{OAuthError, OAuthErrorCode, TokenPair};
use cp_domain::{ControlPlane, DomainResult, RateLimit};
use cp_model::OAuthClient;
use http::StatusCode;
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;

use super::client_auth::ClientRequest;
use crate::docs::errors::{OAuthErrors, OAuthRateLimitError};
use crate::problem::{Problem, set_rate_limit};

/// RFC 8628 section 3.4.
pub const DEVICE_CODE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// For the document: what the three grants ask for. A client with a secret sends it here or in
/// `Authorization: Basic`.
#[derive(ToSchema)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
pub struct TokenRequest {
    /// `authorization_code`, `refresh_token` or `urn:ietf:params:oauth:grant-type:device_code`.
    #[schema(example = "authorization_code")]
    grant_type: String,
    #[schema(example = "clf_abc123xyz")]
    client_id: Option<String>,
    client_secret: Option<String>,
    /// With `authorization_code`: what the redirect brought. Good for 60 seconds, once.
    code: Option<String>,
    /// With `authorization_code`: the same as before.
    #[schema(example = "https://example.com/callback")]
    redirect_uri: Option<String>,
    /// With `authorization_code`: what `code_challenge` is the SHA-256 of (RFC 7636).
    code_verifier: Option<String>,
    /// With `refresh_token`: the latest that was answered.
    refresh_token: Option<String>,
    /// With `refresh_token`: fewer scopes than were granted, for this access token.
    scope: Option<String>,
    /// With the device grant: what `device_authorization` answered.
    device_code: Option<String>,
}

/// Tokens. They are credentials, so this has no `Debug`.
#[derive(Serialize, ToSchema)]
struct TokenResponse<'a> {
    /// A JWT, for `Authorization: Bearer`.
    #[schema(example = "eyJhbGciOiJIUzI1NiIs...")]
    access_token: &'a str,
    /// Replaces the one that was sent.
    #[schema(example = "irt_...")]
    refresh_token: &'a str,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds.
    #[schema(example = 3600)]
    expires_in: i64,
    /// What the access token may do.
    #[schema(example = "user:read organizations:read")]
    scope: String,
}

/// Get tokens
///
/// Exchanges an authorization code, a refresh token or a device code. A refresh token changes
/// with every use; when an answer was lost, the same one may be sent again within 60 seconds.
#[utoipa::path(
    post,
    path = "/api/oauth/v1/token",
    tag = "OAuth",
    security((), ("client_secret" = [])),
    request_body(content(
        (TokenRequest = "application/x-www-form-urlencoded"),
        (TokenRequest = "application/json"),
    )),
    responses(
        (status = 200, description = "The tokens", body = TokenResponse),
        OAuthErrors, OAuthRateLimitError,
    )
)]
pub async fn issue_token(
    State(control_plane): State<ControlPlane>,
    request: ClientRequest,
) -> Response {
    let mut limit = None;
    let mut response = match exchange(&control_plane, &request, &mut limit).await {
        Ok(tokens) => written(&tokens),
        Err(error) if request.parameters.get("grant_type") == Some(DEVICE_CODE_GRANT) => {
            for_a_poll(error.into()).into_response()
        }
        Err(error) => Problem::from(error).into_response(),
    };
    if let Some(limit) = limit {
        set_rate_limit(response.headers_mut(), limit);
    }
    response
}

/// `limit` is told on every answer, so it is handed out before anything can be refused.
async fn exchange(
    control_plane: &ControlPlane,
    request: &ClientRequest,
    limit: &mut Option<RateLimit>,
) -> DomainResult<TokenPair> {
    let client = request.client(control_plane).await?;
    let address = request.caller.address;
    let taken = if request.parameters.get("grant_type") == Some(DEVICE_CODE_GRANT) {
        control_plane.take_device_request(&client, address).await?
    } else {
        control_plane.take_token_request(&client, address).await?
    };
    *limit = Some(taken);
    grant(control_plane, &client, request).await
}

/// A device stops for good at a 429 or 5xx (platform-api.md 6.2). What passes by itself is told
/// as RFC 8628's `slow_down` instead.
fn for_a_poll(problem: Problem) -> Problem {
    let passes =
        problem.status == StatusCode::TOO_MANY_REQUESTS || problem.status.is_server_error();
    if !passes {
        return problem;
    }
    if let Some(cause) = &problem.cause {
        tracing::error!(cause, "a device's poll failed; it was told to come again");
    }
    problem.slow_down()
}

async fn grant(
    control_plane: &ControlPlane,
    client: &OAuthClient,
    request: &ClientRequest,
) -> DomainResult<TokenPair> {
    let given = &request.parameters;
    match given.required("grant_type")? {
        "authorization_code" => {
            control_plane
                .exchange_code(
                    client,
                    given.required("code")?,
                    given.get("redirect_uri"),
                    given.get("code_verifier"),
                    &request.caller,
                    request.user_agent.as_deref(),
                )
                .await
        }
        "refresh_token" => {
            let token = given.required("refresh_token")?;
            control_plane
                .refresh(client, token, given.get("scope"), &request.caller)
                .await
        }
        DEVICE_CODE_GRANT => {
            let code = given.required("device_code")?;
            control_plane.poll_device(client, code, &request.caller).await
        }
        _ => Err(OAuthError::new(
            OAuthErrorCode::UnsupportedGrantType,
            "grant_type must be authorization_code, refresh_token or urn:ietf:params:oauth:grant-type:device_code.",
        )
        .into()),
    }
}

fn written(tokens: &TokenPair) -> Response {
    Json(TokenResponse {
        access_token: tokens.access_token.expose_secret(),
        refresh_token: tokens.refresh_token.expose_secret(),
        token_type: "Bearer",
        expires_in: tokens.expires_in,
        scope: tokens.scopes.to_string(),
    })
    .into_response()
}

#[cfg(test)]
mod tests {
    use cp_domain::DomainError;
    use cp_model::RequestId;
    use http::HeaderMap;
    use serde_json::Value;

    use super::*;
    use crate::problem::Form;

    fn polled(error: DomainError) -> (u16, String, HeaderMap) {
        let problem = for_a_poll(error.into());
        let body = problem.body(Form::OAuth, &RequestId::generate());
        let body: Value = serde_json::from_slice(&body).unwrap();
        let mut headers = HeaderMap::new();
        problem.add_headers(Form::OAuth, &mut headers);
        let code = body["error"].as_str().unwrap().to_owned();
        (problem.status.as_u16(), code, headers)
    }

    #[test]
    fn a_poll_is_never_answered_with_what_would_end_it() {
        for error in [
            DomainError::RateLimited {
                limit: 50,
                retry_after: 9,
            },
            DomainError::Unavailable,
            DomainError::Internal("password=hunter2".into()),
        ] {
            let (status, code, _) = polled(error);
            assert_eq!((status, code.as_str()), (400, "slow_down"));
        }
    }

    #[test]
    fn a_poll_over_the_limit_is_told_the_limit() {
        let (_, _, headers) = polled(DomainError::RateLimited {
            limit: 50,
            retry_after: 9,
        });
        assert_eq!(headers["x-ratelimit-limit"], "50");
        assert_eq!(headers["retry-after"], "9");
    }

    #[test]
    fn what_the_person_decided_is_told_as_it_is() {
        let refused = OAuthError::new(OAuthErrorCode::AccessDenied, "The request was denied.");
        let (status, code, _) = polled(refused.into());
        assert_eq!((status, code.as_str()), (400, "access_denied"));
        let refused = OAuthError::new(OAuthErrorCode::InvalidClient, "Unknown.");
        assert_eq!(polled(refused.into()).0, 401);
    }
}
