//! Links to a partner's usage report. A browser cannot send the partner's secret, so the partner's
//! backend asks for a link that opens the report, and nothing else, for ten minutes. Nothing is
//! stored: what the link may open stands in it, beside a MAC that only we can make.

use std::fmt::Write as _;

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::{Partner, PartnerId, UsagePeriod};
use cp_storage::usage;
use cp_tokens::SecretBytes;
use cp_tokens::secret::constant_time_eq;
use secrecy::SecretString;

use super::{ProjectTotal, project_totals};
use crate::people::mac;
use crate::{ControlPlane, DomainError, DomainResult, Thing};

const PURPOSE: &str = "usage report";
/// How long a link opens the report.
const LIFETIME: TimeDelta = TimeDelta::minutes(10);

/// A way to a partner's usage report: whoever has the address sees it.
pub struct UsageReportLink {
    pub url: SecretString,
    /// Seconds.
    pub expires_in: i64,
}

/// What a link that is good opens.
#[derive(Debug, Clone)]
pub struct OpenedReport {
    pub partner: Partner,
    pub expires_at: DateTime<Utc>,
}

impl ControlPlane {
    /// A link to what the partner's projects used.
    pub fn usage_report_link(&self, partner: &PartnerId) -> DomainResult<UsageReportLink> {
        let keys = self.sealer().derived_keys(PURPOSE);
        let (_, key) = keys
            .first()
            .ok_or_else(|| DomainError::internal("no sealing key"))?;
        let token = token(key, partner, self.now() + LIFETIME);
        let url = format!("{}/usage-report?token={token}", self.settings().base_url);
        Ok(UsageReportLink {
            url: url.into(),
            expires_in: LIFETIME.num_seconds(),
        })
    }

    /// Whose report the token opens.
    ///
    /// # Errors
    /// `NotFound` when we never made it, `ExpiredLink` when its time is over, `PartnerSuspended`,
    /// `RateLimited`.
    pub async fn open_usage_report(&self, token: &str) -> DomainResult<OpenedReport> {
        let keys = self.sealer().derived_keys(PURPOSE);
        // Links from before the keys were rotated go on.
        let (partner, expires_at) = keys
            .iter()
            .find_map(|(_, key)| read(key, token))
            .ok_or(DomainError::NotFound(Thing::Partner))?;
        if self.now() >= expires_at {
            return Err(DomainError::ExpiredLink);
        }
        let partner = self.find_partner(&partner).await?;
        if partner.suspended_at.is_some() {
            return Err(DomainError::PartnerSuspended);
        }
        self.take_report_view(&partner.id).await?;
        Ok(OpenedReport {
            partner,
            expires_at,
        })
    }

    /// The partner's projects whose machines ran longest in the period, deleted ones too, the
    /// longest first, each with all that it used.
    pub async fn busiest_projects(
        &self,
        partner: &PartnerId,
        period: UsagePeriod,
        limit: u32,
    ) -> DomainResult<Vec<ProjectTotal>> {
        let mut conn = self.db().acquire().await?;
        let now = self.usage_now(&mut conn, partner).await?;
        let projects =
            usage::list_busiest_projects(&mut conn, partner, period, now, i64::from(limit)).await?;
        project_totals(&mut conn, partner, projects, period, now).await
    }
}

/// `<partner id>.<Unix time of its end>.<MAC of both>`: characters that no URL escapes.
fn token(key: &SecretBytes, partner: &PartnerId, expires_at: DateTime<Utc>) -> String {
    let mut token = format!("{partner}.{}", expires_at.timestamp());
    let mac = mac(key, token.as_bytes());
    token.push('.');
    for byte in mac {
        // Writing to a String cannot fail.
        let _ = write!(token, "{byte:02x}");
    }
    token
}

/// What the token says, if this key made it.
fn read(key: &SecretBytes, given: &str) -> Option<(PartnerId, DateTime<Utc>)> {
    let (said, _) = given.rsplit_once('.')?;
    let (partner, expires_at) = said.split_once('.')?;
    let partner: PartnerId = partner.parse().ok()?;
    let expires_at = DateTime::from_timestamp(expires_at.parse().ok()?, 0)?;
    let ours = token(key, &partner, expires_at);
    constant_time_eq(ours.as_bytes(), given.as_bytes()).then_some((partner, expires_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_key_made_is_read() {
        let (one, other) = (
            SecretBytes::from(vec![1; 32]),
            SecretBytes::from(vec![2; 32]),
        );
        let (partner, end) = (PartnerId::generate(), "2026-01-02T03:04:05Z");
        let end: DateTime<Utc> = end.parse().unwrap();
        let made = token(&one, &partner, end);
        assert_eq!(read(&one, &made), Some((partner.clone(), end)));
        assert_eq!(read(&other, &made), None);

        let mac = made.rsplit_once('.').unwrap().1;
        let elsewhere = PartnerId::generate();
        let (second, id) = (end.timestamp(), partner.as_str());
        for forged in [
            String::new(),
            "..".into(),
            made[..made.len() - 1].into(),
            format!("{made}0"),
            made.to_uppercase(),
            format!("{id}.{}.{mac}", second + 1),
            format!("{id}.+{second}.{mac}"),
            format!("{id}.{}.{mac}", i64::MAX),
            format!("{elsewhere}.{second}.{mac}"),
            format!("{id}.{second}."),
            format!("{id}.{mac}"),
        ] {
            assert_eq!(read(&one, &forged), None, "{forged}");
        }
    }
}
