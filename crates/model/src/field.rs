//! Rules on what people type, in one place: each refusal names the field and the rule.

use serde_json::{Map, Value};

/// An input that breaks a rule. Becomes a 400 whose message reads `<field> <rule>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {rule}")]
pub struct FieldError {
    pub field: &'static str,
    pub rule: String,
}

pub type FieldResult<T> = Result<T, FieldError>;

impl FieldError {
    pub fn new(field: &'static str, rule: impl Into<String>) -> Self {
        Self {
            field,
            rule: rule.into(),
        }
    }
}

/// Text of `min..=max` characters (not bytes) after trimming, without control characters.
fn text(field: &'static str, given: &str, min: usize, max: usize) -> FieldResult<String> {
    let trimmed = given.trim();
    if trimmed.chars().any(char::is_control) {
        return Err(FieldError::new(
            field,
            "must not contain control characters",
        ));
    }
    let length = trimmed.chars().count();
    if length == 0 && min > 0 {
        return Err(FieldError::new(field, "must not be empty"));
    }
    if (min..=max).contains(&length) {
        Ok(trimmed.to_owned())
    } else {
        Err(FieldError::new(
            field,
            format!("must have {min} to {max} characters, has {length}"),
        ))
    }
}

/// A project's name: 2 to 64 characters after trimming (partnership-api.md, sync-project).
pub fn project_name(field: &'static str, given: &str) -> FieldResult<String> {
    text(field, given, 2, 64)
}

/// A branch's name: 1 to 64 of letters, digits and `-`, the first no `-` (branching.md, "Name").
pub fn branch_name(field: &'static str, given: &str) -> FieldResult<String> {
    let bytes = given.as_bytes();
    let fits = (1..=64).contains(&bytes.len())
        && bytes[0] != b'-'
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || *b == b'-');
    if fits {
        Ok(given.to_owned())
    } else {
        Err(FieldError::new(
            field,
            "must have 1 to 64 letters (a to z), digits and hyphens, and begin with a letter or digit",
        ))
    }
}

/// A person's or partner's name: 1 to 100 characters (partnership-api.md, connect-user).
pub fn person_name(field: &'static str, given: &str) -> FieldResult<String> {
    text(field, given, 1, 100)
}

/// An organization's name: 2 to 64 characters (contract/platform-api.md 7.2).
pub fn organization_name(field: &'static str, given: &str) -> FieldResult<String> {
    text(field, given, 2, 64)
}

/// A backup's name: 1 to 64 characters (contract/platform-api.md 11.2).
pub fn backup_name(field: &'static str, given: &str) -> FieldResult<String> {
    text(field, given, 1, 64)
}

/// A host name of somebody's own, as in `api.example.com`: 1 to 253 bytes, labels of 1 to 63 letters, digits and
/// hyphens (RFC 1123 section 2.1), at least two, the last one no number. Gives it in lower case.
pub fn host_name(field: &'static str, given: &str) -> FieldResult<String> {
    let host = given.trim().trim_end_matches('.').to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let ends_in_a_name = host
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().any(|b| b.is_ascii_alphabetic()));
    let fits = host.len() <= 253
        && host.split('.').count() >= 2
        && host.split('.').all(is_label)
        && ends_in_a_name;
    if fits {
        Ok(host)
    } else {
        Err(FieldError::new(
            field,
            "must be a host name like api.example.com, without scheme, port or path",
        ))
    }
}

/// Labels under which people would look for us, or for what every domain has.
const RESERVED_SLUGS: [&str; 32] = [
    "account",
    "accounts",
    "admin",
    "api",
    "app",
    "apps",
    "assets",
    "auth",
    "autoconfig",
    "autodiscover",
    "billing",
    "blog",
    "cdn",
    "console",
    "dashboard",
    "docs",
    "ftp",
    "help",
    "imap",
    "insforge",
    "localhost",
    "login",
    "mail",
    "oauth",
    "postmaster",
    "root",
    "smtp",
    "static",
    "status",
    "support",
    "webmail",
    "www",
];

/// The label of a site's host: 3 to 63 lower-case letters, digits and hyphens, none at an end (RFC 1123 section 2.1), nor
/// two as third and fourth character (RFC 5890 section 2.3.1: what looks like another name); not one of ours.
pub fn site_slug(field: &'static str, given: &str) -> FieldResult<String> {
    let bytes = given.as_bytes();
    let is_of_label = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    let fits = (3..=63).contains(&bytes.len())
        && bytes.iter().all(is_of_label)
        && !given.starts_with('-')
        && !given.ends_with('-')
        && given.get(2..4) != Some("--");
    if !fits {
        return Err(FieldError::new(
            field,
            "must have 3 to 63 lower-case letters (a to z), digits and hyphens, begin and end with a letter or digit, and \
             not have two hyphens as third and fourth character",
        ));
    }
    if RESERVED_SLUGS.contains(&given) {
        let rule = format!("must not be {given}, which is reserved");
        return Err(FieldError::new(field, rule));
    }
    Ok(given.to_owned())
}

/// An id of Vercel's, as in `team_a1B2` or `prj_a1B2`: 1 to 128 letters, digits, `_` and `-`.
pub fn vercel_id(field: &'static str, given: &str) -> FieldResult<()> {
    let is_of_id = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if (1..=128).contains(&given.len()) && given.bytes().all(is_of_id) {
        Ok(())
    } else {
        let rule = "must have 1 to 128 letters (a to z), digits, '_' and '-'";
        Err(FieldError::new(field, rule))
    }
}

/// A secret that somebody else made, and that travels in a header: 1 to 4096 visible ASCII characters. The refusal does
/// not repeat it.
pub fn opaque_secret(field: &'static str, given: &str) -> FieldResult<()> {
    if (1..=4096).contains(&given.len()) && given.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(())
    } else {
        let rule = "must be 1 to 4096 visible ASCII characters, in one line without blanks";
        Err(FieldError::new(field, rule))
    }
}

/// A partner's own id for a project: 1 to 128 characters.
pub fn external_id(field: &'static str, given: &str) -> FieldResult<String> {
    text(field, given, 1, 128)
}

/// A backend release, as in `v2.3.1`: 1 to 64 of letters, digits, `.`, `-`, `_`.
pub fn release(field: &'static str, given: &str) -> FieldResult<String> {
    let version = text(field, given, 1, 64)?;
    if version
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    {
        Ok(version)
    } else {
        Err(FieldError::new(
            field,
            "may contain only letters, digits, '.', '-' and '_'",
        ))
    }
}

/// A new password: 8 to 256 characters, whichever (contract: oauth.md, Rules; the upper bound is
/// only against abuse). Kept as typed, spaces too. The refusal tells no more than the length.
pub fn password(field: &'static str, given: &str) -> FieldResult<()> {
    let length = given.chars().count();
    if (8..=256).contains(&length) {
        Ok(())
    } else {
        Err(FieldError::new(field, "must have 8 to 256 characters"))
    }
}

/// An idempotency key: 1 to 255 printable ASCII characters (partnership-api.md, Idempotency).
pub fn idempotency_key(field: &'static str, given: &str) -> FieldResult<String> {
    if (1..=255).contains(&given.len()) && given.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        Ok(given.to_owned())
    } else {
        Err(FieldError::new(
            field,
            "must be 1 to 255 printable ASCII characters",
        ))
    }
}

/// What a partner notes on a project: at most 4096 bytes as JSON text.
pub fn metadata(field: &'static str, given: &Map<String, Value>) -> FieldResult<()> {
    const MAX_BYTES: usize = 4 * 1024;
    // Postgres's jsonb cannot hold it (its manual, section 8.14).
    if given
        .iter()
        .any(|(name, value)| name.contains('\0') || has_nul(value))
    {
        let rule = "must not contain the character U+0000";
        return Err(FieldError::new(field, rule));
    }
    let size = serde_json::to_vec(given).map_or(usize::MAX, |json| json.len());
    if size > MAX_BYTES {
        let rule = format!("must be at most {MAX_BYTES} bytes as JSON, has {size}");
        return Err(FieldError::new(field, rule));
    }
    Ok(())
}

/// Nesting is bounded by the JSON reader (128 levels).
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// An e-mail address of at most 254 characters (RFC 5321 section 4.5.3.1.3), in the form that
/// mail providers accept: a dot-atom local part (RFC 5322 section 3.2.3) of at most 64 bytes and
/// a domain of at least two DNS labels. Kept as typed; compare in lower case.
pub fn email(field: &'static str, given: &str) -> FieldResult<String> {
    let address = text(field, given, 3, 254)?;
    let rule = || {
        FieldError::new(
            field,
            "must be a valid e-mail address, like ada@example.com",
        )
    };
    let (local, domain) = address.rsplit_once('@').ok_or_else(rule)?;
    let atom =
        |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&b) || b >= 0x80;
    let local_ok = local.len() <= 64
        && local
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(atom));
    let labels: Vec<&str> = domain.split('.').collect();
    let label_ok = |label: &&str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b >= 0x80)
    };
    let top_is_numeric = labels
        .last()
        .is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    if local_ok && labels.len() >= 2 && labels.iter().all(label_ok) && !top_is_numeric {
        Ok(address)
    } else {
        Err(rule())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_trimmed_and_counted_in_characters() {
        assert_eq!(project_name("project_name", "  shop  ").unwrap(), "shop");
        assert_eq!(
            project_name("project_name", &"ü".repeat(64))
                .unwrap()
                .chars()
                .count(),
            64
        );
        let error = project_name("project_name", " x ").unwrap_err();
        assert_eq!(
            error.to_string(),
            "project_name must have 2 to 64 characters, has 1"
        );
        assert!(project_name("project_name", "a\u{0}b").is_err());
        assert!(project_name("project_name", &"x".repeat(65)).is_err());
    }

    #[test]
    fn passwords_are_counted_in_characters() {
        for good in [
            "12345678",
            "\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}",
            &"x".repeat(256),
            "        ",
        ] {
            assert!(password("password", good).is_ok(), "{good}");
        }
        for bad in ["", "1234567", "\u{fc}\u{fc}\u{fc}\u{fc}", &"x".repeat(257)] {
            assert!(password("password", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn slugs_are_labels_of_a_host() {
        let longest = "a".repeat(63);
        for good in ["shop", "a1b", "my-shop-2", "1st", "a-b", longest.as_str()] {
            assert_eq!(site_slug("slug", good).as_deref(), Ok(good));
        }
        let too_long = "a".repeat(64);
        for bad in [
            "",
            "ab",
            "-shop",
            "shop-",
            "Shop",
            "my.shop",
            "my_shop",
            "my shop",
            "sh\u{f6}p",
            "xn--shp-sna",
            " shop",
            too_long.as_str(),
        ] {
            let error = site_slug("slug", bad).unwrap_err();
            assert!(error.rule.contains("3 to 63"), "{bad}: {error}");
        }
        for reserved in RESERVED_SLUGS {
            let error = site_slug("slug", reserved).unwrap_err();
            assert!(error.rule.contains("reserved"), "{reserved}: {error}");
        }
    }

    #[test]
    fn a_refused_secret_is_not_repeated() {
        assert!(opaque_secret("token", "vcp_a1B2").is_ok());
        for bad in ["", "hunter2 hunter2", "hunter2\n", "hunter2\u{fc}"] {
            let error = opaque_secret("token", bad).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn emails() {
        for good in [
            "ada@example.com",
            "a.b+c@x-y.example.org",
            "O'Brien@example.ie",
        ] {
            assert!(email("email", good).is_ok(), "{good}");
        }
        let long = format!("{}@example.com", "a".repeat(250));
        for bad in [
            "",
            "ada",
            "ada@",
            "@example.com",
            "ada@example",
            "a b@example.com",
            "ada@-x.com",
            "ada@x..com",
            ".ada@example.com",
            "ada@127.0.0.1",
            "ada\n@example.com",
            long.as_str(),
        ] {
            assert!(email("email", bad).is_err(), "{bad:?}");
        }
    }
}
