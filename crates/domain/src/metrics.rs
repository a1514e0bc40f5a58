//! How busy a project's machine is and was (contract/platform-api.md 13.1).

use chrono::{DateTime, Utc};
use cp_model::{MachineId, MachineMetric, MetricsRange, ProjectId};
use cp_storage::metrics::{self, Ring};

use crate::context::{ProjectCaller, UserCaller};
use crate::{ControlPlane, DomainResult};

/// One metric over time, the oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsSeries {
    pub metric: MachineMetric,
    /// Whose the newest point is.
    pub machine: Option<MachineId>,
    pub points: Vec<(DateTime<Utc>, f64)>,
}

impl ControlPlane {
    /// One series for each metric that is asked for, all with the same times.
    pub async fn project_metrics(
        &self,
        by: &UserCaller,
        project: ProjectId,
        range: MetricsRange,
        wanted: &[MachineMetric],
    ) -> DomainResult<Vec<MetricsSeries>> {
        let mut conn = self.db().acquire().await?;
        let caller = ProjectCaller::Person(by);
        let project = self.find_own_project(&mut conn, caller, project).await?;
        let now = self.now();
        let since = now - range.length();
        // As many points as a picture can show: 60, 360, 144, 1008.
        let ring = match range {
            MetricsRange::Hour | MetricsRange::SixHours => Ring::Day,
            MetricsRange::Day | MetricsRange::Week => Ring::Week,
        };
        let slots = metrics::list_metrics(&mut conn, project.id, ring, since, now).await?;
        let series = wanted.iter().map(|metric| MetricsSeries {
            metric: *metric,
            machine: slots.last().map(|newest| newest.machine),
            points: slots
                .iter()
                .map(|slot| (slot.at, metric.of(&slot.mean)))
                .collect(),
        });
        Ok(series.collect())
    }
}
