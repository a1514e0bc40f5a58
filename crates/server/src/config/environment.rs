//! From variables to keys: `INSFORGE_HTTP_BASE_URL` is `http.base_url`. A few have shorter names.

use super::shown::known_keys;

pub(super) const PREFIX: &str = "INSFORGE_";

/// The short names, which other tools and the documents use.
const SHORT: [(&str, &str, &str); 2] = [
    ("INSFORGE_LOG", "telemetry", "log"),
    ("INSFORGE_AGENT_BIN", "local", "agent_bin"),
];

/// What a variable means to us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Key {
        section: String,
        key: String,
    },
    /// It begins like one of our sections, but there is no such key.
    Misspelt {
        section: String,
        key: String,
    },
    NotOurs,
}

pub(super) fn meaning(variable: &str) -> Meaning {
    if let Some((_, section, key)) = SHORT.iter().find(|(name, ..)| *name == variable) {
        return Meaning::Key {
            section: (*section).to_owned(),
            key: (*key).to_owned(),
        };
    }
    let Some(rest) = variable.strip_prefix(PREFIX) else {
        return Meaning::NotOurs;
    };
    // No section's name has an underscore, so the first one ends it.
    let Some((section, key)) = rest.split_once('_') else {
        return Meaning::NotOurs;
    };
    let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
    match known_keys().get(&section) {
        Some(keys) if keys.contains(&key) => Meaning::Key { section, key },
        Some(_) => Meaning::Misspelt { section, key },
        None => Meaning::NotOurs,
    }
}

/// The variable that sets a key.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}
