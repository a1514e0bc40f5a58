//! What every page tells the browser: run no script, sit in no frame, keep no copy, tell nobody
//! where the person came from.
//!
//! Left out on purpose: `Cross-Origin-Opener-Policy`. An application may open us in a popup; the
//! popup ends at the application's own page, which needs its opener (seeds/oauth-server.md,
//! "Popup Mode").

use axum::response::Response;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue};

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// On every answer of a page, also on redirects: those carry codes.
pub fn add(response: &mut Response) {
    let headers = response.headers_mut();
    for (name, value) in [
        (X_FRAME_OPTIONS, "DENY"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (
            PERMISSIONS_POLICY,
            "camera=(), geolocation=(), microphone=(), payment=()",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(CONTENT_SECURITY_POLICY) {
        headers.insert(CONTENT_SECURITY_POLICY, content_security_policy(None));
    }
}

/// For a page whose form may end, over redirects, at an application: Chromium holds `form-action`
/// against every address on the way, also those of the application's own redirects.
pub fn allow_form_to(response: &mut Response, redirect_uri: &str) {
    let policy = content_security_policy(Some(redirect_uri));
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, policy);
}

fn content_security_policy(redirect_uri: Option<&str>) -> HeaderValue {
    let elsewhere = redirect_uri.map_or_else(String::new, |uri| format!(" {}", source_of(uri)));
    let policy = format!(
        "default-src 'none'; style-src 'self'; img-src 'self' https: data:; \
         form-action 'self'{elsewhere}; base-uri 'none'; frame-ancestors 'none'"
    );
    // `source_of` yields characters of URLs alone.
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static(
        "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ))
}

/// The URI's scheme as a source of a policy; `http:` means https, too (CSP Level 3, section 6.7.2.9).
/// Not its host: many applications lead on from their callback to another host of theirs, and
/// Chromium would stop the person there.
fn source_of(uri: &str) -> String {
    let scheme = uri.split_once(':').map_or("", |(scheme, _)| scheme);
    let is_scheme = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+');
    if scheme.is_empty() || !scheme.bytes().all(is_scheme) {
        return String::new();
    }
    format!("{scheme}:")
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn a_form_may_end_where_the_application_leads() {
        for (uri, source) in [
            ("https://app.example/callback?x=1", "https:"),
            ("http://127.0.0.1:53211/callback", "http:"),
            ("http://[::1]:53211/callback", "http:"),
            ("com.example.app:/callback", "com.example.app:"),
            ("https://a;script-src/x", "https:"),
            ("x y:/z", ""),
            (":/z", ""),
            ("nothing", ""),
        ] {
            assert_eq!(source_of(uri), source, "{uri}");
        }
    }

    #[test]
    fn a_policy_that_a_page_chose_stays() {
        let mut response = "".into_response();
        allow_form_to(&mut response, "https://app.example/cb");
        add(&mut response);
        let policy = response.headers()[CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(policy.contains("form-action 'self' https:;"));
        assert!(policy.contains("default-src 'none'"));
        assert!(policy.contains("frame-ancestors 'none'"));
    }
}
