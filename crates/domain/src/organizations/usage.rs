//! What an organization's projects used this month.

use cp_model::usage::compute_seconds;
use cp_model::{Amounts, Metric, Organization, OrganizationId, UsagePeriod};
use cp_storage::usage::{self, UsedProject};
use cp_storage::usage_statements;

use crate::context::UserCaller;
use crate::usage::ProjectTotal;
use crate::{ControlPlane, DomainResult};

/// The present calendar month, in UTC.
#[derive(Debug, Clone)]
pub struct OrganizationUsage {
    pub organization: Organization,
    pub period: UsagePeriod,
    /// Sizes: the sum over projects of each one's greatest.
    pub total: Amounts,
    /// Every project that existed in the period, deleted ones and branches too, the oldest first.
    pub projects: Vec<ProjectTotal>,
}

impl ControlPlane {
    /// A project's usage goes with it when it is transferred.
    pub async fn organization_usage(
        &self,
        by: &UserCaller,
        id: OrganizationId,
    ) -> DomainResult<OrganizationUsage> {
        let period = UsagePeriod::month_of(self.today());
        // One moment for all that is added up.
        let mut tx = self.db().begin().await?;
        usage_statements::begin_snapshot(&mut tx).await?;
        let organization = self.find_own_organization(&mut tx, by, id).await?;
        let projects = usage::list_organization_used_projects(&mut tx, id, period).await?;
        let totals = usage::list_organization_totals(&mut tx, id, period).await?;
        let runs = usage::list_organization_runs(&mut tx, id, period).await?;
        drop(tx);
        let now = self.now();
        let line = |project: UsedProject| {
            let mut total = totals.get(&project.id).copied().unwrap_or_default();
            let runs = runs.get(&project.id).map_or(&[][..], Vec::as_slice);
            total[Metric::Ec2Compute] = compute_seconds(runs, period, now).values().sum();
            ProjectTotal { project, total }
        };
        let projects: Vec<_> = projects.into_iter().map(line).collect();
        let mut total = Amounts::default();
        for line in &projects {
            total += &line.total;
        }
        Ok(OrganizationUsage {
            organization,
            period,
            total,
            projects,
        })
    }

    /// The organization, for whoever belongs to it.
    pub async fn organization(
        &self,
        by: &UserCaller,
        id: OrganizationId,
    ) -> DomainResult<Organization> {
        let mut conn = self.db().acquire().await?;
        self.find_own_organization(&mut conn, by, id).await
    }

    /// The same, for its administrators.
    pub async fn administered_organization(
        &self,
        by: &UserCaller,
        id: OrganizationId,
    ) -> DomainResult<Organization> {
        let mut conn = self.db().acquire().await?;
        self.require_administrator(&mut conn, by, id).await?;
        self.find_own_organization(&mut conn, by, id).await
    }
}
