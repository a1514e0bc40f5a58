//! Pages of Stripe on which people pay and manage what they pay for. Each call gives a new address, for one person and
//! a short while.

use cp_model::{OrganizationId, Plan};
use serde::Deserialize;
use serde::de::IgnoredAny;
use url::Url;

use crate::wire::Listed;
use crate::{BillingError, BillingResult, CustomerId, ORGANIZATION, Stripe};

/// A page on which a plan is bought. Good for a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckoutSession {
    /// `cs_…`.
    pub id: String,
    pub url: Url,
}

#[derive(Deserialize)]
struct CheckoutWire {
    id: String,
    /// None in modes that we do not use, and once it is over.
    url: Option<Url>,
}

/// One that can still be paid.
#[derive(Deserialize)]
struct OpenWire {
    id: String,
}

impl Listed for OpenWire {
    fn id(&self) -> &str {
        &self.id
    }
}

#[derive(Deserialize)]
struct PortalWire {
    url: Url,
}

impl Stripe {
    /// A page on which the customer subscribes to the plan. The subscription carries the organization's id.
    ///
    /// Each call makes another page, and each can be paid: close those before it ([`Stripe::expire_checkout_sessions`]) and
    /// look at the subscriptions first. For two that are made at the same moment, turn on "limit customers to one
    /// subscription" in Stripe's checkout settings.
    ///
    /// # Errors
    /// [`BillingError::NotSold`] for a plan without a price; [`BillingError::Missing`]: somebody deleted the customer;
    /// [`BillingError::Refused`] with the param `line_items[0][price]` for a price that Stripe does not know.
    pub async fn create_checkout_session(
        &self,
        customer: &CustomerId,
        organization: OrganizationId,
        plan: Plan,
    ) -> BillingResult<CheckoutSession> {
        let price = self
            .config
            .price_of(plan)
            .ok_or(BillingError::NotSold(plan))?;
        let organization = organization.to_string();
        let of_session = format!("metadata[{ORGANIZATION}]");
        let of_subscription = format!("subscription_data[metadata][{ORGANIZATION}]");
        let form = [
            ("mode", "subscription"),
            ("customer", customer.as_str()),
            ("client_reference_id", &organization),
            (&of_session, &organization),
            (&of_subscription, &organization),
            ("line_items[0][price]", price),
            ("line_items[0][quantity]", "1"),
            ("success_url", self.config.success_url.as_str()),
            ("cancel_url", self.config.cancel_url.as_str()),
        ];
        let session: CheckoutWire = self.http.post(&["checkout", "sessions"], &form).await?;
        let url = session.url.ok_or_else(|| {
            BillingError::Unexpected(format!("the checkout session {} has no URL", session.id))
        })?;
        Ok(CheckoutSession {
            id: session.id,
            url,
        })
    }

    /// Closes the customer's pages that nobody has paid on yet. Those that are paid meanwhile stay: read the
    /// subscriptions afterwards.
    ///
    /// # Errors
    /// As of [`Stripe::subscriptions_of`].
    pub async fn expire_checkout_sessions(&self, customer: &CustomerId) -> BillingResult<()> {
        let query = [("customer", customer.as_str()), ("status", "open")];
        let open = self
            .http
            .list::<OpenWire>(&["checkout", "sessions"], &query, usize::MAX, |_| true)
            .await;
        let open = match open {
            // Who was deleted has none.
            Err(BillingError::Missing { .. }) if self.is_deleted(customer).await? => return Ok(()),
            open => open?,
        };
        for session in open {
            let path = ["checkout", "sessions", session.id.as_str(), "expire"];
            match self.http.post::<IgnoredAny>(&path, &[]).await {
                // It was paid, or expired, just now.
                Ok(_) | Err(BillingError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A page on which the customer changes cards, reads invoices and cancels: what the portal's settings in Stripe's
    /// dashboard allow. Good for some minutes.
    ///
    /// # Errors
    /// [`BillingError::Missing`]: somebody deleted the customer; [`BillingError::Refused`] until the portal's settings
    /// were saved once.
    pub async fn create_portal_session(&self, customer: &CustomerId) -> BillingResult<Url> {
        let form = [
            ("customer", customer.as_str()),
            ("return_url", self.config.return_url.as_str()),
        ];
        let session: PortalWire = self
            .http
            .post(&["billing_portal", "sessions"], &form)
            .await?;
        Ok(session.url)
    }
}
