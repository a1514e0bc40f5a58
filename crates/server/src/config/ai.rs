//! AI providers: the sections `[openrouter]` and `[analysis]`, their defaults and their rules.

use std::path::PathBuf;
use std::time::Duration;

use cp_ai::{Analyst, AnalystConfig, OpenRouter, OpenRouterConfig};
use cp_domain::AiLimits;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::Url;

use super::scalar::{optional_scalar, optional_secret, scalar};
use super::secrets::value_or_file;
use super::shown::mask;
use super::{Config, ConfigError, Period};

/// An AI gateway for projects' backends: an API key of its own for each project at OpenRouter, whose account pays. Without
/// a provisioning key there is none.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpenRouterSection {
    /// A provisioning key of the account, for `serve` (makes keys) and `work` (deletes them). Change the
    /// account and projects keep the keys of the old one, which it goes on paying, until their backends rotate them;
    /// then delete those there by hand (`insforge …`): they are not found any more.
    #[serde(deserialize_with = "optional_secret", serialize_with = "mask")]
    pub provisioning_key: Option<SecretString>,
    /// A file with the key.
    #[serde(deserialize_with = "optional_scalar")]
    pub provisioning_key_file: Option<PathBuf>,
    /// OpenRouter's API, or what speaks like it.
    #[serde(deserialize_with = "scalar")]
    pub api_base: Url,
    /// US dollars that a key of a project in the free plan may spend in a month. A rotation gives another key: five in 30
    /// days for a project, ten for all that somebody has in the free plan.
    #[serde(deserialize_with = "scalar")]
    pub monthly_limit_free: u32,
    /// The same for the plan `pro`; fifty keys in 30 days for an organization.
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

/// An AI that people can ask about their projects (`insforge diagnose --ai`): an endpoint that speaks OpenAI's chat
/// completions. It is told what people's clients tell: log lines and the rows of checks. Without a URL there is none.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Analysis {
    /// The whole URL, as `https://api.example.com/v1/chat/completions`. https, or http on this machine.
    #[serde(deserialize_with = "optional_scalar")]
    pub url: Option<Url>,
    /// Sent as a bearer; none unless given.
    #[serde(deserialize_with = "optional_secret", serialize_with = "mask")]
    pub api_key: Option<SecretString>,
    /// A file with the key.
    #[serde(deserialize_with = "optional_scalar")]
    pub api_key_file: Option<PathBuf>,
    /// As the endpoint calls it; must be given with the URL.
    #[serde(deserialize_with = "optional_scalar")]
    pub model: Option<String>,
    /// The longest answer, in the model's tokens.
    #[serde(deserialize_with = "scalar")]
    pub max_tokens: u32,
    /// How long one answer may take, from the question to its last word.
    #[serde(deserialize_with = "scalar")]
    pub time_limit: Period,
    /// Questions that one person may ask in an hour.
    #[serde(deserialize_with = "scalar")]
    pub per_hour: u32,
}

impl Default for Analysis {
    fn default() -> Self {
        Self {
            url: None,
            api_key: None,
            api_key_file: None,
            model: None,
            max_tokens: 2_000,
            time_limit: Duration::from_mins(2).into(),
            per_hour: cp_domain::Settings::new("").analyses_per_hour,
        }
    }
}

impl Analysis {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let refuse =
            |key: &str, rule: &str| Err(ConfigError::invalid(format!("analysis.{key}"), rule));
        if !(1..=100_000).contains(&self.max_tokens) {
            return refuse("max_tokens", "must lie between 1 and 100000");
        }
        if !(Duration::from_secs(1)..=Duration::from_mins(30)).contains(&self.time_limit.get()) {
            return refuse("time_limit", "must lie between 1s and 30m");
        }
        if !(1..=10_000).contains(&self.per_hour) {
            return refuse("per_hour", "must lie between 1 and 10000");
        }
        if self.url.is_some() && self.model.is_none() {
            return refuse("model", "must be set beside analysis.url");
        }
        Ok(())
    }
}

impl Config {
    /// Who is asked about projects; none: nobody configured it.
    pub fn analyst(&self) -> Result<Option<Analyst>, ConfigError> {
        let section = &self.analysis;
        let api_key = value_or_file(
            "analysis.api_key",
            section.api_key.as_ref(),
            section.api_key_file.as_ref(),
        )?;
        let (Some(url), Some(model)) = (&section.url, &section.model) else {
            return Ok(None);
        };
        let analyst = Analyst::new(AnalystConfig {
            url: url.clone(),
            api_key,
            model: model.clone(),
            max_tokens: section.max_tokens,
            time_limit: section.time_limit.get(),
        });
        analyst
            .map(Some)
            .map_err(|error| ConfigError::invalid(format!("analysis.{}", error.field), error.rule))
    }

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
