//! What an operator sets to take payments.

use std::collections::BTreeMap;

use cp_model::{FieldError, FieldResult, Plan, check_service_url};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use crate::ids;

/// How to reach Stripe, what is sold, and where people come back to.
#[derive(Clone)]
pub struct StripeConfig {
    /// `sk_test_…` or `sk_live_…`; or a restricted key (`rk_…`) that may write customers, checkout sessions, portal
    /// sessions and subscriptions, and read invoices and balance transactions.
    pub secret_key: SecretString,
    /// `whsec_…` of the webhook endpoint. While it is rotated both, the old and the new one.
    pub webhook_secrets: Vec<SecretString>,
    /// The prices (`price_…`) of each plan that people pay for. The first is sold; those after it, which were sold
    /// once, still give their subscribers the plan.
    pub prices: BTreeMap<Plan, Vec<String>>,
    /// [`StripeConfig::API_BASE`], or a stand-in. https, or http on this machine.
    pub api_base: Url,
    /// Where people come to after they paid. A `{CHECKOUT_SESSION_ID}` in its query is filled in by Stripe.
    pub success_url: Url,
    /// Where they come to if they rather do not.
    pub cancel_url: Url,
    /// Where the portal leads back to.
    pub return_url: Url,
}

impl StripeConfig {
    /// Stripe's own API.
    pub const API_BASE: &str = "https://api.stripe.com/";

    /// Checks every field without asking Stripe.
    ///
    /// # Errors
    /// The first field that breaks a rule, and the rule. Never shows a secret.
    pub fn check(&self) -> FieldResult<()> {
        check_secret(
            "secret_key",
            &self.secret_key,
            &["sk_test_", "sk_live_", "rk_test_", "rk_live_"],
        )?;
        if !(1..=2).contains(&self.webhook_secrets.len()) {
            return Err(FieldError::new(
                "webhook_secrets",
                "must be one secret, or two while they are rotated",
            ));
        }
        for secret in &self.webhook_secrets {
            check_secret("webhook_secrets", secret, &["whsec_"])?;
        }
        self.check_prices()?;
        check_service_url("api_base", &self.api_base)?;
        // Paths of calls are added to it.
        if self.api_base.query().is_some() || self.api_base.fragment().is_some() {
            let rule = "must have neither a query (?…) nor a fragment (#…)";
            return Err(FieldError::new("api_base", rule));
        }
        check_service_url("success_url", &self.success_url)?;
        check_service_url("cancel_url", &self.cancel_url)?;
        check_service_url("return_url", &self.return_url)
    }

    fn check_prices(&self) -> FieldResult<()> {
        let refuse = |rule: String| Err(FieldError::new("prices", rule));
        for plan in Plan::OF_PEOPLE {
            if is_paid(plan) && self.price_of(plan).is_none() {
                return refuse(format!("must have a price for the plan {plan}"));
            }
        }
        for (plan, prices) in &self.prices {
            if !is_paid(*plan) {
                return refuse(format!(
                    "must have none for the plan {plan}: nobody buys it"
                ));
            }
            for price in prices {
                if !price.starts_with("price_") || ids::check("prices", price).is_err() {
                    return refuse(format!(
                        "must hold ids of prices, like price_1Abc; {price:?} is none"
                    ));
                }
            }
        }
        let mut all: Vec<&String> = self.prices.values().flatten().collect();
        all.sort();
        match all.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => refuse(format!("must name each price once; {} is twice", pair[0])),
            None => Ok(()),
        }
    }

    /// The price that is sold for the plan.
    pub(crate) fn price_of(&self, plan: Plan) -> Option<&str> {
        self.prices.get(&plan)?.first().map(String::as_str)
    }

    /// The plan that the price is or was sold for.
    pub(crate) fn plan_of_price(&self, price: &str) -> Option<Plan> {
        self.prices
            .iter()
            .find(|(_, prices)| prices.iter().any(|known| known == price))
            .map(|(plan, _)| *plan)
    }
}

fn is_paid(plan: Plan) -> bool {
    plan != Plan::Free && Plan::OF_PEOPLE.contains(&plan)
}

/// What Stripe makes are a prefix and letters, digits and underscores. Anything else, often a line's end, is a mistake
/// in copying; a header could not carry it.
fn check_secret(field: &'static str, secret: &SecretString, prefixes: &[&str]) -> FieldResult<()> {
    let text = secret.expose_secret();
    let body = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix));
    match body {
        Some(body) if !body.is_empty() && body.bytes().all(is_of_a_secret) => Ok(()),
        Some(_) => Err(FieldError::new(
            field,
            "must be letters, digits and underscores after its prefix; check that it was copied completely",
        )),
        None => Err(FieldError::new(
            field,
            format!("must begin with {}", prefixes.join(" or ")),
        )),
    }
}

fn is_of_a_secret(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
