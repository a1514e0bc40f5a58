//! The parameters of an OAuth request, from a form (RFC 6749 appendix B) or from a JSON object
//! (seeds/oauth-server.md). Both are read by the same rules: each name once, no value too long,
//! nothing in the URL, an empty value is an absent one (RFC 6749 section 3.2).

use std::collections::{HashMap, HashSet};
use std::fmt;

use cp_domain::oauth::OAuthError;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Uri};
use secrecy::{ExposeSecret, SecretString};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::body::is_of_type;

/// The longest value, in bytes. Nothing that we issue or take comes near.
const MAX_VALUE: usize = 4096;

/// The parameters that any endpoint reads. Others are ignored (RFC 6749 section 3.2).
const NAMES: &[&str] = &[
    "grant_type",
    "code",
    "redirect_uri",
    "client_id",
    "client_secret",
    "code_verifier",
    "refresh_token",
    "scope",
    "device_code",
    "token",
    "token_type_hint",
];

/// Half of them are secrets, so there is no `Debug`.
#[derive(Default)]
pub struct Parameters(HashMap<&'static str, SecretString>);

impl Parameters {
    /// Reads a request's body, and refuses what stands in its URL: URLs end up in logs and
    /// histories (RFC 6749 section 2.3.1).
    pub fn read(uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Result<Self, OAuthError> {
        let query = uri.query().unwrap_or_default();
        if form_urlencoded::parse(query.as_bytes()).any(|(name, _)| known(&name).is_some()) {
            return Err(OAuthError::invalid_request(
                "Send parameters in the body, never in the URL.",
            ));
        }
        if is_of_type(headers, "application/json") {
            Self::from_json(body)
        } else if is_of_type(headers, "application/x-www-form-urlencoded") {
            Self::from_form(body)
        } else if body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
            Ok(Self::default())
        } else {
            Err(OAuthError::invalid_request(
                "Send the body as application/x-www-form-urlencoded or as application/json, with that Content-Type.",
            ))
        }
    }

    fn from_form(body: &[u8]) -> Result<Self, OAuthError> {
        Self::collect(
            form_urlencoded::parse(body)
                .map(|(name, value)| (name.into_owned(), Some(value.into_owned()))),
        )
    }

    fn from_json(body: &[u8]) -> Result<Self, OAuthError> {
        let Members(members) = serde_json::from_slice(body)
            // Its words may repeat the value, which may be a secret.
            .map_err(|_| OAuthError::invalid_request("The body is not a valid JSON object."))?;
        let mut read = Vec::with_capacity(members.len());
        for (name, value) in members {
            let text = match (value, known(&name)) {
                (Value::String(text), _) => Some(text),
                (Value::Null, _) | (_, None) => None,
                (_, Some(name)) => {
                    return Err(OAuthError::invalid_request(format!(
                        "The parameter {name} must be a string."
                    )));
                }
            };
            read.push((name, text));
        }
        Self::collect(read)
    }

    fn collect(
        given: impl IntoIterator<Item = (String, Option<String>)>,
    ) -> Result<Self, OAuthError> {
        let mut seen = HashSet::new();
        let mut read = HashMap::new();
        for (name, value) in given {
            let known_name = known(&name);
            if !seen.insert(name) {
                return Err(OAuthError::invalid_request(
                    "A parameter is given more than once.",
                ));
            }
            let value = value.unwrap_or_default();
            if value.len() > MAX_VALUE {
                return Err(OAuthError::invalid_request(
                    "A parameter is longer than the 4096 bytes that are allowed.",
                ));
            }
            let Some(name) = known_name.filter(|_| !value.is_empty()) else {
                continue;
            };
            // RFC 6749 appendix A has none in any of these.
            if value.chars().any(char::is_control) {
                return Err(OAuthError::invalid_request(format!(
                    "The parameter {name} contains control characters."
                )));
            }
            read.insert(name, SecretString::from(value));
        }
        Ok(Self(read))
    }

    pub fn get(&self, name: &'static str) -> Option<&str> {
        debug_assert!(NAMES.contains(&name), "{name} is not read");
        self.0.get(name).map(ExposeSecret::expose_secret)
    }

    pub fn required(&self, name: &'static str) -> Result<&str, OAuthError> {
        self.get(name)
            .ok_or_else(|| OAuthError::invalid_request(format!("The parameter {name} is missing.")))
    }

    /// A parameter that is to be kept as a secret.
    pub fn secret(&self, name: &'static str) -> Option<&SecretString> {
        self.0.get(name)
    }
}

fn known(name: &str) -> Option<&'static str> {
    NAMES.iter().copied().find(|known| *known == name)
}

/// The members of a JSON object in their order. Not a map: that would keep the last of two with
/// one name, and whoever looked at the request before us may have kept the first.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfObject;

        impl<'de> Visitor<'de> for OfObject {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }

            fn visit_unit<E: Error>(self) -> Result<Members, E> {
                Err(E::custom("null is no object"))
            }
        }

        deserializer.deserialize_map(OfObject)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JSON: &str = "application/json";
    const FORM: &str = "application/x-www-form-urlencoded";

    fn read(uri: &str, kind: &str, body: &[u8]) -> Result<Parameters, OAuthError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, kind.parse().unwrap());
        Parameters::read(&uri.parse().unwrap(), &headers, body)
    }

    fn refused(uri: &str, kind: &str, body: &str) -> String {
        let error = read(uri, kind, body.as_bytes()).err().expect("is refused");
        assert_eq!(error.code.as_str(), "invalid_request");
        error.description.into_owned()
    }

    #[test]
    fn form_and_json_say_the_same() {
        for (kind, body) in [
            (FORM, "code=a%20b%2Bc+d&client_id=&unknown=x"),
            (
                "application/x-www-form-urlencoded; charset=UTF-8",
                "code=a%20b%2Bc+d",
            ),
            (
                JSON,
                r#"{"code":"a b+c d","client_id":null,"unknown":{"x":[1]}}"#,
            ),
            ("Application/JSON; charset=utf-8", r#"{"code":"a b+c d"}"#),
        ] {
            let parameters = read("/token", kind, body.as_bytes()).ok().unwrap();
            assert_eq!(parameters.get("code"), Some("a b+c d"), "{body}");
            assert_eq!(parameters.get("client_id"), None, "empty is absent");
            assert!(parameters.required("client_id").is_err());
        }
    }

    #[test]
    fn no_parameter_is_taken_twice() {
        for (kind, body) in [
            (FORM, "code=a&code=b"),
            (FORM, "code=a&code=a"),
            (FORM, "code=&code=a"),
            (FORM, "co%64e=a&code=b"),
            (FORM, "unknown=a&unknown=b"),
            (JSON, r#"{"code":"a","code":"b"}"#),
            (JSON, r#"{"code":"a","\u0063ode":null}"#),
            (JSON, r#"{"unknown":1,"unknown":2}"#),
        ] {
            assert!(
                refused("/token", kind, body).contains("more than once"),
                "{body}"
            );
        }
    }

    #[test]
    fn nothing_is_taken_from_the_url() {
        for query in [
            "client_id=x",
            "client_secret=s",
            "a=b&co%64e=x",
            "refresh_token",
        ] {
            let text = refused(&format!("/token?{query}"), FORM, "grant_type=x");
            assert!(text.contains("never in the URL"), "{query}");
        }
        assert!(read("/token?trace=1", FORM, b"").is_ok());
    }

    #[test]
    fn values_have_a_bound() {
        let long = "x".repeat(MAX_VALUE);
        assert!(read("/token", FORM, format!("code={long}").as_bytes()).is_ok());
        for name in ["code", "unknown"] {
            let text = refused("/token", FORM, &format!("{name}={long}x"));
            assert!(text.contains("4096"), "{name}");
        }
    }

    #[test]
    fn what_is_no_text_is_refused_and_never_repeated() {
        for body in [
            r#"{"code":["hunter2"]}"#,
            r#"{"code":1}"#,
            r#"["hunter2"]"#,
            r#""hunter2""#,
            "null",
            "",
            r#"{"code":"hunter2""#,
            r#"{"code":"hunter2"} x"#,
            r#"{"code":"hunter2\u0000"}"#,
            r#"{"code":"hunter2\r\nSet-Cookie: a"}"#,
        ] {
            assert!(!refused("/token", JSON, body).contains("hunter2"), "{body}");
        }
    }

    #[test]
    fn other_kinds_of_bodies_are_refused() {
        for kind in ["text/plain", "multipart/form-data; boundary=x", ""] {
            let text = refused("/token", kind, "code=a");
            assert!(text.contains("Content-Type"), "{kind}");
        }
        let none = Parameters::read(&"/token".parse().unwrap(), &HeaderMap::new(), b"");
        assert!(none.is_ok(), "an empty body needs no type");
    }

    proptest! {
        #[test]
        fn no_body_is_answered_with_anything_but_parameters_or_a_refusal(body: Vec<u8>) {
            for kind in [JSON, FORM] {
                if let Err(error) = read("/token", kind, &body) {
                    prop_assert_eq!(error.code.as_str(), "invalid_request");
                }
            }
        }
    }
}
