//! Whether a request that changes something comes from a page of ours or from no page at all.
//! Cookies come along by themselves, and `SameSite=Lax` lets sister domains through: a page of
//! somebody else's must not sign its visitors in, out or on.

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Fetch Metadata, "Sec-Fetch-Site".
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What `Origin: null` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NullOrigin {
    /// Our own forms send it, because our pages send no referrer (Fetch, "append a request
    /// `Origin` header"). So do sandboxed frames of strangers: something else must tell these.
    Ours,
    Foreign,
}

/// What the browser says of where the request came from (Fetch, section 3.2 "`Origin` header";
/// Fetch Metadata). Programs that are no browsers say nothing, which is no refusal.
pub fn came_from_us(headers: &HeaderMap, base_url: &str, null: NullOrigin) -> bool {
    // "none": the person typed the address, or repeated the request by hand.
    let site_is_ours = headers
        .get(SEC_FETCH_SITE)
        .is_none_or(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
    let origin_is_ours = headers.get(ORIGIN).is_none_or(|origin| {
        if origin == "null" {
            return null == NullOrigin::Ours;
        }
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_ascii_lowercase);
        text(origin).is_some_and(|origin| {
            origin == origin_of(base_url).to_ascii_lowercase()
                // On a laptop one server has several names, such as localhost and 127.0.0.1.
                || (base_url.starts_with("http://")
                    && headers.get(HOST).and_then(text).as_deref()
                        == origin.strip_prefix("http://"))
        })
    });
    site_is_ours && origin_is_ours
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

    fn taken(base_url: &str, given: &[(&str, &str)], null: NullOrigin) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            let name: HeaderName = name.parse().unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        came_from_us(&headers, base_url, null)
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
            for null in [NullOrigin::Ours, NullOrigin::Foreign] {
                assert!(taken(ours, given, null), "{given:?}");
            }
        }
        for given in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("origin", "https://evil.example")],
            &[("origin", "https://evil.example"), ("host", "evil.example")],
            &[
                ("origin", "https://evil.api.example"),
                ("sec-fetch-site", "same-site"),
            ],
            &[("origin", "https://api.example.evil.example")],
            &[("origin", "http://api.example")],
            &[("origin", "http://api.example"), ("host", "api.example")],
            &[("origin", "https://api.example:8443")],
            &[("origin", "?")],
            &[("origin", "null"), ("sec-fetch-site", "cross-site")],
            &[
                ("origin", "https://api.example"),
                ("sec-fetch-site", "cross-site"),
            ],
        ] {
            for null in [NullOrigin::Ours, NullOrigin::Foreign] {
                assert!(!taken(ours, given, null), "{given:?}");
            }
        }
    }

    #[test]
    fn only_our_pages_forms_may_hide_their_origin() {
        for given in [
            &[("origin", "null")][..],
            &[("origin", "null"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(taken("https://api.example", given, NullOrigin::Ours));
            assert!(!taken("https://api.example", given, NullOrigin::Foreign));
        }
    }

    #[test]
    fn a_laptop_is_reached_by_more_than_one_name() {
        let from = |origin, host| {
            let given = [("origin", origin), ("host", host)];
            taken("http://127.0.0.1:8080", &given, NullOrigin::Foreign)
        };
        assert!(from("http://127.0.0.1:8080", "127.0.0.1:8080"));
        assert!(from("http://localhost:8080", "localhost:8080"));
        assert!(!from("http://localhost:3000", "localhost:8080"));
        assert!(!from("http://evil.example", "localhost:8080"));
    }
}
