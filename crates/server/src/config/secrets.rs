//! The secrets of the configuration, from a value or from the file that is named instead.

use std::path::PathBuf;

use cp_tokens::sealing::{Sealer, SealingKey};
use cp_worker::mail::{Announce, Mailer};
use secrecy::{ExposeSecret, SecretString};

use super::environment::variable;
use super::{Config, ConfigError};

impl Config {
    /// Whether somebody said which database to use.
    pub fn names_database(&self) -> bool {
        self.database.url.is_some() || self.database.url_file.is_some()
    }

    pub fn names_sealing_key(&self) -> bool {
        self.secrets.sealing_key.is_some() || self.secrets.sealing_key_file.is_some()
    }

    pub fn database_url(&self) -> Result<SecretString, ConfigError> {
        let or = ", or name the folder of a running `insforge-cloud dev` with --data-dir";
        value_or_file(
            "database.url",
            self.database.url.as_ref(),
            self.database.url_file.as_ref(),
        )?
        .ok_or_else(|| missing("database.url", or))
    }

    pub fn sealer(&self) -> Result<Sealer, ConfigError> {
        let secrets = &self.secrets;
        let primary = value_or_file(
            "secrets.sealing_key",
            secrets.sealing_key.as_ref(),
            secrets.sealing_key_file.as_ref(),
        )?
        .ok_or_else(|| missing("secrets.sealing_key", ""))?;
        let older = match &secrets.older_sealing_keys_file {
            Some(_) if !secrets.older_sealing_keys.is_empty() => {
                return Err(ConfigError::Both("secrets.older_sealing_keys"));
            }
            Some(path) => read("secrets.older_sealing_keys_file", path)?
                .expose_secret()
                .lines()
                .filter(|line| !line.trim().is_empty())
                .map(SecretString::from)
                .collect(),
            None => secrets.older_sealing_keys.clone(),
        };
        let parse = |key, text: &SecretString| {
            SealingKey::parse(text.expose_secret())
                .map_err(|e| ConfigError::invalid(key, format!("cannot be used: {e}")))
        };
        let older = older
            .iter()
            .map(|text| parse("secrets.older_sealing_keys", text))
            .collect::<Result<_, _>>()?;
        Sealer::new(parse("secrets.sealing_key", &primary)?, older)
            .map_err(|e| ConfigError::invalid("secrets", format!("cannot be used: {e}")))
    }

    pub(super) fn names_mail_server(&self) -> bool {
        self.mail.smtp_url.is_some() || self.mail.smtp_url_file.is_some()
    }

    /// Whether mails go anywhere.
    pub fn names_mail(&self) -> bool {
        self.mail.folder.is_some() || self.names_mail_server()
    }

    /// Who brings mails to people; none: they stay queued. `announce` is told of mails that go into
    /// a folder.
    pub fn mailer(&self, announce: Option<Announce>) -> Result<Option<Mailer>, ConfigError> {
        let from = self.mail.from.clone();
        if let Some(folder) = &self.mail.folder {
            return Ok(Some(Mailer::folder(from, folder.clone(), announce)));
        }
        let url = value_or_file(
            "mail.smtp_url",
            self.mail.smtp_url.as_ref(),
            self.mail.smtp_url_file.as_ref(),
        )?;
        url.map(|url| {
            Mailer::smtp(from, &url).map_err(|rule| ConfigError::invalid("mail.smtp_url", rule))
        })
        .transpose()
    }

    /// Our public URL, without a trailing slash.
    pub fn base_url(&self) -> Result<String, ConfigError> {
        let url = self
            .http
            .base_url
            .as_deref()
            .ok_or_else(|| missing("http.base_url", ""))?;
        Ok(url.trim_end_matches('/').to_owned())
    }
}

pub(super) fn missing(key: &'static str, or: &'static str) -> ConfigError {
    ConfigError::Missing {
        key,
        variable: variable(key),
        or,
    }
}

pub(super) fn value_or_file(
    key: &'static str,
    value: Option<&SecretString>,
    file: Option<&PathBuf>,
) -> Result<Option<SecretString>, ConfigError> {
    match (value, file) {
        (Some(_), Some(_)) => Err(ConfigError::Both(key)),
        (Some(value), None) => Ok(Some(value.clone())),
        (None, Some(path)) => read(&format!("{key}_file"), path).map(Some),
        (None, None) => Ok(None),
    }
}

pub(super) fn read(key: &str, path: &PathBuf) -> Result<SecretString, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::SecretFile {
        key: key.to_owned(),
        path: path.clone(),
        source,
    })?;
    Ok(text.trim().into())
}
