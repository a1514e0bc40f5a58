//! Whether a request that changes something comes from a page of ours or from no page at all.
//! Cookies come along by themselves, and `SameSite=Lax` lets sister domains through: a page of
//! somebody else's must not sign its visitors in, out or on.

use axum::extract::FromRequestParts;
use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderName, StatusCode};

use crate::ApiState;
use crate::problem::Problem;

/// Fetch Metadata, "Sec-Fetch-Site".
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The request is not of another site's page.
pub struct FromOurs;

impl FromRequestParts<ApiState> for FromOurs {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        if is_from_ours(&parts.headers, &state.control_plane.settings().base_url) {
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

/// Programs that are no browsers send neither header.
fn is_from_ours(headers: &HeaderMap, base_url: &str) -> bool {
    let site_is_ours = headers
        .get(SEC_FETCH_SITE)
        .is_none_or(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
    let origin_is_ours = headers.get(ORIGIN).is_none_or(|origin| {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        origin
            .to_str()
            .is_ok_and(|origin| is_our_origin(origin, base_url, host))
    });
    site_is_ours && origin_is_ours
}

/// Our public address, or the one that the browser itself knows us by, as `localhost` in `dev`.
fn is_our_origin(origin: &str, base_url: &str, host: Option<&str>) -> bool {
    let authority = |url: &str| {
        let rest = url.split_once("://")?.1;
        rest.split('/').next().map(str::to_ascii_lowercase)
    };
    let Some(given) = authority(origin) else {
        return false;
    };
    let scheme_of_ours = base_url.split("://").next();
    origin.split("://").next() == scheme_of_ours
        && (authority(base_url).as_ref() == Some(&given)
            || host.is_some_and(|host| host.eq_ignore_ascii_case(&given)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(base_url: &str, given: &[(&str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            let name: HeaderName = name.parse().unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        is_from_ours(&headers, base_url)
    }

    #[test]
    fn pages_of_others_are_refused() {
        let ours = "https://api.example";
        for given in [
            &[][..],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[("origin", "https://api.example")],
            &[
                ("origin", "https://API.example"),
                ("sec-fetch-site", "same-origin"),
            ],
        ] {
            assert!(taken(ours, given), "{given:?}");
        }
        for given in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("origin", "https://evil.example")],
            &[("origin", "https://api.example.evil.example")],
            &[("origin", "http://api.example")],
            &[("origin", "https://api.example:8443")],
            &[("origin", "null")],
            &[
                ("origin", "https://api.example"),
                ("sec-fetch-site", "cross-site"),
            ],
        ] {
            assert!(!taken(ours, given), "{given:?}");
        }
    }

    #[test]
    fn a_laptop_is_reached_by_more_than_one_name() {
        let ours = "http://127.0.0.1:8080";
        let by_name = [
            ("origin", "http://localhost:8080"),
            ("host", "localhost:8080"),
        ];
        assert!(taken(ours, &by_name));
        let other_port = [
            ("origin", "http://localhost:3000"),
            ("host", "localhost:8080"),
        ];
        assert!(!taken(ours, &other_port));
    }
}
