//! Forms, and whether one of our pages sent them. Two proofs are asked for: a token that only a
//! page of ours could hold, tied to the browser's cookie, and, from browsers that tell, the
//! browser's word that the form came from us.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Request};
use http::StatusCode;

use super::error_page::Failure;
use super::fields::Fields;
use super::session::Visitor;
use crate::ApiState;
use crate::body;
use crate::same_site::{NullOrigin, came_from_us};

/// The hidden field of every form.
pub const FIELD: &str = "csrf_token";

/// How long a form may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(10);

/// A form that one of our pages sent.
pub struct Submitted {
    pub visitor: Visitor,
    pub fields: Fields,
}

impl FromRequest<ApiState> for Submitted {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        // The token has the last word.
        let base_url = &state.control_plane.settings().base_url;
        if !came_from_us(&parts.headers, base_url, NullOrigin::Ours) {
            return Err(Failure::foreign_form());
        }
        let visitor = Visitor::from_request_parts(&mut parts, state).await?;
        if !body::is_of_type(&parts.headers, "application/x-www-form-urlencoded") {
            return Err(Failure::unreadable(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let content = body::read(&parts.headers, body, body::MAX_BODY_BYTES, ARRIVAL)
            .await
            .map_err(|problem| Failure::unreadable(problem.status))?;
        let fields =
            Fields::parse(&content).map_err(|_| Failure::unreadable(StatusCode::BAD_REQUEST))?;
        if fields.duplicate().is_some() {
            return Err(Failure::unreadable(StatusCode::BAD_REQUEST));
        }
        if visitor.is_new() {
            return Err(Failure::no_cookie(parts.uri.path()));
        }
        let token = fields.text(FIELD);
        if !state.control_plane.is_csrf_token(visitor.cookie(), token) {
            return Err(Failure::outdated_form(parts.uri.path()));
        }
        Ok(Self { visitor, fields })
    }
}
