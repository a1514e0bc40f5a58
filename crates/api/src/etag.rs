//! Versions of answers: a caller that has the present one is told so, and nothing is sent again
//! (RFC 9110 section 13.1.2).

use std::fmt::Write as _;

use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use cp_domain::fingerprint;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::problem::Problem;

/// The answer with its version, or 304 if the caller has it. For answers that depend on `Accept`.
pub fn answer(
    asked: &HeaderMap,
    content_type: &'static str,
    body: Vec<u8>,
) -> Result<Response, Problem> {
    let hash = fingerprint("", content_type, &body);
    let mut etag = String::from("\"");
    for byte in &hash[..16] {
        // Writing to a String cannot fail.
        let _ = write!(etag, "{byte:02x}");
    }
    etag.push('"');
    let mut response = if is_known(asked, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let kind = HeaderValue::from_static(content_type);
        ([(CONTENT_TYPE, kind)], Bytes::from(body)).into_response()
    };
    let etag = HeaderValue::from_str(&etag)
        .map_err(|_| Problem::internal("an ETag is not a header value"))?;
    let headers = response.headers_mut();
    headers.insert(ETAG, etag);
    headers.insert(VARY, HeaderValue::from_static("accept"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

/// Whether the caller has this version: weak comparison (RFC 9110 section 13.1.2).
pub fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_version_is_recognised_in_every_form() {
        let known = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, value.parse().unwrap());
            is_known(&headers, "\"abc\"")
        };
        assert!(known("\"abc\""));
        assert!(known("W/\"abc\""));
        assert!(known("\"x\", \"abc\""));
        assert!(known("*"));
        assert!(!known("abc"));
        assert!(!known("\"abcd\""));
        assert!(!is_known(&HeaderMap::new(), "\"abc\""));
    }
}
