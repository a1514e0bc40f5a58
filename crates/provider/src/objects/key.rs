//! Names of objects: parts of letters, digits, `-`, `_` and `.`, joined by `/`.
//!
//! Much less than S3 takes. Nothing in them needs to be escaped in a URL, in XML or in a file name,
//! and no part is `.` or `..`.

use std::fmt;

use uuid::Uuid;

/// The longest key, in bytes. (S3 takes 1,024; logs and rows stay readable with less.)
const MAX_LEN: usize = 200;

/// The name of one object: `snapshots/0198…/3f2c…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

/// What the names of some objects begin with. Always ends with `/`, so that `a/1/` does not mean
/// `a/10/…`, too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectPrefix(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot name an object: 1 to {MAX_LEN} letters, digits, '-', '_' and '.', \
     in parts joined by '/'"
)]
pub struct InvalidKey(String);

impl ObjectKey {
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidKey> {
        let text = text.into();
        if text.len() <= MAX_LEN && text.split('/').all(is_part) {
            Ok(Self(text))
        } else {
            Err(InvalidKey(text))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ObjectPrefix {
    /// Everything under `text` and a `/`, which may be given or not: `snapshots`.
    pub fn new(text: &str) -> Result<Self, InvalidKey> {
        let key = ObjectKey::new(text.strip_suffix('/').unwrap_or(text))?;
        Ok(Self(key.0 + "/"))
    }

    /// A key that nobody had before: one for each attempt.
    pub fn attempt(&self) -> Result<ObjectKey, InvalidKey> {
        ObjectKey::new(format!("{}{}", self.0, Uuid::new_v4().simple()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_part(part: &str) -> bool {
    !matches!(part, "" | "." | "..")
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ObjectPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_short_plain_and_never_lead_anywhere_else() {
        for good in ["a", "snapshots/0198-x/T0.dump", "A_b", &"x".repeat(MAX_LEN)] {
            assert_eq!(ObjectKey::new(good).unwrap().as_str(), good);
        }
        let long = "x".repeat(MAX_LEN + 1);
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a b", "ü", "a%2f", "a\0", "a?b",
            &long,
        ] {
            assert!(ObjectKey::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_prefix_ends_with_its_part() {
        let prefix = ObjectPrefix::new("snapshots/1").unwrap();
        assert_eq!(prefix, ObjectPrefix::new("snapshots/1/").unwrap());
        assert_eq!(prefix.as_str(), "snapshots/1/");
        assert_ne!(prefix.attempt().unwrap(), prefix.attempt().unwrap());
        assert!(ObjectPrefix::new("").is_err());
        assert!(ObjectPrefix::new("/").is_err());
        assert!(ObjectPrefix::new("a//").is_err());
    }
}
