//! `POST /auth/v1/login` (contract/platform-api.md 4.2).

use axum::extract::State;
use axum::response::Response;
use cp_domain::people::PasswordGrant;
use cp_domain::{Caller, ControlPlane, DomainError, DomainResult};
use cp_model::UserId;
use http::{HeaderMap, StatusCode};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

use super::origin::FromOurs;
use super::user::{SessionResponse, answer_session};
use crate::body::{JsonBody, RequestBody};
use crate::caller::{Calling, user_agent};
use crate::docs::errors::LoginErrors;
use crate::problem::Problem;

/// Holds a password, so it has no `Debug`.
#[derive(Deserialize, ToSchema)]
pub struct LoginRequest {
    #[schema(format = Email, example = "ada@example.com")]
    email: String,
    #[schema(value_type = String, format = Password)]
    password: SecretString,
}

impl RequestBody for LoginRequest {}

/// Log in
///
/// With e-mail address and password. The cookie `refreshToken` holds a refresh token of the public
/// client `clf_NK8cMUs41gm8ZcfdtSguVw`, which the token endpoint takes too.
#[utoipa::path(
    post,
    path = "/auth/v1/login",
    tag = "Accounts",
    request_body = LoginRequest,
    responses(
        (status = 200, description = "Logged in", body = SessionResponse,
            headers(("Set-Cookie" = String, description = "`refreshToken`, for 30 days"))),
        LoginErrors,
    )
)]
pub async fn log_in(
    State(control_plane): State<ControlPlane>,
    _: FromOurs,
    Calling(caller): Calling,
    headers: HeaderMap,
    body: JsonBody<LoginRequest>,
) -> Result<Response, Problem> {
    let LoginRequest { email, password } = body.value;
    let granted = control_plane
        .grant_with_password(&email, &password, &caller, user_agent(&headers))
        .await;
    let tokens = match granted {
        Ok(PasswordGrant::Granted(tokens)) => tokens,
        Ok(PasswordGrant::Unverified(user)) => {
            mail_a_code(&control_plane, user.id, &caller).await?;
            return Err(DomainError::EmailNotVerified.into());
        }
        Err(DomainError::Unauthorized) => return Err(wrong_login()),
        Err(error) => return Err(error.into()),
    };
    answer_session(StatusCode::OK, &tokens, &control_plane.settings().base_url)
}

/// The same whether there is such an account or not.
fn wrong_login() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "The e-mail address or the password is wrong.",
    )
}

/// Whoever tries again and again gets no more mails, and the same answer.
async fn mail_a_code(
    control_plane: &ControlPlane,
    user: UserId,
    caller: &Caller,
) -> DomainResult<()> {
    match control_plane.begin_verification(user, caller).await {
        Ok(_) | Err(DomainError::RateLimited { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
