//! Typed ids. UUID version 7 where we make them, so that indexes stay dense (design.md, "Data").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::field::{FieldError, FieldResult};

macro_rules! uuid_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new time-ordered id (UUID version 7, RFC 9562 section 5.7).
            pub fn generate() -> Self { Self(Uuid::now_v7()) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> { Uuid::parse_str(text).map(Self) }
        }
        impl From<Uuid> for $name { fn from(id: Uuid) -> Self { Self(id) } }
        impl From<$name> for Uuid { fn from(id: $name) -> Self { id.0 } }
    };
}

uuid_id!(
    /// A person's account.
    UserId
);
uuid_id!(
    /// What owns projects: a person's own, a team's, or a partner's.
    OrganizationId
);
uuid_id!(
    /// One person in one organization.
    MemberId
);
uuid_id!(
    /// One invitation to become a member of an organization.
    InvitationId
);
uuid_id!(
    /// One backend.
    ProjectId
);
uuid_id!(
    /// One piece of long work on a project.
    OperationId
);
uuid_id!(
    /// One backup of a project's database.
    BackupId
);
uuid_id!(
    /// One API key of a project at the AI provider.
    AiKeyId
);
uuid_id!(
    /// One question about a project that a person asked an AI.
    AnalysisId
);
uuid_id!(
    /// One comparison of a branch with its parent.
    ComparisonId
);
uuid_id!(
    /// One machine that runs, or could run, a project's backend.
    MachineId
);
uuid_id!(
    /// A browser in which a person is signed in to our pages.
    BrowserSessionId
);
uuid_id!(
    /// A person's API key.
    ApiKeyId
);
uuid_id!(
    /// One sign-in of a person to an application.
    GrantId
);
uuid_id!(
    /// A mail on its way.
    MailId
);
uuid_id!(
    /// An event that a partner's webhook is told.
    WebhookEventId
);
uuid_id!(
    /// A limit on usage.
    UsageLimitId
);

/// A partner platform: `ps_` and 16 lowercase letters or digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartnerId(String);

impl PartnerId {
    pub const PREFIX: &'static str = "ps_";

    /// A new id from 16 characters of a random (version 4) UUID.
    pub fn generate() -> Self {
        let random = Uuid::new_v4().simple().to_string();
        Self(format!("{}{}", Self::PREFIX, &random[..16]))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PartnerId {
    type Err = FieldError;
    fn from_str(text: &str) -> FieldResult<Self> {
        let body = text.strip_prefix(Self::PREFIX).unwrap_or_default();
        let well_formed = (1..=61).contains(&body.len())
            && body
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(FieldError::new(
                "partnerId",
                "must be ps_ followed by lowercase letters and digits",
            ))
        }
    }
}

impl fmt::Display for PartnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identifies one HTTP request in answers, logs, audit entries and operations. Taken from the
/// caller's `x-request-id` when well-formed, else made here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(String);

impl RequestId {
    pub fn generate() -> Self {
        Self(format!("req_{}", Uuid::now_v7().simple()))
    }

    /// The caller's own id when it is 1 to 128 of `A-Z a-z 0-9 - _ .`: anything else could forge
    /// log lines.
    pub fn from_caller(text: &str) -> Option<Self> {
        let well_formed = (1..=128).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        well_formed.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partner_ids_are_well_formed_and_parse_back() {
        let id = PartnerId::generate();
        assert_eq!(id.as_str().parse::<PartnerId>().unwrap(), id);
        for bad in ["", "ps_", "ps_ABC", "px_abc", "ps_a b", "ps_a'--"] {
            assert!(bad.parse::<PartnerId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_callers_request_id_cannot_carry_line_breaks() {
        assert!(RequestId::from_caller("abc-123_x.y").is_some());
        for bad in ["", "a b", "a\nb", &"x".repeat(129), "é"] {
            assert!(RequestId::from_caller(bad).is_none(), "{bad:?}");
        }
    }
}
