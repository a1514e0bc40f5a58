//! Whether what we sell is for sale.

use cp_model::Plan;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::{BillingResult, Stripe, fmt_amount};

/// A price that we sell a plan for, as Stripe knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoldPrice {
    pub plan: Plan,
    /// `price_…`.
    pub id: String,
    /// As in `$25.00`; none if it is not one amount.
    pub amount: Option<String>,
    /// Whether somebody can buy it, and pays it again and again.
    pub is_for_sale: bool,
}

#[derive(Deserialize)]
struct PriceWire {
    active: bool,
    recurring: Option<IgnoredAny>,
    unit_amount: Option<i64>,
    currency: String,
}

impl Stripe {
    /// The price of each plan. For operators: shows that the key works and that the prices are right, before anybody buys.
    ///
    /// # Errors
    /// [`crate::BillingError::Missing`] for a price that Stripe does not know, and whatever a wrong key gives.
    pub async fn sold_prices(&self) -> BillingResult<Vec<SoldPrice>> {
        let mut sold = Vec::new();
        for plan in self.config.prices.keys().copied() {
            let Some(id) = self.config.price_of(plan) else {
                continue;
            };
            let price: PriceWire = self.http.get(&["prices", id], &[]).await?;
            let amount = price.unit_amount;
            sold.push(SoldPrice {
                plan,
                id: id.to_owned(),
                amount: amount.map(|cents| fmt_amount(cents, &price.currency)),
                is_for_sale: price.active && price.recurring.is_some(),
            });
        }
        Ok(sold)
    }
}
