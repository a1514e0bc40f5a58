//! What can be wrong with a configuration. The texts name the key and never repeat a secret.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;

use super::load::Origin;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is not valid TOML, line {line}: {message}", path.display())]
    Syntax {
        path: PathBuf,
        line: usize,
        message: String,
    },
    #[error("unknown section [{section}] in {origin}; there are: {known}")]
    UnknownSection {
        section: String,
        origin: Origin,
        known: String,
    },
    #[error("unknown key {key} in {origin}; [{section}] has: {known}")]
    UnknownKey {
        key: String,
        section: String,
        origin: Origin,
        known: String,
    },
    #[error("{key} in {origin}: {message}")]
    BadValue {
        key: String,
        origin: Origin,
        message: String,
    },
    #[error("{key} {rule}")]
    Invalid { key: String, rule: String },
    #[error("{key} is not set; put it in the configuration file or set {variable}{or}")]
    Missing {
        key: &'static str,
        variable: String,
        or: &'static str,
    },
    #[error("{0} and {0}_file are both set; keep one of them")]
    Both(&'static str),
    #[error("cannot read {} (named by {key}): {source}", path.display())]
    SecretFile {
        key: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} holds no `insforge-cloud dev`: there is no config.toml; start dev there first, or name another --data-dir", .0.display())]
    NoDev(PathBuf),
}

impl ConfigError {
    pub(super) fn invalid(key: impl Into<String>, rule: impl Display) -> Self {
        Self::Invalid {
            key: key.into(),
            rule: rule.to_string(),
        }
    }
}
