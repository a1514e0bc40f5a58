//! Limits on usage: a partner is told, once per period, when what it or a project of it used
//! reaches an amount. Nothing is refused for that.
//!
//! Looked at after each transaction that counted something, and every minute for what grows with
//! time (compute) and for what a crash kept from being looked at. Which of several that see it at
//! once tells it is decided by the primary key of the crossing.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use cp_model::usage::midnight;
use cp_model::{
    Amounts, FieldError, FieldResult, LimitPeriod, Metric, PartnerId, ProjectId, UsageLimitId,
    UsagePeriod, WebhookEventType,
};
use cp_storage::usage::{self, CountedProject};
use cp_storage::usage_limits::{self, UsageLimit};
use cp_storage::{PgConnection, StorageError};
use serde_json::{Value, json};

use super::ingest::{MOST_LATE, UsageEvent};
use super::project_days;
use crate::{ControlPlane, DomainError, DomainResult, Thing};

/// Partners whose limits are looked at in one go.
const PAGE: i64 = 100;
const MOST_DIGITS: usize = 18;

/// What an operator decides.
#[derive(Debug, Clone, Copy)]
pub struct NewLimit<'a> {
    pub metric: Metric,
    /// A decimal number, as people write it.
    pub amount: &'a str,
    /// None: all projects of the partner together.
    pub project: Option<ProjectId>,
    pub period: LimitPeriod,
}

/// A limit as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitSummary {
    pub limit: UsageLimit,
    /// The newest period in which it was reached.
    pub reached_in: Option<String>,
}

/// More than nothing, exact, at most 18 digits in the metric's unit: far within 64 bits.
fn parse_amount(metric: Metric, text: &str) -> FieldResult<i64> {
    let refuse = |rule: String| FieldError::new("amount", rule);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = !whole.is_empty()
        && !text.ends_with('.')
        && whole
            .bytes()
            .chain(fraction.bytes())
            .all(|b| b.is_ascii_digit());
    if !is_number {
        return Err(refuse("must be a number like 1500 or 0.25".into()));
    }
    let (whole, fraction) = (
        whole.trim_start_matches('0'),
        fraction.trim_end_matches('0'),
    );
    let decimals = metric.decimals() as usize;
    if fraction.len() > decimals {
        return Err(refuse(match decimals {
            0 => format!("of {metric} must be a whole number"),
            _ => format!("of {metric} must have at most {decimals} decimals"),
        }));
    }
    if whole.len() + decimals > MOST_DIGITS {
        let most = MOST_DIGITS - decimals;
        return Err(refuse(format!(
            "of {metric} must have at most {most} digits"
        )));
    }
    match format!("{whole}{fraction:0<decimals$}").parse() {
        Ok(0) | Err(_) => Err(refuse("must be more than 0".into())),
        Ok(amount) => Ok(amount),
    }
}

impl ControlPlane {
    /// For operators: tells the partner when usage reaches the amount in a day or a month. Several
    /// amounts may be set for one metric.
    pub async fn set_usage_limit(
        &self,
        partner: &PartnerId,
        new: NewLimit<'_>,
    ) -> DomainResult<UsageLimit> {
        let limit = UsageLimit {
            id: UsageLimitId::generate(),
            partner: partner.clone(),
            project: new.project,
            metric: new.metric,
            period: new.period,
            amount: parse_amount(new.metric, new.amount)?,
            created_at: self.now(),
        };
        let mut tx = self.db().begin().await?;
        self.require_partner(&mut tx, partner).await?;
        if let Some(project) = new.project {
            usage::find_used_project(&mut tx, partner, project)
                .await?
                .filter(|project| project.deleted_at.is_none())
                .ok_or(DomainError::NotFound(Thing::Project))?;
        }
        if !usage_limits::insert_limit(&mut tx, &limit).await? {
            return Err(DomainError::Conflict(
                "this limit is set already; `partner limit list` shows it".into(),
            ));
        }
        let details = json!({
            "limit": limit.id, "project": limit.project, "metric": limit.metric, "period": limit.period,
            "amount": limit.metric.display(limit.amount).to_string(),
        });
        self.audit_limit(&mut tx, partner, "usage_limit.set", details)
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(limit)
    }

    pub async fn list_usage_limits(&self, partner: &PartnerId) -> DomainResult<Vec<LimitSummary>> {
        let mut conn = self.db().acquire().await?;
        self.require_partner(&mut conn, partner).await?;
        let limits = usage_limits::list_limits(&mut conn, partner).await?;
        Ok(limits
            .into_iter()
            .map(|(limit, reached)| LimitSummary {
                reached_in: reached.map(|first| limit.period.name(first)),
                limit,
            })
            .collect())
    }

    pub async fn remove_usage_limit(
        &self,
        partner: &PartnerId,
        id: UsageLimitId,
    ) -> DomainResult<()> {
        let mut tx = self.db().begin().await?;
        self.require_partner(&mut tx, partner).await?;
        if !usage_limits::delete_limit(&mut tx, partner, id).await? {
            return Err(DomainError::NotFound(Thing::UsageLimit));
        }
        self.audit_limit(
            &mut tx,
            partner,
            "usage_limit.removed",
            json!({ "limit": id }),
        )
        .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(())
    }

    async fn audit_limit(
        &self,
        conn: &mut PgConnection,
        partner: &PartnerId,
        action: &str,
        details: Value,
    ) -> DomainResult<()> {
        let target = ("partner", partner.as_str());
        Ok(self
            .audit_service(conn, "operator", action, target, None, details)
            .await?)
    }

    /// After events were counted, or known as counted before. What was counted stays so when this
    /// fails: the look of every minute makes up for it.
    pub(crate) async fn check_limits_of(
        &self,
        events: &[UsageEvent],
        projects: &BTreeMap<ProjectId, CountedProject>,
    ) {
        let touched: BTreeSet<ProjectId> = events.iter().map(|event| event.project).collect();
        let touched: Vec<ProjectId> = touched.into_iter().collect();
        let partners: BTreeSet<PartnerId> = touched
            .iter()
            .filter_map(|id| projects.get(id)?.partner.clone())
            .collect();
        if partners.is_empty() {
            return;
        }
        let partners: Vec<PartnerId> = partners.into_iter().collect();
        let days: BTreeSet<NaiveDate> = events.iter().map(UsageEvent::day).collect();
        let look = async {
            let mut conn = self.db().acquire().await?;
            let limits = usage_limits::list_touched(&mut conn, &partners, &touched).await?;
            drop(conn);
            self.check_limits(&limits, &days).await
        };
        if let Err(error) = look.await {
            tracing::warn!(%error, "usage limits were not looked at; the next look makes up for it");
        }
    }

    /// Looks at all limits, for all days that usage can still be told of. Gives how many were
    /// reached that nobody had told of.
    pub async fn check_all_usage_limits(&self) -> DomainResult<usize> {
        let today = self.today();
        let first = LimitPeriod::Month.first_day((self.now() - MOST_LATE).date_naive());
        let days: BTreeSet<NaiveDate> = first.iter_days().take_while(|day| *day <= today).collect();
        let mut crossed = 0;
        let mut after: Option<PartnerId> = None;
        loop {
            let mut conn = self.db().acquire().await?;
            let partners =
                usage_limits::list_limited_partners(&mut conn, after.as_ref(), PAGE).await?;
            drop(conn);
            for partner in &partners {
                // One partner's trouble is not the others'.
                match self.check_limits_of_partner(partner, first, &days).await {
                    Ok(count) => crossed += count,
                    Err(error) => {
                        tracing::error!(%partner, %error, "a partner's usage limits could not be looked at");
                    }
                }
            }
            let Some(last) = partners.last() else {
                return Ok(crossed);
            };
            after = Some(last.clone());
        }
    }

    async fn check_limits_of_partner(
        &self,
        partner: &PartnerId,
        first: NaiveDate,
        days: &BTreeSet<NaiveDate>,
    ) -> DomainResult<usize> {
        let mut conn = self.db().acquire().await?;
        let limits = usage_limits::list_live(&mut conn, partner, midnight(first)).await?;
        drop(conn);
        self.check_limits(&limits, days).await
    }

    /// Looks at the limits in the periods that the days lie in.
    async fn check_limits(
        &self,
        limits: &[UsageLimit],
        days: &BTreeSet<NaiveDate>,
    ) -> DomainResult<usize> {
        let Some(first) = days.first().filter(|_| !limits.is_empty()) else {
            return Ok(0);
        };
        let since = LimitPeriod::Month.first_day(*first);
        let mut conn = self.db().acquire().await?;
        let told = usage_limits::list_crossings(&mut conn, limits, since).await?;
        drop(conn);
        let mut open: BTreeMap<_, Vec<(&UsageLimit, NaiveDate)>> = BTreeMap::new();
        for limit in limits {
            for start in periods_of(limit, days) {
                if !told.contains(&(limit.id, start)) {
                    let scope = (&limit.partner, limit.project);
                    open.entry(scope).or_default().push((limit, start));
                }
            }
        }
        let mut crossed = 0;
        for ((partner, project), open) in open {
            crossed += self.check_scope(partner, project, &open).await?;
        }
        Ok(crossed)
    }

    /// Looks at limits on one project, or on all of a partner's together, with one look at usage.
    async fn check_scope(
        &self,
        partner: &PartnerId,
        project: Option<ProjectId>,
        open: &[(&UsageLimit, NaiveDate)],
    ) -> DomainResult<usize> {
        let today = self.today();
        let bounds = open
            .iter()
            .map(|(limit, start)| (*start, limit.period.last_day(*start).min(today).max(*start)))
            .reduce(|(a, b), (c, d)| (a.min(c), b.max(d)));
        let Some((first, last)) = bounds else {
            return Ok(0);
        };
        let used = self
            .used(partner, project, UsagePeriod::new(first, last)?)
            .await?;
        let mut crossed = 0;
        for (limit, start) in open {
            let days = used.range(*start..=limit.period.last_day(*start));
            let total = Amounts::total(days.map(|(_, amounts)| amounts));
            let value = total[limit.metric];
            if value >= limit.amount && self.cross(limit, *start, value).await? {
                crossed += 1;
            }
        }
        Ok(crossed)
    }

    async fn used(
        &self,
        partner: &PartnerId,
        project: Option<ProjectId>,
        period: UsagePeriod,
    ) -> DomainResult<BTreeMap<NaiveDate, Amounts>> {
        let Some(project) = project else {
            let usage = self.partner_usage(partner, period).await?;
            return Ok(usage
                .days
                .iter()
                .map(|day| (day.day, day.amounts))
                .collect());
        };
        let mut conn = self.db().acquire().await?;
        let now = self.usage_now(&mut conn, partner).await?;
        project_days(&mut conn, partner, project, period, now).await
    }

    /// Notes that a limit was reached, and tells it. False: somebody else did, or nobody asked to be
    /// told; who asks within the period is told then.
    async fn cross(&self, limit: &UsageLimit, start: NaiveDate, value: i64) -> DomainResult<bool> {
        let now = self.now();
        let mut tx = self.db().begin().await?;
        if !usage_limits::insert_crossing(&mut tx, limit.id, start, value, now).await? {
            return Ok(false);
        }
        let data = json!({
            "limit_id": limit.id,
            "partner_id": limit.partner,
            "project_id": limit.project,
            "metric": limit.metric,
            "period": limit.period.name(start),
            "period_type": limit.period,
            "limit": number(limit.metric, limit.amount),
            "value": number(limit.metric, value),
            "occurred_at": now,
        });
        let kind = WebhookEventType::UsageLimitCrossed;
        let event = self
            .queue_event(&mut tx, &limit.partner, kind, &data)
            .await?;
        if event.is_none() {
            tx.rollback().await.map_err(StorageError::from)?;
            return Ok(false);
        }
        tx.commit().await.map_err(StorageError::from)?;
        Ok(true)
    }
}

/// The first days of the limit's periods in which the days lie, but of none that was over before
/// the limit was set.
fn periods_of(limit: &UsageLimit, days: &BTreeSet<NaiveDate>) -> BTreeSet<NaiveDate> {
    let set_on = limit.created_at.date_naive();
    days.iter()
        .map(|day| limit.period.first_day(*day))
        .filter(|start| limit.period.last_day(*start) >= set_on)
        .collect()
}

/// A JSON number. The fifteen digits that any sensible number of credits has fit a float exactly.
fn number(metric: Metric, amount: i64) -> Value {
    if metric.decimals() == 0 {
        return json!(amount);
    }
    let text = metric.display(amount).to_string();
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        let amount = |metric, text| parse_amount(metric, text).map_err(|error| error.rule);
        assert_eq!(amount(Metric::AiCredits, "0.25"), Ok(250_000));
        assert_eq!(amount(Metric::AiCredits, "12.000001"), Ok(12_000_001));
        assert_eq!(amount(Metric::Ec2Compute, "3600"), Ok(3_600));
        assert_eq!(
            amount(Metric::StorageBytes, "109951162777600.0"),
            Ok(109_951_162_777_600)
        );
        assert_eq!(
            amount(Metric::AiTokens, "999999999999999999"),
            Ok(999_999_999_999_999_999)
        );
        for bad in [
            "", "0", "0.0", "-1", "+1", "1e3", "1.", ".5", "NaN", "1_000", " 1", "٣",
        ] {
            assert!(amount(Metric::AiTokens, bad).is_err(), "{bad}");
        }
        for big in ["9223372036854775808", "1000000000000000000"] {
            let rule = amount(Metric::AiTokens, big).unwrap_err();
            assert!(rule.contains("at most 18 digits"), "{rule}");
        }
        let rule = amount(Metric::AiTokens, "1.5").unwrap_err();
        assert!(rule.contains("whole number"), "{rule}");
        let rule = amount(Metric::AiCredits, "0.0000001").unwrap_err();
        assert!(rule.contains("at most 6 decimals"), "{rule}");
        assert_eq!(number(Metric::AiCredits, 1_500_000).to_string(), "1.5");
        assert_eq!(number(Metric::AiTokens, 7).to_string(), "7");
    }

    #[test]
    fn a_period_that_was_over_when_the_limit_was_set_is_not_looked_at() {
        let day = |text: &str| text.parse::<NaiveDate>().unwrap();
        let limit = |period| UsageLimit {
            id: UsageLimitId::generate(),
            partner: PartnerId::generate(),
            project: None,
            metric: Metric::AiTokens,
            period,
            amount: 1,
            created_at: midnight(day("2026-03-10")),
        };
        let days = ["2026-02-28", "2026-03-01", "2026-03-09", "2026-03-11"].map(day);
        let days = BTreeSet::from(days);
        assert_eq!(
            periods_of(&limit(LimitPeriod::Month), &days),
            [day("2026-03-01")].into()
        );
        assert_eq!(
            periods_of(&limit(LimitPeriod::Day), &days),
            [day("2026-03-11")].into()
        );
    }
}
