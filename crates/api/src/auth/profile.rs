//! `GET /auth/v1/profile`: who is signed in. What applications ask first, and often.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cp_domain::ControlPlane;
use cp_model::Scope;
use serde::Serialize;
use utoipa::ToSchema;

use super::user::User;
use crate::bearer::Bearer;
use crate::docs::errors::{BearerErrors, RateLimitError};
use crate::problem::{Problem, set_rate_limit};

#[derive(Serialize, ToSchema)]
struct ProfileResponse<'a> {
    user: User<'a>,
}

/// Get the user's profile
///
/// Who signed in. Asks for the scope `user:read`; at most 100 times a minute with one token.
#[utoipa::path(
    get,
    path = "/auth/v1/profile",
    tag = "Accounts",
    security(("bearer" = ["user:read"])),
    responses(
        (status = 200, description = "The user", body = ProfileResponse),
        BearerErrors, RateLimitError,
    )
)]
pub async fn get_profile(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
) -> Result<Response, Problem> {
    let limit = control_plane.take_profile_request(&by).await?;
    let mut response = match by.require(Scope::UserRead) {
        Ok(()) => {
            let user = User::from(&by.user);
            Json(ProfileResponse { user }).into_response()
        }
        Err(error) => Problem::from(error).into_response(),
    };
    set_rate_limit(response.headers_mut(), limit);
    Ok(response)
}
