//! Webhooks: partners are told what happens to their projects, and that usage reached a limit.
//!
//! An event is queued in the transaction of what happened ([`events`]), so it is told if and only
//! if it happened. A worker tells it, at least once, until the receiver answers 2xx or three days
//! are over ([`deliveries`]). One endpoint per partner, set by operators ([`endpoints`]); where it
//! may be is in [`address`].

mod address;
mod deliveries;
mod endpoints;
mod events;

pub use address::{check_url, is_public};
pub use cp_storage::webhooks::WebhookEventSummary;
pub use deliveries::{Delivery, Outcome};
pub use endpoints::{WebhookSet, WebhookSummary};
