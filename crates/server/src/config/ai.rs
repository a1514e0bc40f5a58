//! AI providers: the section `[openrouter]`, its defaults and its rules.

use std::path::PathBuf;

use cp_ai::{OpenRouter, OpenRouterConfig};
use cp_domain::AiLimits;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::Url;

use super::scalar::{optional_scalar, optional_secret, scalar};
use super::secrets::value_or_file;
use super::shown::mask;
use super::{Config, ConfigError};

/// An AI gateway for projects' backends: an API key of its own for each project at OpenRouter, whose account pays. Without
/// a provisioning key there is none.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpenRouterSection {
    /// A provisioning key of the account, for `serve` (makes keys) and `work` (deletes them). Keys of another account are
    /// not found any more: delete the projects' keys there before you change it.
    #[serde(deserialize_with = "optional_secret", serialize_with = "mask")]
    pub provisioning_key: Option<SecretString>,
    /// A file with the key.
    #[serde(deserialize_with = "optional_scalar")]
    pub provisioning_key_file: Option<PathBuf>,
    /// OpenRouter's API, or what speaks like it.
    #[serde(deserialize_with = "scalar")]
    pub api_base: Url,
    /// US dollars that each project of an organization of the free plan may spend in a month.
    #[serde(deserialize_with = "scalar")]
    pub monthly_limit_free: u32,
    /// The same for the plan `pro`.
    #[serde(deserialize_with = "scalar")]
    pub monthly_limit_pro: u32,
    /// The same for partners' projects.
    #[serde(deserialize_with = "scalar")]
    pub monthly_limit_partner: u32,
}

impl Default for OpenRouterSection {
    fn default() -> Self {
        let limits = AiLimits::default();
        Self {
            provisioning_key: None,
            provisioning_key_file: None,
            api_base: OpenRouterConfig::API_BASE
                .parse()
                .expect("a constant that a test parses"),
            monthly_limit_free: limits.free,
            monthly_limit_pro: limits.pro,
            monthly_limit_partner: limits.partner,
        }
    }
}

impl OpenRouterSection {
    pub fn limits(&self) -> AiLimits {
        AiLimits {
            free: self.monthly_limit_free,
            pro: self.monthly_limit_pro,
            partner: self.monthly_limit_partner,
        }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        for (key, dollars) in [
            ("monthly_limit_free", self.monthly_limit_free),
            ("monthly_limit_pro", self.monthly_limit_pro),
            ("monthly_limit_partner", self.monthly_limit_partner),
        ] {
            if !(1..=10_000).contains(&dollars) {
                let rule = "must lie between 1 and 10000";
                return Err(ConfigError::invalid(format!("openrouter.{key}"), rule));
            }
        }
        Ok(())
    }
}

impl Config {
    /// Where projects' AI keys are made; none: nobody configured it.
    pub fn openrouter(&self) -> Result<Option<OpenRouter>, ConfigError> {
        let section = &self.openrouter;
        let key = value_or_file(
            "openrouter.provisioning_key",
            section.provisioning_key.as_ref(),
            section.provisioning_key_file.as_ref(),
        )?;
        let made = key.map(|provisioning_key| {
            OpenRouter::new(&OpenRouterConfig {
                provisioning_key,
                api_base: section.api_base.clone(),
            })
        });
        made.transpose().map_err(|error| {
            ConfigError::invalid(format!("openrouter.{}", error.field), error.rule)
        })
    }
}
