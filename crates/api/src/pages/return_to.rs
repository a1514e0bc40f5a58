//! Where a person goes after signing in: a page of ours, and nothing else. Anybody can write the
//! parameter `return_to` into a link, so it must not lead to a stranger's site (RFC 9700 section
//! 4.11).

use cp_domain::ControlPlane;
use cp_domain::oauth::AuthorizationRequest;

use super::authorize;
use super::fields::{Fields, encode};

/// A path of ours, with its query: begins with one `/`, and holds printable ASCII only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReturnTo(Option<String>);

/// The longest path: an authorization request, percent-encoded once more.
const MAX: usize = 16 * 1024;

impl ReturnTo {
    /// What a stranger wrote. Anything but a path of ours is as good as nothing.
    pub fn parse(given: &str) -> Self {
        let printable = given.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
        // `//host` and `/\host` lead to another host; control characters are dropped by browsers,
        // so that `/<tab>/host` would too (WHATWG URL, "basic URL parser").
        // Not further on either: some proxies resolve `/x/..//host` themselves.
        let path = given.split(['?', '#']).next().unwrap_or_default();
        let ours = path.starts_with('/') && !path.contains("//");
        Self((ours && printable && given.len() <= MAX).then(|| given.to_owned()))
    }

    pub fn of(fields: &Fields) -> Self {
        Self::parse(fields.text("return_to"))
    }

    /// A path that we wrote ourselves. The same rules hold: it may quote a stranger's query.
    pub fn to(path: &str) -> Self {
        Self::parse(path)
    }

    pub fn as_str(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// The path, or the settings page.
    pub fn or_settings(&self) -> &str {
        self.as_str().unwrap_or("/settings")
    }

    /// `page` with this as its parameter.
    pub fn on(&self, page: &str) -> String {
        match self.as_str() {
            Some(path) => {
                let separator = if page.contains('?') { '&' } else { '?' };
                format!("{page}{separator}return_to={}", encode(path))
            }
            None => page.to_owned(),
        }
    }

    /// The authorization request that waits there, if it is a good one: for whom a person signs
    /// in, and where the browser will go in the end.
    pub async fn authorization(
        &self,
        control_plane: &ControlPlane,
    ) -> Option<AuthorizationRequest> {
        let (path, query) = self.as_str()?.split_once('?')?;
        if path != authorize::PATH {
            return None;
        }
        let fields = Fields::parse(query.as_bytes()).ok()?;
        if fields.duplicate().is_some() {
            return None;
        }
        control_plane
            .check_authorization_request(&authorize::params(&fields))
            .await
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    #[test]
    fn only_a_path_of_ours_is_returned_to() {
        for good in [
            "/",
            "/settings",
            "/device?user_code=BCDF-GHJK",
            "/a?b=https://evil.example/",
        ] {
            assert_eq!(ReturnTo::parse(good).as_str(), Some(good));
        }
        for bad in [
            "",
            "settings",
            "//evil.example",
            "///evil.example",
            "/settings/..//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "/\r\nLocation: https://evil.example",
            " //evil.example",
            "https://evil.example/",
            "https:evil.example",
            "javascript:alert(1)",
            "data:text/html,x",
            "/settings/é",
            "@evil.example",
        ] {
            assert_eq!(ReturnTo::parse(bad).as_str(), None, "{bad:?}");
        }
        assert_eq!(
            ReturnTo::parse(&format!("/{}", "a".repeat(MAX))).as_str(),
            None
        );
    }

    #[test]
    fn it_is_carried_on_as_one_parameter() {
        let to = ReturnTo::parse("/device?user_code=a&b=c");
        assert_eq!(
            to.on("/login"),
            "/login?return_to=%2Fdevice%3Fuser_code%3Da%26b%3Dc"
        );
        assert_eq!(to.on("/login?x=1").matches('?').count(), 1);
        assert_eq!(ReturnTo::default().on("/login"), "/login");
    }

    proptest! {
        #[test]
        fn a_browser_stays_on_our_host(given in "[/\\\\a-z:@.\t\r\n ?#%0-9]{0,40}|/[a-z./?#]*") {
            let base = Url::parse("https://ours.example/login").unwrap();
            if let Some(path) = ReturnTo::parse(&given).as_str() {
                let there = base.join(path).unwrap();
                prop_assert_eq!(there.origin(), base.origin());
            }
        }
    }
}
