//! Names and values of a query or a form (`application/x-www-form-urlencoded`), read strictly:
//! what two readers could understand in two ways is refused.

use std::borrow::Cow;
use std::collections::HashSet;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

/// All but the unreserved characters of RFC 3986 section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// In the order in which they were sent. May hold passwords, so it has no `Debug`.
#[derive(Clone, Default)]
pub struct Fields(Vec<(String, String)>);

/// Some value is no UTF-8, or holds U+0000, which Postgres cannot store.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable;

impl Fields {
    pub fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        text.split(|byte| *byte == b'&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let equals = pair.iter().position(|byte| *byte == b'=');
                let (name, value) = match equals {
                    Some(at) => (&pair[..at], &pair[at + 1..]),
                    None => (pair, &b""[..]),
                };
                Ok((decode(name)?, decode(value)?))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The first of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find_map(|(known, value)| (known == name).then_some(value.as_str()))
    }

    /// The value, or an empty text.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// The value; none when it is empty.
    pub fn some(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// A name that is there more than once.
    pub fn duplicate(&self) -> Option<&str> {
        let mut seen = HashSet::new();
        self.iter()
            .map(|(name, _)| name)
            .find(|name| !seen.insert(*name))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

fn decode(text: &[u8]) -> Result<String, Unreadable> {
    let text: Cow<[u8]> = if text.contains(&b'+') {
        let spaced = text.iter().map(|b| if *b == b'+' { b' ' } else { *b });
        Cow::Owned(spaced.collect())
    } else {
        Cow::Borrowed(text)
    };
    let decoded = percent_decode(&text)
        .decode_utf8()
        .map_err(|_| Unreadable)?;
    if decoded.contains('\0') {
        return Err(Unreadable);
    }
    Ok(decoded.into_owned())
}

/// One value, for a query. Spaces become `%20`, which forms and URLs read alike.
pub fn encode(value: &str) -> String {
    utf8_percent_encode(value, RESERVED).to_string()
}

/// A query of these pairs, without the `?`.
pub fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs = pairs
        .into_iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_ambiguous_is_refused_or_named() {
        assert!(Fields::parse(b"a=%ff").is_err(), "no UTF-8");
        assert!(Fields::parse(b"a=x%00y").is_err(), "U+0000");
        let fields = Fields::parse(b"a=1&b=&a=2&c").ok().unwrap();
        assert_eq!(fields.duplicate(), Some("a"));
        assert_eq!(fields.get("b"), Some(""));
        assert_eq!(fields.some("b"), None);
        assert_eq!(fields.text("c"), "");
    }

    proptest! {
        #[test]
        fn a_query_reads_back_as_it_was_written(pairs in prop::collection::vec(("[^\0]*", "[^\0]*"), 0..5)) {
            let written = query(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let read: Vec<(String, String)> = url::form_urlencoded::parse(written.as_bytes()).into_owned().collect();
            prop_assert_eq!(&read, &pairs);
            let ours = Fields::parse(written.as_bytes()).ok().unwrap();
            prop_assert_eq!(ours.0, pairs);
        }
    }
}
