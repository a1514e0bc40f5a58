//! Who pays: a customer for each organization that ever began to, and its credit.

use chrono::{DateTime, Utc};
use cp_model::OrganizationId;
use serde::Deserialize;

use crate::wire::Listed;
use crate::{BillingError, BillingResult, CustomerId, ORGANIZATION, Stripe};

/// How often a customer is made under another key, because an old key leads nowhere.
const KEYS: u32 = 3;

/// The currency of who has never had an amount.
const NO_AMOUNT_YET: &str = "usd";

/// What a customer has paid ahead, or was given. It pays the next invoices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credit {
    /// In the currency's smallest unit. Negative: so much is added to the next invoice.
    pub balance_cents: i64,
    /// ISO 4217, in lower case. `usd` for who has never had an amount.
    pub currency: String,
    /// The newest first.
    pub transactions: Vec<CreditTransaction>,
}

impl Credit {
    /// Of who has never had any.
    pub fn none() -> Self {
        Self {
            balance_cents: 0,
            currency: NO_AMOUNT_YET.to_owned(),
            transactions: vec![],
        }
    }
}

/// What was added to the credit (positive) or used of it (negative).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreditTransaction {
    pub amount_cents: i64,
    pub currency: String,
    /// The operator's words, or else what kind it is, as in "Applied to invoice".
    pub description: String,
    pub created: DateTime<Utc>,
}

#[derive(Deserialize)]
struct CustomerWire {
    id: CustomerId,
    balance: Option<i64>,
    currency: Option<String>,
    #[serde(default)]
    deleted: bool,
}

#[derive(Deserialize)]
struct TransactionWire {
    id: String,
    amount: i64,
    currency: String,
    description: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    #[serde(with = "chrono::serde::ts_seconds")]
    created: DateTime<Utc>,
}

impl Listed for TransactionWire {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Stripe {
    /// The organization's customer, with this name and address of mail. Called again within a day it gives the same
    /// one, whatever became of the call before; later it makes another. Keep the id before anything is bought with it.
    ///
    /// # Errors
    /// As [`Stripe::update_customer`].
    pub async fn create_customer(
        &self,
        organization: OrganizationId,
        name: &str,
        email: &str,
    ) -> BillingResult<CustomerId> {
        // Under one key Stripe takes one form only. Name and address change, so they are told after it.
        let metadata = format!("metadata[{ORGANIZATION}]");
        let id = organization.to_string();
        let form = [(metadata.as_str(), id.as_str())];
        let mut number = 1;
        loop {
            let key = format!("insforge-customer-{organization}-{number}");
            let made = match self
                .http
                .post_once::<CustomerWire>(&["customers"], &form, &key)
                .await
            {
                Ok(customer) => self
                    .update_customer(&customer.id, name, email)
                    .await
                    .map(|()| customer.id),
                Err(error) => Err(error),
            };
            // A key gives for a day what it gave first, even if that was a failure, or a customer that somebody has
            // deleted in Stripe's dashboard since.
            let is_key_spent = matches!(
                made,
                Err(BillingError::Missing { .. }
                    | BillingError::Unavailable {
                        is_replayed: true,
                        ..
                    })
            );
            if !is_key_spent || number == KEYS {
                return made;
            }
            number += 1;
        }
    }

    /// Gives a customer another name and address of mail, which invoices show.
    ///
    /// # Errors
    /// [`BillingError::Missing`]: somebody deleted the customer; [`BillingError::Refused`] with the param `email` if
    /// Stripe does not like the address.
    pub async fn update_customer(
        &self,
        customer: &CustomerId,
        name: &str,
        email: &str,
    ) -> BillingResult<()> {
        let form = [("name", name), ("email", email)];
        self.http
            .post::<CustomerWire>(&["customers", customer.as_str()], &form)
            .await
            .map(drop)
    }

    /// A customer's credit, with the last `limit` changes of it.
    ///
    /// # Errors
    /// [`BillingError::Missing`]: somebody deleted the customer.
    pub async fn credit(&self, customer: &CustomerId, limit: usize) -> BillingResult<Credit> {
        let found = self.customer(customer).await?;
        if found.deleted {
            let message = format!("the customer {customer} was deleted");
            return Err(BillingError::Missing { message });
        }
        let path = ["customers", customer.as_str(), "balance_transactions"];
        let transactions = self
            .http
            .list::<TransactionWire>(&path, &[], limit, |_| true)
            .await?;
        Ok(Credit {
            balance_cents: as_credit(found.balance.unwrap_or(0)),
            currency: found.currency.unwrap_or_else(|| NO_AMOUNT_YET.to_owned()),
            transactions: transactions.into_iter().map(Into::into).collect(),
        })
    }

    /// Whether somebody deleted the customer. One that this account never had is [`BillingError::Missing`].
    pub(crate) async fn is_deleted(&self, customer: &CustomerId) -> BillingResult<bool> {
        Ok(self.customer(customer).await?.deleted)
    }

    async fn customer(&self, customer: &CustomerId) -> BillingResult<CustomerWire> {
        let path = ["customers", customer.as_str()];
        self.http.get(&path, &[]).await
    }
}

impl From<TransactionWire> for CreditTransaction {
    fn from(wire: TransactionWire) -> Self {
        let description = wire.description.filter(|text| !text.is_empty());
        Self {
            amount_cents: as_credit(wire.amount),
            currency: wire.currency,
            description: description.unwrap_or_else(|| in_words(&wire.kind)),
            created: wire.created,
        }
    }
}

/// Stripe tells what a customer owes: credit is negative there.
fn as_credit(owed: i64) -> i64 {
    owed.saturating_neg()
}

/// `Applied to invoice` of `applied_to_invoice`.
fn in_words(kind: &str) -> String {
    let mut words = kind.replace('_', " ");
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    words
}
