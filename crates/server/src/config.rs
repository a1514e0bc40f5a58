//! Configuration: one struct per concern ([`sections`]), filled from a TOML file and from
//! variables named `INSFORGE_<SECTION>_<KEY>`, which win. Unknown keys are refused with their name.
//!
//! Every key is tried by itself, so that an error names the key and where it stood.

pub mod ai;
pub mod aws;
mod environment;
mod error;
mod find;
mod load;
pub mod objects;
mod period;
mod scalar;
mod secrets;
pub mod sections;
mod shown;
pub mod sites;
mod stripe;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use error::ConfigError;
pub use find::{Found, Sources, find};
pub use load::{Loaded, Origin, Origins};
pub use period::Period;
pub use sections::{LogFormat, PoolTarget, Provider};
pub use shown::Entry;

/// Everything that can be configured. Holds secrets, so it has no `Debug`; serialized, they are
/// masked.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub http: sections::Http,
    pub admin: sections::Admin,
    pub database: sections::Database,
    pub secrets: sections::Secrets,
    pub signing: sections::Signing,
    pub releases: sections::Releases,
    pub limits: sections::Limits,
    pub worker: sections::Worker,
    pub pool: sections::Pool,
    pub local: sections::Local,
    pub ec2: aws::Ec2,
    pub objects: objects::Objects,
    pub sites: sites::Sites,
    pub openrouter: ai::OpenRouterSection,
    pub analysis: ai::Analysis,
    pub mail: sections::Mail,
    pub stripe: stripe::StripeSection,
    pub telemetry: sections::Telemetry,
}
