//! What a project can be made of: regions, instance types and plans (seeds/partnership.md).

use serde::{Deserialize, Serialize};

use crate::text_enum;

text_enum!(
    /// Where a project runs.
    Region ("region") {
        UsEast = "us-east",
        UsWest = "us-west",
        ApSoutheast = "ap-southeast",
        EuCentral = "eu-central",
    }
);

impl Region {
    pub const DEFAULT: Self = Self::UsEast;
}

text_enum!(
    /// How big a project's machine is, smallest first.
    InstanceType ("instance_type") {
        Nano = "nano",
        Micro = "micro",
        Small = "small",
        Medium = "medium",
        Large = "large",
        Xl = "xl",
        Xl2 = "2xl",
        Xl4 = "4xl",
        Xl8 = "8xl",
        Xl16 = "16xl",
    }
);

impl InstanceType {
    pub const DEFAULT: Self = Self::Nano;
}

/// The disk of a new machine, in GiB.
pub const DEFAULT_VOLUME_GIB: i32 = 8;

/// The biggest disk, in GiB: EBS gp3 ends at 16 TiB.
pub const MAX_VOLUME_GIB: i32 = 16 * 1024;

/// What a machine is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSize {
    pub instance_type: InstanceType,
    /// Of its disk. A disk only grows.
    pub volume_gib: i32,
}

text_enum!(
    /// What an organization pays for.
    Plan ("plan") {
        Free = "free",
        Pro = "pro",
        /// A partner's own organization: billed by usage, not limited here.
        Partner = "partner",
    }
);

impl Plan {
    /// What people can buy.
    pub const OF_PEOPLE: [Self; 2] = [Self::Free, Self::Pro];

    /// How many active projects an organization of this plan may have; none: no limit.
    pub const fn project_limit(self) -> Option<u32> {
        match self {
            Self::Free => Some(2),
            Self::Pro | Self::Partner => None,
        }
    }

    /// How many backups of a project people may have besides the scheduled ones.
    pub const fn backup_slots(self) -> u32 {
        match self {
            Self::Free => 1,
            Self::Pro | Self::Partner => 5,
        }
    }

    /// The refusal that partners show to their users, word for word as the public document has it.
    pub fn limit_message(self, limit: u32) -> String {
        let name = match self {
            Self::Free => "Free",
            Self::Pro => "Pro",
            Self::Partner => "Partner",
        };
        format!(
            "{name} plan allows up to {limit} active projects. Please upgrade your plan to create more projects."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_region_is_answered_with_the_valid_ones() {
        let error = "eu-west".parse::<Region>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown region \"eu-west\"; valid values: us-east, us-west, ap-southeast, eu-central"
        );
    }

    #[test]
    fn instance_types_read_as_they_are_written() {
        for kind in InstanceType::ALL {
            assert_eq!(kind.as_str().parse::<InstanceType>().unwrap(), *kind);
        }
        assert_eq!(InstanceType::ALL.len(), 10);
    }

    #[test]
    fn the_limit_message_is_the_documents() {
        assert_eq!(
            Plan::Free.limit_message(2),
            "Free plan allows up to 2 active projects. Please upgrade your plan to create more projects."
        );
    }
}
