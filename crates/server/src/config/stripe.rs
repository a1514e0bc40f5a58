//! Payments by Stripe: the section `[stripe]`, its defaults and its rules.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cp_billing::{Stripe, StripeConfig};
use cp_model::Plan;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

use super::scalar::{optional_scalar, optional_secret, scalar, secrets};
use super::secrets::{missing, read, value_or_file};
use super::shown::{mask, mask_all};
use super::{Config, ConfigError};

/// Payments. Without `secret_key` none are taken: plans are set by you (`insforge-cloud organization grant-plan`).
///
/// Stripe needs a webhook endpoint at `<http.base_url>/billing/v1/stripe/webhook`, told of checkout.session.completed,
/// customer.subscription.*, customer.deleted, invoice.paid and invoice.payment_failed; and, in its checkout settings, "limit
/// customers to one subscription".
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StripeSection {
    /// `sk_live_…` or `sk_test_…`, or a restricted key (`rk_…`) that may write customers, checkout sessions, portal sessions
    /// and subscriptions, and read invoices, prices and balance transactions.
    #[serde(deserialize_with = "optional_secret", serialize_with = "mask")]
    pub secret_key: Option<SecretString>,
    #[serde(deserialize_with = "optional_scalar")]
    pub secret_key_file: Option<PathBuf>,
    /// `whsec_…` of the webhook endpoint; two while it is rotated.
    #[serde(deserialize_with = "secrets", serialize_with = "mask_all")]
    pub webhook_secrets: Vec<SecretString>,
    /// A file with one a line.
    #[serde(deserialize_with = "optional_scalar")]
    pub webhook_secrets_file: Option<PathBuf>,
    /// The prices (`price_…`) of the pro plan. The first is sold; who bought another one once keeps the plan by it.
    pub pro_prices: Vec<String>,
    /// Stripe's own address, or that of what answers like it.
    #[serde(deserialize_with = "scalar")]
    pub api_base: Url,
    /// Where people come to after they paid; a page of ours unless given.
    #[serde(deserialize_with = "optional_scalar")]
    pub success_url: Option<Url>,
    /// Where they come to if they rather do not.
    #[serde(deserialize_with = "optional_scalar")]
    pub cancel_url: Option<Url>,
    /// Where the portal leads back to.
    #[serde(deserialize_with = "optional_scalar")]
    pub return_url: Option<Url>,
}

impl Default for StripeSection {
    fn default() -> Self {
        Self {
            secret_key: None,
            secret_key_file: None,
            webhook_secrets: Vec::new(),
            webhook_secrets_file: None,
            pro_prices: Vec::new(),
            api_base: StripeConfig::API_BASE
                .parse()
                .expect("a constant that every test parses"),
            success_url: None,
            cancel_url: None,
            return_url: None,
        }
    }
}

impl Config {
    /// Whether payments are taken.
    pub fn names_payments(&self) -> bool {
        self.stripe.secret_key.is_some() || self.stripe.secret_key_file.is_some()
    }

    /// Who takes payments; none: nobody. `base_url`: ours, where people come back to.
    pub fn payments(&self, base_url: &str) -> Result<Option<Stripe>, ConfigError> {
        let section = &self.stripe;
        let secret_key = value_or_file(
            "stripe.secret_key",
            section.secret_key.as_ref(),
            section.secret_key_file.as_ref(),
        )?;
        let Some(secret_key) = secret_key else {
            return Ok(None);
        };
        let webhook_secrets = self.webhook_secrets()?;
        if webhook_secrets.is_empty() {
            let or = ": without it plans that were paid for would not change";
            return Err(missing("stripe.webhook_secrets", or));
        }
        let page = |given: &Option<Url>, path: &str| match given {
            Some(url) => Ok(url.clone()),
            None => format!("{base_url}/billing/{path}")
                .parse()
                .map_err(|_| ConfigError::invalid("http.base_url", "must be a URL")),
        };
        let config = StripeConfig {
            secret_key,
            webhook_secrets,
            prices: BTreeMap::from([(Plan::Pro, section.pro_prices.clone())]),
            api_base: section.api_base.clone(),
            success_url: page(&section.success_url, "paid")?,
            cancel_url: page(&section.cancel_url, "not-paid")?,
            return_url: page(&section.return_url, "managed")?,
        };
        let stripe = Stripe::new(config).map_err(|error| {
            let key = if error.field == "prices" {
                "pro_prices"
            } else {
                error.field
            };
            ConfigError::invalid(format!("stripe.{key}"), error.rule)
        })?;
        Ok(Some(stripe))
    }

    fn webhook_secrets(&self) -> Result<Vec<SecretString>, ConfigError> {
        let section = &self.stripe;
        let Some(path) = &section.webhook_secrets_file else {
            return Ok(section.webhook_secrets.clone());
        };
        if !section.webhook_secrets.is_empty() {
            return Err(ConfigError::Both("stripe.webhook_secrets"));
        }
        let text = read("stripe.webhook_secrets_file", path)?;
        let lines = text.expose_secret().lines();
        Ok(lines
            .filter(|line| !line.trim().is_empty())
            .map(SecretString::from)
            .collect())
    }
}
