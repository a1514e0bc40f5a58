//! Forms, and whether one of our pages sent them. Two proofs are asked for: a token that only a
//! page of ours could hold, tied to the browser's cookie, and, from browsers that tell, the
//! browser's word that the form came from us.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Request};
use cp_domain::ControlPlane;
use http::HeaderMap;
use http::StatusCode;
use http::header::{HOST, ORIGIN};

use super::error_page::Failure;
use super::fields::Fields;
use super::session::Visitor;
use crate::ApiState;
use crate::body;

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
        if !is_ours(&parts.headers, &state.control_plane) {
            return Err(Failure::foreign_form());
        }
        let visitor = Visitor::from_request_parts(&mut parts, state).await?;
        if !body::is_of_type(&parts.headers, "application/x-www-form-urlencoded") {
            return Err(Failure::unreadable(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let content = body::read(&parts.headers, body, ARRIVAL)
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

fn is_ours(headers: &HeaderMap, control_plane: &ControlPlane) -> bool {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    came_from_us(
        header("sec-fetch-site"),
        header(ORIGIN.as_str()),
        header(HOST.as_str()),
        &control_plane.settings().base_url,
    )
}

/// What the browser says of where the form came from (Fetch, section 3.2 "`Origin` header"; Fetch
/// Metadata). Silence is no refusal: the token has the last word.
fn came_from_us(
    site: Option<&str>,
    origin: Option<&str>,
    host: Option<&str>,
    base_url: &str,
) -> bool {
    // "none": the person repeated the request by hand.
    if site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return false;
    }
    match origin {
        // Our own forms send "null", because our pages send no referrer (Fetch, "append a request
        // `Origin` header"). A stranger's sandboxed frame does so too, but is "cross-site" above.
        None | Some("null") => true,
        Some(origin) => {
            origin == origin_of(base_url)
                // On a laptop one server has several names, such as localhost and 127.0.0.1.
                || (base_url.starts_with("http://")
                    && host.is_some_and(|host| origin.strip_prefix("http://") == Some(host)))
        }
    }
}

/// Scheme, host and port.
fn origin_of(url: &str) -> &str {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    match url[after_scheme..].find('/') {
        Some(slash) => &url[..after_scheme + slash],
        None => url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_strangers_are_refused() {
        let base = "https://api.example";
        let from = |site, origin| came_from_us(site, origin, Some("api.example"), base);
        assert!(from(Some("same-origin"), Some("https://api.example")));
        assert!(from(Some("same-origin"), Some("null")));
        assert!(from(None, None));
        assert!(!from(Some("cross-site"), Some("null")));
        assert!(!from(Some("same-site"), Some("https://evil.api.example")));
        assert!(!from(None, Some("https://evil.example")));
        assert!(!from(None, Some("https://api.example.evil.example")));
        assert!(!from(None, Some("http://api.example")), "not encrypted");
        assert!(!from(None, Some("?")));
    }

    #[test]
    fn a_laptop_has_several_names() {
        let from =
            |origin, host| came_from_us(None, Some(origin), Some(host), "http://127.0.0.1:8080");
        assert!(from("http://127.0.0.1:8080", "127.0.0.1:8080"));
        assert!(from("http://localhost:8080", "localhost:8080"));
        assert!(!from("http://evil.example", "localhost:8080"));
    }
}
