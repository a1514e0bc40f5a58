//! Scenarios. One binary, so that it links once; one file per story.

mod agents;
mod bad_input;
mod concurrency;
mod crash;
mod engine;
mod house;
mod idempotency;
mod keys;
mod partnership;
mod rate_limits;
mod real;
mod tenants;
