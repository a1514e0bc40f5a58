//! What customers have subscribed to, and which plan follows from it.

use chrono::{DateTime, Utc};
use cp_model::{OrganizationId, Plan};
use serde::Deserialize;

use crate::open_enum::open_enum;
use crate::wire::{Listed, Metadata, Page, Reference};
use crate::{BillingError, BillingResult, CustomerId, Stripe, SubscriptionId};

open_enum!(
    /// How a subscription is doing (<https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses>).
    SubscriptionStatus {
        /// Tried for free, for a while.
        Trialing = "trialing",
        Active = "active",
        /// The last invoice is not paid; Stripe goes on trying.
        PastDue = "past_due",
        /// Stripe has given up trying, and keeps the subscription.
        Unpaid = "unpaid",
        /// Over, for good.
        Canceled = "canceled",
        /// The first invoice is not paid yet.
        Incomplete = "incomplete",
        /// It was not, within 23 hours. For good.
        IncompleteExpired = "incomplete_expired",
        /// A trial ended without a way to pay, or somebody paused it.
        Paused = "paused",
    }
);

impl SubscriptionStatus {
    /// Whether who has subscribed has the plan. Who is late keeps it while Stripe tries again; who never paid, or no
    /// more, does not. A status that we do not know gives nothing.
    pub fn keeps_plan(&self) -> bool {
        match self {
            Self::Trialing | Self::Active | Self::PastDue => true,
            Self::Unpaid
            | Self::Canceled
            | Self::Incomplete
            | Self::IncompleteExpired
            | Self::Paused
            | Self::Other(_) => false,
        }
    }

    /// Whether it is over for good.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Canceled | Self::IncompleteExpired)
    }
}

/// What a customer pays for again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub customer: CustomerId,
    /// What we noted when it was bought; none if it was made elsewhere.
    pub organization: Option<OrganizationId>,
    /// By its price; none: a price that we do not sell. The best one, if it has several.
    pub plan: Option<Plan>,
    pub status: SubscriptionStatus,
    /// When what is paid for ends, and another invoice comes.
    pub current_period_end: Option<DateTime<Utc>>,
    /// Whether it ends then, without another invoice.
    pub cancel_at_period_end: bool,
    pub created: DateTime<Utc>,
}

impl Subscription {
    /// The plan that its customer has by it.
    fn kept_plan(&self) -> Option<Plan> {
        self.plan.filter(|_| self.status.keeps_plan())
    }
}

/// Which plan follows from all subscriptions of a customer: the best that one of them keeps, else the free one.
pub fn plan_of(subscriptions: &[Subscription]) -> Plan {
    decisive(subscriptions)
        .and_then(Subscription::kept_plan)
        .unwrap_or(Plan::Free)
}

/// One that is paid for and whose price is none that we know: which plan it gives cannot be told.
pub fn of_unknown_price(subscriptions: &[Subscription]) -> Option<&Subscription> {
    subscriptions
        .iter()
        .find(|one| one.status.keeps_plan() && one.plan.is_none())
}

/// The one to show of all subscriptions of a customer: that which gives the plan, else the newest.
pub fn decisive(subscriptions: &[Subscription]) -> Option<&Subscription> {
    // Plans are in order of what they allow; none is before the first.
    subscriptions
        .iter()
        .max_by_key(|subscription| (subscription.kept_plan(), subscription.created))
}

#[derive(Deserialize)]
struct SubscriptionWire {
    id: SubscriptionId,
    customer: Reference<CustomerId>,
    #[serde(default)]
    metadata: Metadata,
    status: SubscriptionStatus,
    items: Page<ItemWire>,
    /// Until version 2025-03-31; since then each item has its own.
    #[serde(default, with = "chrono::serde::ts_seconds_option")]
    current_period_end: Option<DateTime<Utc>>,
    cancel_at_period_end: bool,
    #[serde(default, with = "chrono::serde::ts_seconds_option")]
    cancel_at: Option<DateTime<Utc>>,
    #[serde(with = "chrono::serde::ts_seconds")]
    created: DateTime<Utc>,
}

#[derive(Deserialize)]
struct ItemWire {
    price: PriceWire,
    #[serde(default, with = "chrono::serde::ts_seconds_option")]
    current_period_end: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct PriceWire {
    id: String,
}

impl Listed for SubscriptionWire {
    fn id(&self) -> &str {
        self.id.as_str()
    }
}

impl Stripe {
    /// One subscription. Those that are over are still there.
    ///
    /// # Errors
    /// [`BillingError::Missing`]: Stripe does not know it.
    pub async fn subscription(&self, id: &SubscriptionId) -> BillingResult<Subscription> {
        let path = ["subscriptions", id.as_str()];
        let wire = self.http.get(&path, &[]).await?;
        Ok(self.read(wire))
    }

    /// All subscriptions of a customer, of every status, the newest first. An empty list for a customer that was
    /// deleted: Stripe has cancelled them.
    ///
    /// # Errors
    /// [`BillingError::Missing`]: this account never had the customer. Take no plan away for that: the key may be
    /// another account's, or for tests.
    pub async fn subscriptions_of(
        &self,
        customer: &CustomerId,
    ) -> BillingResult<Vec<Subscription>> {
        let query = [("customer", customer.as_str()), ("status", "all")];
        let found = self
            .http
            .list::<SubscriptionWire>(&["subscriptions"], &query, usize::MAX, |_| true)
            .await;
        match found {
            Ok(found) => Ok(found.into_iter().map(|wire| self.read(wire)).collect()),
            Err(BillingError::Missing { .. }) if self.is_deleted(customer).await? => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Ends a subscription now, as when its organization is deleted: no further invoice comes. Nothing is paid back.
    /// One that is over already stays so.
    ///
    /// # Errors
    /// [`BillingError::Missing`]: this account never had it, so that somebody may go on paying elsewhere.
    pub async fn cancel_subscription(&self, id: &SubscriptionId) -> BillingResult<()> {
        let ended = self
            .http
            .delete::<SubscriptionWire>(&["subscriptions", id.as_str()])
            .await;
        match ended {
            Ok(_) => Ok(()),
            // Of what is over Stripe says the same as of what it never had; but it can still be read.
            Err(error @ BillingError::Missing { .. }) => {
                if self.subscription(id).await?.status.is_final() {
                    Ok(())
                } else {
                    Err(error)
                }
            }
            Err(error) => Err(error),
        }
    }

    fn read(&self, wire: SubscriptionWire) -> Subscription {
        // A subscription of ours has one item. Somebody may have added others in Stripe's dashboard.
        let (plan, period_end) = wire
            .items
            .data
            .iter()
            .map(|item| {
                let plan = self.config.plan_of_price(&item.price.id);
                (plan, item.current_period_end)
            })
            .max_by_key(|(plan, _)| *plan)
            .unwrap_or_default();
        let period_end = wire.current_period_end.or(period_end);
        // The portal cancels some subscriptions by a date, not by the flag.
        let ends_by_date = wire
            .cancel_at
            .is_some_and(|end| period_end.is_some_and(|period_end| end <= period_end));
        Subscription {
            id: wire.id,
            customer: wire.customer.into_id(),
            organization: wire.metadata.organization(),
            plan,
            status: wire.status,
            current_period_end: period_end,
            cancel_at_period_end: wire.cancel_at_period_end || ends_by_date,
            created: wire.created,
        }
    }
}
