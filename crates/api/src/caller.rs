//! What handlers learn of a request's origin: its [`Caller`], as the front door saw it, and by
//! what program it says it was sent.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use cp_domain::Caller;
use cp_model::RequestId;
use http::header::USER_AGENT;
use http::request::Parts;
use http::{Extensions, HeaderMap};

/// How much of a `User-Agent` is kept for people's lists of sessions.
const MAX_USER_AGENT: usize = 300;

/// The caller that the front door noted; in a router without one, a nameless one.
pub fn take_caller(extensions: &mut Extensions) -> Caller {
    extensions.remove().unwrap_or_else(|| Caller {
        request_id: RequestId::generate(),
        address: None,
    })
}

/// For handlers of which nobody stands before to tell who calls.
pub struct Calling(pub Caller);

impl<S: Send + Sync> FromRequestParts<S> for Calling {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(take_caller(&mut parts.extensions)))
    }
}

/// None where it is missing or no printable ASCII.
pub fn user_agent(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(USER_AGENT)?.to_str().ok()?.trim();
    let end = text.len().min(MAX_USER_AGENT);
    text.get(..end).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_user_agent_is_cut_and_never_strange() {
        let of = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, HeaderValue::from_bytes(value).unwrap());
            user_agent(&headers).map(str::to_owned)
        };
        assert_eq!(of(b"curl/8").as_deref(), Some("curl/8"));
        assert_eq!(of(&[b'x'; 400]).unwrap().len(), MAX_USER_AGENT);
        assert_eq!(of("\u{fc}".as_bytes()), None);
        assert_eq!(of(b" "), None);
        assert_eq!(user_agent(&HeaderMap::new()), None);
    }
}
