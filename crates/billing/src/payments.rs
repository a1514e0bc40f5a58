//! What customers have paid and are to pay: their invoices.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::wire::{Listed, Page};
use crate::{BillingResult, CustomerId, Stripe};

/// An invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// `in_…`.
    pub invoice_id: String,
    /// What was paid of a paid one, what is to pay of any other; in the currency's smallest unit
    /// ([`crate::fmt_amount`] writes it for people).
    pub amount_cents: i64,
    /// ISO 4217, in lower case.
    pub currency: String,
    /// Stripe's word: `paid`, `open`, `uncollectible` or `void`.
    pub status: String,
    /// The invoice's, or else its first line's, as in "1 × Pro (at $25.00 / month)".
    pub description: Option<String>,
    /// Where the invoice can be had as PDF, by whoever has the address.
    pub pdf_url: Option<String>,
    pub created: DateTime<Utc>,
}

#[derive(Deserialize)]
struct InvoiceWire {
    id: String,
    amount_paid: i64,
    amount_due: i64,
    currency: String,
    status: Option<String>,
    description: Option<String>,
    invoice_pdf: Option<String>,
    lines: Option<Page<LineWire>>,
    #[serde(with = "chrono::serde::ts_seconds")]
    created: DateTime<Utc>,
}

#[derive(Deserialize)]
struct LineWire {
    description: Option<String>,
}

impl Listed for InvoiceWire {
    fn id(&self) -> &str {
        &self.id
    }
}

impl InvoiceWire {
    /// Drafts can still change, and nobody has seen them.
    fn is_final(&self) -> bool {
        self.status
            .as_deref()
            .is_some_and(|status| status != "draft")
    }
}

impl From<InvoiceWire> for Payment {
    fn from(wire: InvoiceWire) -> Self {
        let status = wire.status.unwrap_or_default();
        let first_line = wire.lines.and_then(|lines| lines.data.into_iter().next());
        Self {
            invoice_id: wire.id,
            amount_cents: if status == "paid" {
                wire.amount_paid
            } else {
                wire.amount_due
            },
            currency: wire.currency,
            status,
            description: wire
                .description
                .or(first_line.and_then(|line| line.description)),
            pdf_url: wire.invoice_pdf,
            created: wire.created,
        }
    }
}

impl Stripe {
    /// The last `limit` invoices of a customer, the newest first, without drafts.
    pub async fn payments(
        &self,
        customer: &CustomerId,
        limit: usize,
    ) -> BillingResult<Vec<Payment>> {
        let query = [("customer", customer.as_str())];
        let found = self
            .http
            .list(&["invoices"], &query, limit, InvoiceWire::is_final)
            .await?;
        Ok(found.into_iter().map(Into::into).collect())
    }
}
