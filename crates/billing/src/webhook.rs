//! What Stripe tells us, and whether it was Stripe.
//!
//! An event says that something has changed, and about whom. Read the customer's subscriptions then; do not believe
//! the event's own picture of them, which may be older than what we know.

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::OrganizationId;
use cp_tokens::secret::constant_time_eq;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;

use crate::open_enum::open_enum;
use crate::{CustomerId, ORGANIZATION, Stripe, SubscriptionId};

/// How far the time of a signature may be from ours, in the past (somebody sends an old one again) or in the future
/// (clocks differ).
pub const TOLERANCE: TimeDelta = TimeDelta::minutes(5);

open_enum!(
    /// What happened (<https://docs.stripe.com/api/events/types>). Those that we act on; the rest is `Other`.
    EventKind {
        CheckoutCompleted = "checkout.session.completed",
        SubscriptionCreated = "customer.subscription.created",
        SubscriptionUpdated = "customer.subscription.updated",
        SubscriptionDeleted = "customer.subscription.deleted",
        SubscriptionPaused = "customer.subscription.paused",
        SubscriptionResumed = "customer.subscription.resumed",
        InvoicePaid = "invoice.paid",
        InvoicePaymentFailed = "invoice.payment_failed",
        CustomerDeleted = "customer.deleted",
    }
);

impl EventKind {
    /// Whether the customer may have another plan now: read its subscriptions.
    pub fn may_change_plan(&self) -> bool {
        !matches!(self, Self::Other(_))
    }
}

/// Something that happened, surely told by Stripe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `evt_…`; the same however often it is told.
    pub id: String,
    pub kind: EventKind,
    pub created: DateTime<Utc>,
    /// Whether real money is meant.
    pub livemode: bool,
    /// Whom it is about. Find the organization by this, if you know it.
    pub customer: Option<CustomerId>,
    pub subscription: Option<SubscriptionId>,
    /// What we noted on it. Payment links, if the operator uses them, let whoever pays choose it.
    pub organization: Option<OrganizationId>,
}

/// Why an event is not taken. Answer 400 to each; Stripe tells it again, for three days.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The `Stripe-Signature` is no such header.
    #[error("the Stripe-Signature header is malformed")]
    MalformedSignature,
    /// Not signed by Stripe, or with a secret that we do not have, or changed on its way.
    #[error("no signature fits the body and a secret of ours")]
    WrongSignature,
    /// Signed by Stripe, but not now: sent again by somebody, or a clock is wrong.
    #[error("the signature is of {signed_at}, more than five minutes away")]
    OutOfTime { signed_at: DateTime<Utc> },
    /// Signed by Stripe, and no event as its documents have it.
    #[error("the body is no event: {0}")]
    MalformedEvent(String),
}

impl Stripe {
    /// Whether the header `Stripe-Signature` has its form and a time of now: what can be told before the body is read.
    ///
    /// # Errors
    /// [`WebhookError::MalformedSignature`], [`WebhookError::OutOfTime`].
    pub fn check_webhook_header(
        signature_header: &str,
        now: DateTime<Utc>,
    ) -> Result<(), WebhookError> {
        SignatureHeader::parse(signature_header)?.check_time(now)
    }

    /// Takes what was posted to our webhook endpoint: the body byte for byte as it came, and the header
    /// `Stripe-Signature` (<https://docs.stripe.com/webhooks#verify-manually>).
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub fn verify_webhook(
        &self,
        body: &[u8],
        signature_header: &str,
        now: DateTime<Utc>,
    ) -> Result<Event, WebhookError> {
        verify(&self.config.webhook_secrets, body, signature_header, now)?;
        read(body)
    }
}

fn verify(
    secrets: &[SecretString],
    body: &[u8],
    header: &str,
    now: DateTime<Utc>,
) -> Result<(), WebhookError> {
    let signature = SignatureHeader::parse(header)?;
    let timestamp = signature.signed_at.timestamp();
    let is_signed = secrets.iter().any(|secret| {
        let expected = cp_tokens::webhook::sign(secret, timestamp, body);
        signature
            .v1
            .iter()
            .any(|given| constant_time_eq(given.as_bytes(), expected.as_bytes()))
    });
    if !is_signed {
        return Err(WebhookError::WrongSignature);
    }
    signature.check_time(now)
}

/// `t=1764583200,v1=5257a869…`, with a `v1` for each secret while secrets are rotated. Other schemes are not looked at:
/// taking an older one would let an attacker choose the weakest.
struct SignatureHeader<'a> {
    signed_at: DateTime<Utc>,
    v1: Vec<&'a str>,
}

impl<'a> SignatureHeader<'a> {
    fn parse(header: &'a str) -> Result<Self, WebhookError> {
        let malformed = WebhookError::MalformedSignature;
        let mut timestamp = None;
        let mut v1 = Vec::new();
        for part in header.split(',') {
            match part.trim().split_once('=') {
                Some(("t", time)) if timestamp.is_none() => timestamp = Some(time),
                // Two times: which one is signed?
                Some(("t", _)) | None => return Err(malformed),
                Some(("v1", signature)) => v1.push(signature),
                Some(_) => {}
            }
        }
        let Some(signed_at) = timestamp.and_then(read_time) else {
            return Err(malformed);
        };
        if v1.is_empty() {
            return Err(malformed);
        }
        Ok(Self { signed_at, v1 })
    }
}

impl SignatureHeader<'_> {
    fn check_time(&self, now: DateTime<Utc>) -> Result<(), WebhookError> {
        if (now - self.signed_at).abs() > TOLERANCE {
            return Err(WebhookError::OutOfTime {
                signed_at: self.signed_at,
            });
        }
        Ok(())
    }
}

/// Seconds since 1970, written in the one way that is signed.
fn read_time(text: &str) -> Option<DateTime<Utc>> {
    let seconds: i64 = text.parse().ok()?;
    let is_as_signed = seconds.to_string() == text;
    DateTime::from_timestamp(seconds, 0).filter(|_| is_as_signed)
}

#[derive(Deserialize)]
struct EventWire {
    id: String,
    object: String,
    #[serde(rename = "type")]
    kind: EventKind,
    #[serde(with = "chrono::serde::ts_seconds")]
    created: DateTime<Utc>,
    livemode: bool,
    data: DataWire,
}

#[derive(Deserialize)]
struct DataWire {
    object: Value,
}

fn read(body: &[u8]) -> Result<Event, WebhookError> {
    let wire: EventWire = serde_json::from_slice(body)
        .map_err(|error| WebhookError::MalformedEvent(error.to_string()))?;
    if wire.object != "event" {
        let problem = format!("it is a {:?}", wire.object);
        return Err(WebhookError::MalformedEvent(problem));
    }
    let about = &wire.data.object;
    // Invoices name their subscription in `parent` since version 2025-03-31, and at their top before.
    let of_invoice = &about["parent"]["subscription_details"];
    let (customer, subscription) = match about["object"].as_str() {
        Some("customer") => (reference(about), None),
        Some("subscription") => (reference(&about["customer"]), reference(about)),
        _ => (
            reference(&about["customer"]),
            reference(&about["subscription"]).or_else(|| reference(&of_invoice["subscription"])),
        ),
    };
    let organization = [
        &about["metadata"][ORGANIZATION],
        &of_invoice["metadata"][ORGANIZATION],
        &about["subscription_details"]["metadata"][ORGANIZATION],
        &about["client_reference_id"],
    ]
    .into_iter()
    .find_map(|noted| noted.as_str()?.parse().ok());
    Ok(Event {
        id: wire.id,
        kind: wire.kind,
        created: wire.created,
        livemode: wire.livemode,
        customer,
        subscription,
        organization,
    })
}

/// A thing by its id or in full. What is neither is none: events of kinds that we do not act on have any form.
fn reference<Id: std::str::FromStr>(value: &Value) -> Option<Id> {
    value
        .as_str()
        .or_else(|| value["id"].as_str())?
        .parse()
        .ok()
}
