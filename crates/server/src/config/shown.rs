//! The configuration as people may see it: every key, secrets masked. Also the list of the keys
//! that there are, so that it cannot differ from the structs.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::Config;
use super::load::Origins;

const MASK: &str = "****";

/// One effective value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub key: String,
    pub value: String,
    /// The file or variable that set it, or `default`.
    pub origin: String,
}

impl Config {
    /// Every key with its effective value, secrets masked.
    pub fn entries(&self, origins: &Origins) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (section, keys) in as_sections(self) {
            for (key, value) in keys {
                let key = format!("{section}.{key}");
                let origin = origins
                    .get(&key)
                    .map_or_else(|| "default".to_owned(), ToString::to_string);
                let value = match value {
                    Value::Null => "-".to_owned(),
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                entries.push(Entry { key, value, origin });
            }
        }
        entries
    }
}

fn as_sections(config: &Config) -> BTreeMap<String, BTreeMap<String, Value>> {
    // Sections hold texts, numbers and lists under text keys: nothing that JSON lacks.
    serde_json::to_value(config)
        .and_then(serde_json::from_value)
        .unwrap_or_default()
}

static DEFAULTS: LazyLock<BTreeMap<String, BTreeMap<String, Value>>> =
    LazyLock::new(|| as_sections(&Config::default()));

static KNOWN: LazyLock<BTreeMap<String, Vec<String>>> = LazyLock::new(|| {
    DEFAULTS
        .iter()
        .map(|(section, keys)| (section.clone(), keys.keys().cloned().collect()))
        .collect()
});

/// The keys of each section.
pub(super) fn known_keys() -> &'static BTreeMap<String, Vec<String>> {
    &KNOWN
}

pub(super) fn is_list(section: &str, key: &str) -> bool {
    DEFAULTS
        .get(section)
        .and_then(|keys| keys.get(key))
        .is_some_and(Value::is_array)
}

#[allow(clippy::ref_option)] // serde hands over a reference to the field
pub(super) fn mask<S: Serializer>(
    secret: &Option<SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| MASK).serialize(serializer)
}

pub(super) fn mask_all<S: Serializer>(
    secrets: &[SecretString],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    vec![MASK; secrets.len()].serialize(serializer)
}

/// Host and database help to find a mistake; the password and what else a query may hold do not.
#[allow(clippy::ref_option)] // as above
pub(super) fn mask_url<S: Serializer>(
    url: &Option<SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    url.as_ref()
        .map(|url| masked_url(url.expose_secret()))
        .serialize(serializer)
}

pub fn masked_url(url: &str) -> String {
    let Ok(mut url) = reqwest::Url::parse(url) else {
        return MASK.to_owned();
    };
    if url.password().is_some() && url.set_password(Some(MASK)).is_err() {
        return MASK.to_owned();
    }
    if url.query().is_some() {
        url.set_query(Some(MASK));
    }
    url.to_string()
}
