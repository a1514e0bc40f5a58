//! Partner platforms.

use chrono::{DateTime, Utc};

use crate::{OrganizationId, PartnerId, text_enum};

text_enum!(
    /// What a partner shows of us (seeds/partnership.md, "Partnership Models").
    PartnershipModel ("partnership model") {
        /// Its users are InsForge users.
        CoBranded = "co_branded",
        /// Nobody sees InsForge.
        WhiteLabel = "white_label",
    }
);

/// One partner platform.
#[derive(Debug, Clone, PartialEq)]
pub struct Partner {
    pub id: PartnerId,
    pub name: String,
    /// Owns its embedded projects.
    pub organization_id: OrganizationId,
    pub co_branded: bool,
    pub white_label: bool,
    /// Requests per minute, over all endpoints.
    pub rate_limit: u32,
    /// Whether it reads the keys of all projects of its connected users.
    pub trusted: bool,
    pub suspended_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

impl Partner {
    pub const DEFAULT_RATE_LIMIT: u32 = 600;

    pub const fn has_model(&self, model: PartnershipModel) -> bool {
        match model {
            PartnershipModel::CoBranded => self.co_branded,
            PartnershipModel::WhiteLabel => self.white_label,
        }
    }
}
