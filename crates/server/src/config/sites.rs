//! Where projects' sites are found.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::scalar::optional_scalar;

/// With a slug of 63 characters and a dot before it, a host name has at most 253 (RFC 1035 section 2.3.4).
const LONGEST_DOMAIN: usize = 253 - 64;

/// Sites that projects' backends deploy at Vercel; `insforge-cloud site set` gives a project one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sites {
    /// Sites with a slug are told to be at `{slug}.` this. You lead the wildcard to Vercel and add each name to its
    /// Vercel project; nothing unless given.
    #[serde(deserialize_with = "optional_scalar")]
    pub domain: Option<String>,
}

impl Sites {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let Some(domain) = &self.domain else {
            return Ok(());
        };
        let is_host =
            cp_model::field::host_name("domain", domain).is_ok_and(|host| host == *domain);
        if is_host && domain.len() <= LONGEST_DOMAIN {
            return Ok(());
        }
        let rule = format!(
            "must be a host name in lower case like sites.example.com, of at most {LONGEST_DOMAIN} characters, without \
             scheme, port or path"
        );
        Err(ConfigError::invalid("sites.domain", rule))
    }
}
