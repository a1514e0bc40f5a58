//! Reading the audit log, for administrators.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike as _, Utc};
use cp_model::{FieldError, OrganizationId};
use cp_storage::audit::{self, StoredEntry};
use uuid::Uuid;

use crate::context::UserCaller;
use crate::{ControlPlane, DomainResult};

/// One entry: who changed what, from where, in which request. Never holds a secret.
#[derive(Debug, Clone)]
pub struct AuditRecord(pub StoredEntry);

/// Between two entries of the log. Its text is opaque to callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditPlace {
    at: DateTime<Utc>,
    id: Uuid,
}

impl fmt::Display for AuditPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at.timestamp_micros(), self.id)
    }
}

impl FromStr for AuditPlace {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let read = || {
            let (at, id) = text.split_once('.')?;
            let at = DateTime::from_timestamp_micros(at.parse().ok()?)?;
            // Beyond these Postgres has no time.
            let at = (2000..9999).contains(&at.year()).then_some(at)?;
            let id = Uuid::parse_str(id).ok()?;
            Some(Self { at, id })
        };
        read().ok_or_else(|| FieldError::new("cursor", "must be the next_cursor of a page"))
    }
}

impl ControlPlane {
    /// An organization's entries, the newest first; and where the next page begins.
    pub async fn list_audit_log(
        &self,
        by: &UserCaller,
        organization: OrganizationId,
        before: Option<AuditPlace>,
        limit: u32,
    ) -> DomainResult<(Vec<AuditRecord>, Option<AuditPlace>)> {
        let mut conn = self.db().acquire().await?;
        self.require_administrator(&mut conn, by, organization)
            .await?;
        let before = before.map(|place| (place.at, place.id));
        let one_more = i64::from(limit) + 1;
        let mut entries =
            audit::list_organization_entries(&mut conn, organization, before, one_more).await?;
        let more = entries.len() > limit as usize;
        entries.truncate(limit as usize);
        let next = entries.last().filter(|_| more).map(|last| AuditPlace {
            at: last.at,
            id: last.id,
        });
        Ok((entries.into_iter().map(AuditRecord).collect(), next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_back() {
        let at = DateTime::from_timestamp_micros(1_737_455_400_123_456).unwrap();
        let place = AuditPlace {
            at,
            id: Uuid::now_v7(),
        };
        assert_eq!(place.to_string().parse(), Ok(place));
        for bad in [
            "",
            ".",
            "1",
            "x.y",
            "99999999999999999999.x",
            "-1000000000000000000.0192d3b4-5c6d-7e8f-9a0b-1c2d3e4f5a6b",
        ] {
            assert!(bad.parse::<AuditPlace>().is_err(), "{bad}");
        }
    }
}
