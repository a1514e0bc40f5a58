//! Payments by [Stripe](https://docs.stripe.com/api), over its HTTP API: what the billing port of `api` needs when an
//! installation takes payments. No database and no clock: whoever calls keeps the customer of each organization and
//! passes the time in.
//!
//! | module | what for |
//! |---|---|
//! | [`config`] | [`StripeConfig`]: keys, prices, where people come back to |
//! | `http` | one call: authentication, idempotency, deadlines, retries, what a refusal means |
//! | `customers` | an organization's customer, its credit |
//! | `sessions` | the pages of Stripe on which people pay and manage |
//! | [`subscriptions`] | what an organization has subscribed to, and which plan follows ([`plan_of`]) |
//! | `payments` | invoices |
//! | `prices` | whether what is sold is for sale |
//! | [`webhook`] | what Stripe tells us, and whether it was Stripe |
//! | [`money`] | amounts for people |
//!
//! How a plan is bought: [`Stripe::create_customer`] once per organization, kept by the caller;
//! [`Stripe::create_checkout_session`]; the person pays on Stripe's page; a webhook tells that something about the
//! customer has changed. Events come late, twice and in any order, so none is believed for what it says: the plan is
//! always [`plan_of`] what [`Stripe::subscriptions_of`] tells then.
//!
//! Nothing that holds a secret implements `Debug`; a test keeps it so.

pub mod config;
pub mod money;
pub mod subscriptions;
pub mod webhook;

mod customers;
mod error;
mod http;
mod ids;
mod open_enum;
mod payments;
mod prices;
mod sessions;
mod wire;

#[cfg(any(test, feature = "stand-in"))]
pub mod stand_in;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use cp_model::FieldResult;

pub use config::StripeConfig;
pub use customers::{Credit, CreditTransaction};
pub use error::{BillingError, BillingResult};
pub use ids::{CustomerId, SubscriptionId};
pub use money::fmt_amount;
pub use payments::Payment;
pub use prices::SoldPrice;
pub use sessions::CheckoutSession;
pub use subscriptions::{Subscription, SubscriptionStatus, decisive, plan_of};
pub use webhook::{Event, EventKind, WebhookError};

use http::{Http, Times};

/// The version of Stripe's API that requests name, so that answers keep their form when Stripe goes on. Events come in
/// the version of the webhook endpoint instead; [`webhook`] reads older ones too.
pub const STRIPE_VERSION: &str = "2026-10-28.endive";

/// Where an organization's id stands in the metadata of what we make at Stripe.
pub(crate) const ORGANIZATION: &str = "organization_id";

/// Stripe, for one account. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Stripe {
    config: Arc<StripeConfig>,
    http: Arc<Http>,
}

impl Stripe {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// What [`StripeConfig::check`] refuses; and `api_base` if this machine has no certificates to trust.
    pub fn new(config: StripeConfig) -> FieldResult<Self> {
        Self::with_times(config, Times::default())
    }

    pub(crate) fn with_times(config: StripeConfig, times: Times) -> FieldResult<Self> {
        config.check()?;
        Ok(Self {
            http: Arc::new(Http::new(&config, times)?),
            config: Arc::new(config),
        })
    }
}
