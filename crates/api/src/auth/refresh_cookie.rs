//! The cookie `refreshToken` of a login by e-mail (contract/platform-api.md 4.2). Its name and the
//! plainness of its value are what the command-line client reads it by, so it has no `__Host-`.

use cookie::time::Duration;
use cookie::{Cookie, SameSite};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use crate::problem::Problem;

const NAME: &str = "refreshToken";

/// As long as an unused refresh token lives (contract: oauth.md, Rules).
const LIFETIME: Duration = Duration::days(30);

/// The refresh token that a request brings.
pub fn read(headers: &HeaderMap) -> Option<SecretString> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(Cookie::split_parse)
        .filter_map(Result::ok)
        .find(|cookie| cookie.name() == NAME && !cookie.value().is_empty())
        .map(|cookie| SecretString::from(cookie.value()))
}

/// Puts a refresh token into the browser.
pub fn set(token: &SecretString, base_url: &str) -> Result<HeaderValue, Problem> {
    let cookie = with(token.expose_secret(), base_url, LIFETIME);
    let mut value = HeaderValue::try_from(cookie.to_string())
        .map_err(|_| Problem::internal("a refresh token is no cookie value"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Takes it out again.
pub fn clear(base_url: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(with("", base_url, Duration::ZERO).to_string())
        .map_err(|_| Problem::internal("an empty cookie is no header value"))
}

fn with<'a>(value: &'a str, base_url: &str, lifetime: Duration) -> Cookie<'a> {
    Cookie::build((NAME, value))
        .http_only(true)
        .same_site(SameSite::Lax)
        .secure(base_url.starts_with("https://"))
        .path("/")
        .max_age(lifetime)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: Result<HeaderValue, Problem>) -> String {
        value.ok().unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn the_command_line_client_can_read_it() {
        let cookie = text(set(&"irt_abc".into(), "https://api.example"));
        assert!(cookie.starts_with("refreshToken=irt_abc;"), "{cookie}");
        for attribute in [
            "HttpOnly",
            "SameSite=Lax",
            "Secure",
            "Path=/",
            "Max-Age=2592000",
        ] {
            assert!(cookie.contains(attribute), "{attribute}: {cookie}");
        }
        let local = text(set(&"irt_abc".into(), "http://127.0.0.1:8080"));
        assert!(!local.contains("Secure"), "{local}");
    }

    #[test]
    fn it_is_found_among_others_and_gone_when_cleared() {
        let of = |cookies: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, cookies.parse().unwrap());
            read(&headers).map(|token| token.expose_secret().to_owned())
        };
        assert_eq!(of("a=b; refreshToken=irt_x").as_deref(), Some("irt_x"));
        assert_eq!(of("refreshtoken=irt_x; xrefreshToken=y"), None);
        assert_eq!(of("refreshToken="), None);
        assert!(read(&HeaderMap::new()).is_none());
        assert!(text(clear("https://api.example")).contains("Max-Age=0"));
    }
}
