//! What projects and partners used (contract/partnership-api.md, "Usage").

mod collect;
mod ingest;
mod limits;
mod report_links;
mod services;
mod statements;

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use cp_model::usage::{compute_seconds, fill_compute};
use cp_model::{Amounts, Metric, Partner, PartnerId, ProjectId, ProjectStatus, UsagePeriod};
use cp_storage::usage;
use cp_storage::{PgConnection, StorageError};

pub use collect::{Collection, Stats};
pub use cp_storage::usage::UsedProject;
pub use cp_storage::usage_limits::UsageLimit;
pub use cp_storage::usage_statements::StatementLine;
pub use ingest::{Ingested, MOST_EVENTS, NewUsageEvent, RefusedEvent, UsageEvent};
pub use limits::{LimitSummary, NewLimit};
pub use report_links::{OpenedReport, UsageReportLink};
pub use services::{NewUsageToken, UsageService, UsageTokenSummary};
pub use statements::{Adjustment, Statement, StatementSummary};

use crate::{ControlPlane, DomainError, DomainResult, Thing};

/// What was used on one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayUsage {
    pub day: NaiveDate,
    pub amounts: Amounts,
}

/// The greatest day of sizes, the sum of the rest.
pub fn total(days: &[DayUsage]) -> Amounts {
    Amounts::total(days.iter().map(|day| &day.amounts))
}

/// What one project used.
#[derive(Debug, Clone)]
pub struct ProjectUsage {
    pub project: UsedProject,
    pub period: UsagePeriod,
    /// Every day of the period on which the project existed, ascending.
    pub days: Vec<DayUsage>,
}

/// What all projects of a partner used.
#[derive(Debug, Clone)]
pub struct PartnerUsage {
    pub period: UsagePeriod,
    /// Every day of the period, ascending. Sizes: the sum over projects of each one's greatest.
    pub days: Vec<DayUsage>,
}

/// One line of a partner's usage by project.
#[derive(Debug, Clone)]
pub struct ProjectTotal {
    pub project: UsedProject,
    pub total: Amounts,
}

impl ControlPlane {
    /// A project that was made through the partner, one that is deleted too: its usage stays.
    pub async fn project_usage(
        &self,
        partner: &Partner,
        id: ProjectId,
        period: UsagePeriod,
    ) -> DomainResult<ProjectUsage> {
        let mut conn = self.db().acquire().await?;
        let project = usage::find_used_project(&mut conn, &partner.id, id)
            .await?
            .ok_or(DomainError::NotFound(Thing::Project))?;
        let now = self.usage_now(&mut conn, &partner.id).await?;
        let used = project_days(&mut conn, &partner.id, id, period, now).await?;
        drop(conn);
        let lived = lived(&project, now);
        let days = period
            .days()
            // What was used is told, whatever a clock says of when the project lived.
            .filter(|day| lived.contains(day) || used.contains_key(day))
            .map(|day| DayUsage {
                day,
                amounts: used.get(&day).copied().unwrap_or_default(),
            })
            .collect();
        Ok(ProjectUsage {
            project,
            period,
            days,
        })
    }

    /// All projects of the partner together. Its cost grows with the days, not with the projects.
    pub async fn partner_usage(
        &self,
        partner: &PartnerId,
        period: UsagePeriod,
    ) -> DomainResult<PartnerUsage> {
        let mut conn = self.db().acquire().await?;
        let days = self.partner_days(&mut conn, partner, period).await?;
        Ok(PartnerUsage { period, days })
    }

    async fn partner_days(
        &self,
        conn: &mut PgConnection,
        partner: &PartnerId,
        period: UsagePeriod,
    ) -> DomainResult<Vec<DayUsage>> {
        let found = usage::find_partner_days(conn, partner, period).await?;
        let now = self.usage_now(conn, partner).await?;
        let mut days: Vec<DayUsage> = period
            .days()
            .map(|day| DayUsage {
                day,
                amounts: found.days.get(&day).map(|d| d.amounts).unwrap_or_default(),
            })
            .collect();
        let changes = days.iter_mut().map(|day| {
            let changes = found.days.get(&day.day).map(|d| d.changes);
            (day.day, changes.unwrap_or_default(), &mut day.amounts)
        });
        fill_compute(changes, found.running, now);
        Ok(days)
    }

    /// The partner's usage by project, deleted ones too, in the order of their making. The second
    /// value is where the next page begins.
    pub async fn partner_usage_by_project(
        &self,
        partner: &PartnerId,
        period: UsagePeriod,
        after: Option<ProjectId>,
        limit: u32,
    ) -> DomainResult<(Vec<ProjectTotal>, Option<ProjectId>)> {
        let mut tx = self.db().begin().await?;
        let mut projects =
            usage::list_used_projects(&mut tx, partner, period, after, i64::from(limit) + 1)
                .await?;
        let has_more = projects.len() > limit as usize;
        projects.truncate(limit as usize);
        let next = projects.last().map(|p| p.id).filter(|_| has_more);
        let now = self.usage_now(&mut tx, partner).await?;
        let lines = project_totals(&mut tx, partner, projects, period, now).await?;
        tx.rollback().await.map_err(StorageError::from)?;
        Ok((lines, next))
    }

    /// Now, or the newest start or stop of a machine if our clock went back behind it: time that
    /// ran once does not run backwards.
    async fn usage_now(
        &self,
        conn: &mut PgConnection,
        partner: &PartnerId,
    ) -> DomainResult<DateTime<Utc>> {
        let now = self.now();
        let newest = usage::find_newest_run_change(conn, partner, now.date_naive()).await?;
        Ok(newest.map_or(now, |newest| newest.max(now)))
    }

    pub fn today(&self) -> NaiveDate {
        self.now().date_naive()
    }
}

/// What a project of the partner used on each day; days without anything are left out.
async fn project_days(
    conn: &mut PgConnection,
    partner: &PartnerId,
    project: ProjectId,
    period: UsagePeriod,
    now: DateTime<Utc>,
) -> DomainResult<BTreeMap<NaiveDate, Amounts>> {
    let mut days = usage::list_project_days(conn, partner, project, period).await?;
    let runs = usage::list_runs(conn, partner, &[project], period).await?;
    let runs = runs.get(&project).map_or(&[][..], Vec::as_slice);
    for (day, seconds) in compute_seconds(runs, period, now) {
        days.entry(day).or_default()[Metric::Ec2Compute] = seconds;
    }
    Ok(days)
}

/// What each of the partner's projects used in the whole period, in their order.
async fn project_totals(
    conn: &mut PgConnection,
    partner: &PartnerId,
    projects: Vec<UsedProject>,
    period: UsagePeriod,
    now: DateTime<Utc>,
) -> DomainResult<Vec<ProjectTotal>> {
    let ids: Vec<ProjectId> = projects.iter().map(|project| project.id).collect();
    let totals = usage::list_project_totals(conn, partner, &ids, period).await?;
    let runs = usage::list_runs(conn, partner, &ids, period).await?;
    let line = |project: UsedProject| {
        let mut total = totals.get(&project.id).copied().unwrap_or_default();
        let runs = runs.get(&project.id).map_or(&[][..], Vec::as_slice);
        total[Metric::Ec2Compute] = compute_seconds(runs, period, now).values().sum();
        ProjectTotal { project, total }
    };
    Ok(projects.into_iter().map(line).collect())
}

/// The days on which the project existed.
fn lived(project: &UsedProject, now: DateTime<Utc>) -> std::ops::RangeInclusive<NaiveDate> {
    let end = match project.status {
        ProjectStatus::Deleted => project.deleted_at.unwrap_or(now),
        _ => now,
    };
    project.created_at.date_naive()..=end.date_naive()
}
