//! Who calls the platform interface: a person, by an access token or an API key of theirs, in the
//! header `Authorization` (RFC 6750 section 2.1). Never in the query or the body (sections 2.2 and
//! 2.3), which end up in logs and histories.

use axum::extract::FromRequestParts;
use cp_domain::{DomainError, UserCaller};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;

use crate::ApiState;
use crate::caller::take_caller;
use crate::problem::Problem;

/// The person that calls. What the credential may do is the handler's to ask.
pub struct Bearer(pub UserCaller);

impl FromRequestParts<ApiState> for Bearer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let caller = take_caller(&mut parts.extensions);
        let token = presented(&parts.headers)?;
        match state
            .control_plane
            .authenticate_bearer(token, &caller)
            .await
        {
            Ok(by) => Ok(Self(by)),
            Err(DomainError::Unauthorized) => Err(Problem::invalid_token()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The one token that the request carries.
pub fn presented(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    // RFC 6750 section 3.1: whoever did not try to authenticate is told no error.
    let first = given.next().ok_or_else(Problem::unauthorized)?;
    if given.next().is_some() {
        return Err(Problem::unreadable_token());
    }
    first
        .to_str()
        .ok()
        .and_then(bearer_token)
        .filter(|token| !token.is_empty())
        .ok_or_else(Problem::invalid_token)
}

/// `Bearer <token>`; the scheme in any case (RFC 9110 section 11.1).
pub fn bearer_token(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn the_scheme_is_read_in_any_case() {
        assert_eq!(bearer_token("Bearer iat_x"), Some("iat_x"));
        assert_eq!(bearer_token("bearer iat_x"), Some("iat_x"));
        assert_eq!(bearer_token("Basic iat_x"), None);
        assert_eq!(bearer_token("iat_x"), None);
    }

    #[test]
    fn one_bearer_is_taken_and_no_more() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            presented(&headers)
                .map(str::to_owned)
                .map_err(|problem| problem.status)
        };
        assert_eq!(read(&["Bearer uak_x"]).as_deref(), Ok("uak_x"));
        assert_eq!(
            read(&["Bearer a", "Bearer b"]),
            Err(StatusCode::BAD_REQUEST)
        );
        for bad in [&[][..], &["Bearer "], &["Basic dTpw"], &["uak_x"]] {
            assert_eq!(read(bad), Err(StatusCode::UNAUTHORIZED), "{bad:?}");
        }
    }
}
