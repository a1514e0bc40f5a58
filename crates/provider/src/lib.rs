//! Machines. The worker asks a [`Compute`] for machines and knows nothing of what is behind it:
//!
//! - [`local`]: a directory, a Postgres cluster and an `insforge-agent` process each, for `dev`;
//! - [`sim`]: a world in memory that fails on command, for tests.
//!
//! Imports the model and `cp-pg` only; `api` and `domain` never import this crate.

mod compute;
pub mod local;
pub mod sim;

pub use compute::{Compute, LaunchSpec, Machine, Power, ProviderError, SharedCompute};
