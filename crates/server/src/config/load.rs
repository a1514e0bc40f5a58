//! Reads the file, lays the environment over it, tries every key by itself.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::environment::{Meaning, meaning};
use super::shown::{is_list, known_keys};
use super::{Config, ConfigError};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    File(PathBuf),
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// Keys that were set, such as `http.listen`. Others have their default.
pub type Origins = BTreeMap<String, Origin>;

pub struct Loaded {
    pub config: Config,
    pub origins: Origins,
}

impl Config {
    /// # Errors
    /// The first thing wrong, with its key and its place.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let mut merged = Merged::default();
        if let Some(path) = file {
            merged.add_file(path)?;
        }
        for (variable, value) in environment {
            merged.add_variable(variable, value)?;
        }
        let config: Self = merged
            .table
            .try_into()
            .map_err(|e| ConfigError::invalid("the configuration", e))?;
        config.validate()?;
        Ok(Loaded {
            config,
            origins: merged.origins,
        })
    }
}

#[derive(Default)]
struct Merged {
    table: Table,
    origins: Origins,
}

impl Merged {
    fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        // Not the error's own display: that repeats the line, which may hold a secret.
        let table: Table = toml::from_str(&text).map_err(|e| ConfigError::Syntax {
            path: path.to_owned(),
            line: e
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(0, |before| before.matches('\n').count() + 1)
                .max(1),
            message: e.message().to_owned(),
        })?;
        for (section, keys) in table {
            let origin = Origin::File(path.to_owned());
            let Value::Table(keys) = keys else {
                return Err(unknown_section(section, origin));
            };
            if !known_keys().contains_key(&section) {
                return Err(unknown_section(section, origin));
            }
            for (key, value) in keys {
                self.add(&section, key, value, origin.clone())?;
            }
        }
        Ok(())
    }

    fn add_variable(&mut self, variable: String, text: String) -> Result<(), ConfigError> {
        let (section, key) = match meaning(&variable) {
            Meaning::NotOurs => return Ok(()),
            Meaning::Misspelt { section, key } | Meaning::Key { section, key } => (section, key),
        };
        if text.is_empty() {
            return Ok(());
        }
        let origin = Origin::Variable(variable);
        let value = if is_list(&section, &key) {
            toml::from_str::<Table>(&format!("list = {text}"))
                .ok()
                .and_then(|mut table| table.remove("list"))
                .ok_or_else(|| ConfigError::BadValue {
                    key: format!("{section}.{key}"),
                    origin: origin.clone(),
                    message: "must be a list as TOML has it: [ … ]".to_owned(),
                })?
        } else {
            Value::String(text)
        };
        self.add(&section, key, value, origin)
    }

    fn add(
        &mut self,
        section: &str,
        key: String,
        value: Value,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let name = format!("{section}.{key}");
        let keys = known_keys().get(section).cloned().unwrap_or_default();
        if !keys.contains(&key) {
            return Err(ConfigError::UnknownKey {
                key: name,
                section: section.to_owned(),
                origin,
                known: keys.join(", "),
            });
        }
        let mut alone = Table::new();
        alone.insert(key.clone(), value.clone());
        let alone = Table::from_iter([(section.to_owned(), Value::Table(alone))]);
        if let Err(error) = alone.try_into::<Config>() {
            return Err(ConfigError::BadValue {
                key: name,
                origin,
                message: error.message().to_owned(),
            });
        }
        let entry = self
            .table
            .entry(section)
            .or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(keys) = entry {
            keys.insert(key, value);
        }
        self.origins.insert(name, origin);
        Ok(())
    }
}

fn unknown_section(section: String, origin: Origin) -> ConfigError {
    let known: Vec<_> = known_keys().keys().map(String::as_str).collect();
    ConfigError::UnknownSection {
        section,
        origin,
        known: known.join(", "),
    }
}
