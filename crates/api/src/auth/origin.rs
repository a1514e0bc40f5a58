//! Refuses what another site's page sends.

use axum::extract::FromRequestParts;
use http::StatusCode;
use http::request::Parts;

use crate::ApiState;
use crate::problem::Problem;
use crate::same_site::{NullOrigin, came_from_us};

/// The request is not of another site's page.
pub struct FromOurs;

impl FromRequestParts<ApiState> for FromOurs {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let base_url = &state.control_plane.settings().base_url;
        if came_from_us(&parts.headers, base_url, NullOrigin::Foreign) {
            Ok(Self)
        } else {
            Err(Problem::new(
                StatusCode::FORBIDDEN,
                "cross_site_request",
                "A page of another site may not do this. Use the OAuth interface to sign people in.",
            ))
        }
    }
}
