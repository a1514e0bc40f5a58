//! Types and rules of the control plane with no I/O: ids, states and their allowed transitions,
//! the catalogue, operation kinds, the clock and the agent's wire protocol. Every other crate
//! imports this one; this one imports none of them.

pub mod agent_protocol;
pub mod backup;
pub mod branch;
pub mod catalogue;
pub mod clock;
pub mod field;
pub mod ids;
pub mod machine;
pub mod mail;
pub mod metrics;
pub mod oauth;
pub mod operation;
pub mod organization;
pub mod partner;
pub mod project;
pub mod service_url;
pub mod usage;
pub mod webhook;

pub use backup::{Backup, BackupStatus, BackupTrigger};
pub use branch::{
    Branch, BranchCopies, BranchMode, BranchState, MergeDirection, MergeSide, StoredCopy,
};
pub use catalogue::{InstanceType, MachineSize, Plan, Region};
pub use clock::{Clock, ManualClock, SharedClock, SystemClock};
pub use field::{FieldError, FieldResult};
pub use ids::{
    AiKeyId, AnalysisId, ApiKeyId, BackupId, BrowserSessionId, ComparisonId, GrantId, InvitationId,
    MachineId, MailId, MemberId, OperationId, OrganizationId, PartnerId, ProjectId, RequestId,
    UsageLimitId, UserId, WebhookEventId,
};
pub use machine::{Machine, MachineState};
pub use mail::MailTemplate;
pub use metrics::{MachineMetric, MetricsRange};
pub use oauth::{CLI_CLIENT_ID, ClientId, ClientKind, OAuthClient, Scope, Scopes};
pub use operation::{Operation, OperationKind, OperationState, UpgradePlan};
pub use organization::{
    INVITATION_LIFE, Invitation, InvitationStatus, Member, MemberRole, Organization,
    OrganizationKind,
};
pub use partner::{Partner, PartnershipModel};
pub use project::{Failure, Project, ProjectStatus};
pub use service_url::check_service_url;
pub use usage::{Amounts, Metric, MetricKind, Run, RunChanges, UsagePeriod};
pub use webhook::{LimitPeriod, WebhookEventType, WebhookState};

/// Gives an enum its one text form: `as_str`, `ALL`, `Display`, `FromStr` and serde, so that the
/// wire, the database and the logs can never disagree on a spelling.
macro_rules! text_enum {
    ($(#[$meta:meta])* $name:ident ($what:literal) { $($(#[$vmeta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The one text form, used on the wire and in the database.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.as_str()) }
        }

        impl std::str::FromStr for $name {
            type Err = crate::UnknownText;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|v| v.as_str() == text).ok_or_else(|| crate::UnknownText {
                    what: $what,
                    given: text.chars().take(64).collect(),
                    valid: Self::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(", "),
                })
            }
        }
    };
}
pub(crate) use text_enum;

/// A text that names no value of an enum. Its message lists the valid ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} \"{given}\"; valid values: {valid}")]
pub struct UnknownText {
    pub what: &'static str,
    pub given: String,
    pub valid: String,
}
