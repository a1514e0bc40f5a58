//! OAuth 2.0: scopes, client ids, and what a redirect URI may be.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::field::{FieldError, FieldResult};
use crate::text_enum;

text_enum!(
    /// What an application may do for a person (seeds/oauth-server.md).
    Scope ("scope") {
        UserRead = "user:read",
        OrganizationsRead = "organizations:read",
        ProjectsRead = "projects:read",
        ProjectsWrite = "projects:write",
    }
);

impl Scope {
    /// For the page that asks a person.
    pub const fn in_plain_words(self) -> &'static str {
        match self {
            Self::UserRead => "See your name, e-mail address and picture",
            Self::OrganizationsRead => "See the organizations that you belong to",
            Self::ProjectsRead => "See your projects and their settings",
            Self::ProjectsWrite => "Create, change and delete your projects",
        }
    }
}

/// A set of scopes. Its text form is in the order of the enum, each once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    pub fn all() -> Self {
        Self(Scope::ALL.iter().copied().collect())
    }

    pub fn contains(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }

    pub fn is_subset(&self, of: &Self) -> bool {
        self.0.is_subset(&of.0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).copied().collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = Scope> + '_ {
        self.0.iter().copied()
    }

    /// As stored.
    pub fn to_texts(&self) -> Vec<String> {
        self.iter().map(|scope| scope.as_str().to_owned()).collect()
    }

    /// From a stored list; scopes that this release does not know are left out.
    pub fn from_texts<T: AsRef<str>>(texts: &[T]) -> Self {
        texts
            .iter()
            .filter_map(|text| text.as_ref().parse().ok())
            .collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

/// Space-separated, RFC 6749 section 3.3.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<&str> = self.iter().map(Scope::as_str).collect();
        f.write_str(&texts.join(" "))
    }
}

/// RFC 6749 section 3.3. An unknown scope is an error; so is none at all.
impl FromStr for Scopes {
    type Err = FieldError;

    fn from_str(text: &str) -> FieldResult<Self> {
        let scopes = text
            .split(' ')
            .filter(|part| !part.is_empty())
            .map(|part| {
                part.parse::<Scope>()
                    .map_err(|error| FieldError::new("scope", error.to_string()))
            })
            .collect::<FieldResult<Self>>()?;
        if scopes.is_empty() {
            return Err(FieldError::new("scope", "must name at least one scope"));
        }
        Ok(scopes)
    }
}

/// The command-line client's, in every installation.
pub const CLI_CLIENT_ID: &str = "clf_NK8cMUs41gm8ZcfdtSguVw";

/// An OAuth client: `clf_` and 22 characters of `A-Z a-z 0-9 - _`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(String);

impl ClientId {
    pub const PREFIX: &'static str = "clf_";

    /// A new id of a random (version 4) UUID's 22 lowest-cased hex characters.
    pub fn generate() -> Self {
        let random = Uuid::new_v4().simple().to_string();
        Self(format!("{}{}", Self::PREFIX, &random[..22]))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientId {
    type Err = FieldError;

    fn from_str(text: &str) -> FieldResult<Self> {
        let body = text.strip_prefix(Self::PREFIX).unwrap_or_default();
        let well_formed = (1..=60).contains(&body.len())
            && body
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(FieldError::new(
                "client_id",
                "must be clf_ followed by letters, digits, '-' and '_'",
            ))
        }
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_enum!(
    /// Whether a client can keep a secret (RFC 6749 section 2.1).
    ClientKind ("client type") {
        Public = "public",
        Confidential = "confidential",
    }
);

/// An application that people may sign in to with us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthClient {
    pub id: ClientId,
    pub name: String,
    pub kind: ClientKind,
    pub redirect_uris: Vec<String>,
    /// The most that it may ask for.
    pub scopes: Scopes,
    /// Ours: what the scopes do not name is open to it.
    pub first_party: bool,
    /// Whether it may use the device flow (RFC 8628).
    pub device_grant: bool,
    /// Token requests per minute.
    pub rate_limit: u32,
    pub logo_url: Option<String>,
    /// `#rrggbb`, for the consent page.
    pub color: Option<String>,
    pub homepage_url: Option<String>,
    pub disabled_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

impl OAuthClient {
    /// The public document's limit (seeds/oauth-server.md, Rate Limits).
    pub const DEFAULT_RATE_LIMIT: u32 = 50;

    pub fn allows_redirect_uri(&self, given: &str) -> bool {
        self.redirect_uris
            .iter()
            .any(|registered| redirect_uri_matches(registered, given))
    }
}

/// The longest redirect URI.
const MAX_REDIRECT_URI: usize = 2048;

/// The hosts of RFC 8252 section 7.3. Not `localhost`, which may resolve elsewhere (section 8.3).
const LOOPBACKS: [&str; 2] = ["http://127.0.0.1", "http://[::1]"];

/// What an operator may register: an absolute URI without fragment, user or wildcard; `https`
/// except for this computer; a scheme of one's own only with a dot in it (RFC 8252 section 7.1).
pub fn check_redirect_uri(field: &'static str, uri: &str) -> FieldResult<()> {
    let refuse = |rule: &str| Err(FieldError::new(field, rule));
    let Some((scheme, rest)) = uri.split_once(':') else {
        return refuse("must be an absolute URI, like https://example.com/callback");
    };
    if uri.len() > MAX_REDIRECT_URI {
        return refuse("must have at most 2048 characters");
    }
    if !uri.bytes().all(|b| b.is_ascii_graphic()) || uri.contains(['#', '*', '\\', '"', '<', '>']) {
        return refuse("must not contain spaces, '#', '*', '\\', quotes or angle brackets");
    }
    if scheme != scheme.to_ascii_lowercase() {
        return refuse("must have its scheme in lower case");
    }
    if !matches!(scheme, "http" | "https") {
        let well_formed = scheme.contains('.')
            && scheme
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+'));
        return if well_formed {
            Ok(())
        } else {
            refuse("must be https, or a scheme of your own that has a dot, like com.example.app:/")
        };
    }
    let Some(rest) = rest.strip_prefix("//") else {
        return refuse("must be an absolute URI, like https://example.com/callback");
    };
    let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
    if authority.is_empty() || authority.contains('@') {
        return refuse("must have a host, and no user name before it");
    }
    if authority != authority.to_ascii_lowercase() {
        return refuse("must have its host in lower case");
    }
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    if scheme == "http" && !matches!(host, "127.0.0.1" | "[::1]" | "localhost") {
        return refuse(
            "must be https unless it leads to this computer (127.0.0.1, [::1], localhost)",
        );
    }
    Ok(())
}

/// Whether `given` is the registered URI: byte for byte (RFC 9700 section 4.1.3), except that a
/// loopback address may have any port (RFC 8252 section 7.3).
pub fn redirect_uri_matches(registered: &str, given: &str) -> bool {
    registered == given
        || match (
            loopback_without_port(registered),
            loopback_without_port(given),
        ) {
            (Some(registered), Some(given)) => registered == given,
            _ => false,
        }
}

/// The address and what follows the port; none unless it is a loopback address, written plainly.
fn loopback_without_port(uri: &str) -> Option<(&'static str, &str)> {
    LOOPBACKS.into_iter().find_map(|address| {
        let rest = uri.strip_prefix(address)?;
        let Some(after_colon) = rest.strip_prefix(':') else {
            return (rest.is_empty() || rest.starts_with(['/', '?'])).then_some((address, rest));
        };
        let digits = after_colon.bytes().take_while(u8::is_ascii_digit).count();
        let (port, rest) = after_colon.split_at(digits);
        let valid = port.parse::<u16>().is_ok_and(|port| port > 0)
            && (rest.is_empty() || rest.starts_with(['/', '?']));
        valid.then_some((address, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_a_set_with_one_text_form() {
        let scopes: Scopes = "projects:read user:read  user:read".parse().unwrap();
        assert_eq!(scopes.to_string(), "user:read projects:read");
        assert!("".parse::<Scopes>().is_err());
        assert!("user:read admin".parse::<Scopes>().is_err());
        assert!("user:read\tprojects:read".parse::<Scopes>().is_err());
    }

    #[test]
    fn client_ids_parse_back() {
        let id = ClientId::generate();
        assert_eq!(id.as_str().len(), 26);
        assert_eq!(id.as_str().parse::<ClientId>().unwrap(), id);
        assert!(CLI_CLIENT_ID.parse::<ClientId>().is_ok());
        for bad in ["", "clf_", "clf_a b", "abc", "clf_a\n"] {
            assert!(bad.parse::<ClientId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_sane_redirect_uris_are_registered() {
        for good in [
            "https://example.com/callback",
            "https://example.com:8443/callback?x=1",
            "http://127.0.0.1/callback",
            "http://[::1]/callback",
            "http://localhost:3000/auth/callback",
            "com.example.app:/callback",
        ] {
            assert!(check_redirect_uri("redirect_uri", good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/callback",
            "example.com/callback",
            "http://example.com/callback",
            "https://",
            "https:///callback",
            "https:example.com",
            "https://user@example.com/callback",
            "https://example.com/callback#fragment",
            "https://*.example.com/callback",
            "https://Example.com/callback",
            "HTTPS://example.com/callback",
            "https://example.com/call back",
            "https://example.com/\u{e9}",
            "javascript:alert(1)",
            "data:text/html,x",
            "myapp:/callback",
            "http://127.0.0.1.example.com/callback",
        ] {
            assert!(check_redirect_uri("redirect_uri", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_redirect_uri_must_be_the_registered_one() {
        let registered = "https://example.com/callback";
        assert!(redirect_uri_matches(registered, registered));
        for other in [
            "https://example.com/callback/",
            "https://example.com/callback?x=1",
            "https://example.com/Callback",
            "https://example.com/callback#x",
            "https://example.com:443/callback",
            "https://example.com@evil.example/callback",
            "https://example.com.evil.example/callback",
            "https://example.com/callback/../evil",
            "https://example.com/%63allback",
            "http://example.com/callback",
            "https://example.com",
        ] {
            assert!(!redirect_uri_matches(registered, other), "{other}");
        }
    }

    #[test]
    fn a_loopback_redirect_may_have_any_port_and_nothing_else() {
        let registered = "http://127.0.0.1/callback";
        for good in [
            "http://127.0.0.1/callback",
            "http://127.0.0.1:1/callback",
            "http://127.0.0.1:65535/callback",
        ] {
            assert!(redirect_uri_matches(registered, good), "{good}");
        }
        for bad in [
            "http://127.0.0.1:0/callback",
            "http://127.0.0.1:65536/callback",
            "http://127.0.0.1:/callback",
            "http://127.0.0.1:80@evil.example/callback",
            "http://127.0.0.1.evil.example/callback",
            "http://127.0.0.1:80.evil.example/callback",
            "http://127.0.0.1:8080/callback/x",
            "http://127.0.0.1:8080/",
            "http://localhost:8080/callback",
            "http://[::1]:8080/callback",
            "https://127.0.0.1:8080/callback",
            "http://127.0.0.2:8080/callback",
        ] {
            assert!(!redirect_uri_matches(registered, bad), "{bad}");
        }
        assert!(redirect_uri_matches(
            "http://[::1]:9/callback",
            "http://[::1]:4711/callback"
        ));
    }
}
