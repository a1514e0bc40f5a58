//! `POST /auth/v1/signup`.

use axum::extract::State;
use axum::response::Response;
use cp_domain::people::NewAccount;
use cp_domain::{ControlPlane, DomainError};
use http::{HeaderMap, StatusCode};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

use super::origin::FromOurs;
use super::user::{SessionResponse, answer_session};
use crate::body::{JsonBody, RequestBody};
use crate::caller::{Calling, user_agent};
use crate::docs::errors::SignupErrors;
use crate::problem::Problem;

/// Holds a password, so it has no `Debug`.
#[derive(Deserialize, ToSchema)]
pub struct SignupRequest {
    #[schema(format = Email, min_length = 3, max_length = 254, example = "ada@example.com")]
    email: String,
    /// 8 to 256 characters, and not one of the common ones.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 256)]
    password: SecretString,
    /// What to call the person; what stands before the `@` if left out.
    #[serde(default)]
    #[schema(
        nullable = false,
        min_length = 1,
        max_length = 100,
        example = "Ada Moreno"
    )]
    name: Option<String>,
}

impl RequestBody for SignupRequest {}

/// Sign up
///
/// Makes an account and mails it a code. Until the address is verified, the account can sign in
/// to no application.
#[utoipa::path(
    post,
    path = "/auth/v1/signup",
    tag = "Accounts",
    request_body = SignupRequest,
    responses(
        (status = 201, description = "The account", body = SessionResponse,
            headers(("Set-Cookie" = String, description = "`refreshToken`, for 30 days"))),
        SignupErrors,
    )
)]
pub async fn sign_up(
    State(control_plane): State<ControlPlane>,
    _: FromOurs,
    Calling(caller): Calling,
    headers: HeaderMap,
    body: JsonBody<SignupRequest>,
) -> Result<Response, Problem> {
    let SignupRequest {
        email,
        password,
        name,
    } = body.value;
    let name = name.unwrap_or_else(|| before_at(&email));
    let new = NewAccount {
        email,
        name,
        password,
    };
    let tokens = control_plane
        .sign_up_with_grant(&new, &caller, user_agent(&headers))
        .await?
        .ok_or(DomainError::EmailTaken)?;
    let base_url = &control_plane.settings().base_url;
    answer_session(StatusCode::CREATED, &tokens, base_url)
}

fn before_at(email: &str) -> String {
    email.trim().chars().take_while(|c| *c != '@').collect()
}
