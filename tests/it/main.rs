//! Scenarios. One binary, so that it links once; one file per story.

#![allow(
    clippy::unwrap_used,
    reason = "a scenario that cannot go on has failed"
)]

mod accounts;
mod agents;
mod aws;
mod bad_input;
mod branches;
mod concurrency;
mod crash;
mod engine;
mod house;
mod idempotency;
mod keys;
mod lifecycle_property;
mod oauth;
mod oauth_attacks;
mod partnership;
mod platform;
mod rate_limits;
mod real;
mod reconcile;
mod stage;
mod statements;
mod tenants;
mod upgrades;
mod usage;
mod usage_report;
mod webhooks;
