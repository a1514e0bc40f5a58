//! Ways on from here: to pages of ours and back to applications. Always 303, so that a browser
//! asks with GET and never repeats a form's content elsewhere (RFC 9700 section 4.12).

use axum::response::{IntoResponse, Response};
use cp_domain::ControlPlane;
use cp_domain::oauth::OAuthError;
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};

use super::error_page::Failure;
use super::fields::query;

/// To a path or URI of printable ASCII.
pub fn see_other(to: &str) -> Response {
    match HeaderValue::from_str(to) {
        Ok(location) => (StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response(),
        Err(_) => Failure::internal("a redirect leads to what no header can hold").into_response(),
    }
}

/// `redirect_uri` with these parameters added; its own stay (RFC 6749 section 3.1.2).
pub fn with_parameters<'a>(
    redirect_uri: &str,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    let separator = match redirect_uri.split_once('?') {
        None => "?",
        Some((_, own)) if own.is_empty() || own.ends_with('&') => "",
        Some(_) => "&",
    };
    format!("{redirect_uri}{separator}{}", query(parameters))
}

/// Back to the application, which gets a refusal (RFC 6749 section 4.1.2.1).
pub fn refuse(
    control_plane: &ControlPlane,
    redirect_uri: &str,
    state: Option<&str>,
    error: &OAuthError,
) -> Response {
    let parameters = [
        ("error", Some(error.code.as_str())),
        ("error_description", Some(error.description.as_ref())),
        ("state", state),
        // RFC 9207: the application can tell which server answered.
        ("iss", Some(control_plane.settings().base_url.as_str())),
    ];
    let parameters = parameters
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    see_other(&with_parameters(redirect_uri, parameters))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    #[test]
    fn the_applications_own_query_stays() {
        let with = |uri| with_parameters(uri, [("code", "c")]);
        assert_eq!(with("https://a.example/cb"), "https://a.example/cb?code=c");
        assert_eq!(with("https://a.example/cb?"), "https://a.example/cb?code=c");
        assert_eq!(
            with("https://a.example/cb?x=1"),
            "https://a.example/cb?x=1&code=c"
        );
        assert_eq!(with("com.example.app:/cb"), "com.example.app:/cb?code=c");
    }

    #[test]
    fn a_line_break_in_the_state_makes_no_header() {
        let to = with_parameters("https://a.example/cb", [("state", "x\r\nSet-Cookie: a=b")]);
        assert_eq!(
            to,
            "https://a.example/cb?state=x%0D%0ASet-Cookie%3A%20a%3Db"
        );
    }

    proptest! {
        #[test]
        fn the_state_comes_back_as_it_was_sent(state in ".*", own in "[a-z=&]{0,8}") {
            let to = with_parameters(&format!("https://a.example/cb?{own}"), [("code", "c"), ("state", &state)]);
            prop_assert!(HeaderValue::from_str(&to).is_ok());
            let url = Url::parse(&to).unwrap();
            prop_assert_eq!(url.host_str(), Some("a.example"));
            let last = url.query_pairs().last().map(|(_, value)| value.into_owned());
            prop_assert_eq!(last, Some(state));
        }
    }
}
