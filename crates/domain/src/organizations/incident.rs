//! What may be wrong with a project, told from what we know without asking its machine: it must work while the
//! project cannot be reached (contract/platform-api.md 13.3).

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::agent_protocol::ObservedState;
use cp_model::{Machine, ProjectId, ProjectStatus};
use cp_storage::metrics::{self, MetricsHealth};
use cp_storage::{machines, operations};

use super::MemberProject;
use crate::context::UserCaller;
use crate::{ControlPlane, DomainResult};

/// Agents report every 20 seconds at least; so many of these may be lost.
const SILENCE: TimeDelta = TimeDelta::minutes(2);

/// Samples come every minute; so long may none come before it is called a gap.
const GAP: TimeDelta = TimeDelta::minutes(3);

/// In percent. A machine that is down after that most likely ran out of memory.
const NEARLY_FULL: f64 = 90.0;

/// Operations that are told.
const RECENT: i64 = 10;

/// What it looks like from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    PausedOrSuspended,
    PlatformOperationInProgress,
    OomLikely,
    MetricsStopped,
    DownUnknown,
    NoIncidentDetected,
}

impl Verdict {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PausedOrSuspended => "paused_or_suspended",
            Self::PlatformOperationInProgress => "platform_operation_in_progress",
            Self::OomLikely => "oom_likely",
            Self::MetricsStopped => "metrics_stopped",
            Self::DownUnknown => "down_unknown",
            Self::NoIncidentDetected => "no_incident_detected",
        }
    }
}

/// A project's state, and what to do about it.
#[derive(Debug, Clone)]
pub struct Incident {
    pub verdict: Verdict,
    pub explanation: String,
    pub recommendation: &'static str,
    pub project: MemberProject,
    pub last_seen_at: Option<DateTime<Utc>>,
    /// Whether its machine has reported lately.
    pub is_heard: bool,
    /// Whether its machine says that the database answers.
    pub has_database: bool,
    /// Since when it is not heard; none while it is.
    pub down_since: Option<DateTime<Utc>>,
    /// In percent, in the last minute that was told; `down_since` tells whether that was before its end.
    pub memory_usage: Option<f64>,
    /// How often, in the last 24 hours, no sample came for minutes.
    pub gaps: i64,
    /// What we did to it lately, the newest first: the kind, and when it was asked for.
    pub operations: Vec<(&'static str, DateTime<Utc>)>,
}

impl ControlPlane {
    pub async fn project_incident(&self, by: &UserCaller, id: ProjectId) -> DomainResult<Incident> {
        let project = self.member_project(by, id).await?;
        let mut conn = self.db().acquire().await?;
        let machine = machines::find_project_machine(&mut conn, id).await?;
        let recent = operations::list_operations(&mut conn, Some(id), None, RECENT).await?;
        let since = self.now() - TimeDelta::hours(24);
        let health = metrics::find_health(&mut conn, id, since, GAP).await?;
        drop(conn);
        let recent = recent.iter();
        let operations = recent.map(|o| (o.kind.as_str(), o.created_at)).collect();
        Ok(judge(
            project,
            machine.as_ref(),
            &health,
            operations,
            self.now(),
        ))
    }
}

fn judge(
    project: MemberProject,
    machine: Option<&Machine>,
    health: &MetricsHealth,
    operations: Vec<(&'static str, DateTime<Utc>)>,
    now: DateTime<Utc>,
) -> Incident {
    let last_seen_at = machine.and_then(|machine| machine.last_seen_at);
    let is_heard = last_seen_at.is_some_and(|at| now - at <= SILENCE);
    let observed = machine.and_then(|machine| machine.observed_state);
    let has_database = is_heard
        && matches!(
            observed,
            Some(ObservedState::Serving | ObservedState::DatabaseOnly)
        );
    let memory_usage = health.last_memory_usage;
    let (verdict, explanation, recommendation) =
        tell(&project, last_seen_at, is_heard, observed, memory_usage);
    Incident {
        down_since: last_seen_at.filter(|_| !is_heard),
        memory_usage,
        gaps: health.gaps,
        verdict,
        explanation,
        recommendation,
        project,
        last_seen_at,
        is_heard,
        has_database,
        operations,
    }
}

fn tell(
    project: &MemberProject,
    last_seen_at: Option<DateTime<Utc>>,
    is_heard: bool,
    observed: Option<ObservedState>,
    memory_usage: Option<f64>,
) -> (Verdict, String, &'static str) {
    let status = project.status;
    if let Some(work) = project.operation_status {
        let text = format!("The project is being worked on ({work}). It may not answer meanwhile.");
        let wait = "Wait for it to end; ask again in a minute.";
        return (Verdict::PlatformOperationInProgress, text, wait);
    }
    match status {
        ProjectStatus::Paused | ProjectStatus::Pausing => {
            let text =
                "The project is paused: its machine is stopped, its data is kept.".to_owned();
            let restore = "Restore it: insforge projects restore.";
            return (Verdict::PausedOrSuspended, text, restore);
        }
        ProjectStatus::Failed => {
            let reason = project.failure.as_ref();
            let reason = reason.map_or("the reason is not known", |f| &f.message);
            let text = format!("The last operation on the project failed: {reason}.");
            let support = "Write to support and name the project; an operator takes it up again.";
            return (Verdict::DownUnknown, text, support);
        }
        _ => {}
    }
    let serves = is_heard && observed == Some(ObservedState::Serving);
    if let Some(percent) = memory_usage.filter(|percent| !serves && *percent >= NEARLY_FULL) {
        let text = format!(
            "The backend does not serve, and before that {percent:.0} % of its machine's memory was in use. Most likely it ran out of memory."
        );
        let bigger = "Restart the project. If it comes again, give it a bigger machine: insforge projects upgrade-instance.";
        return (Verdict::OomLikely, text, bigger);
    }
    if !is_heard {
        let since = last_seen_at.map_or_else(
            || "has never reported".to_owned(),
            |at| {
                let at = at.format("%Y-%m-%d %H:%M:%S UTC");
                format!("has not reported since {at}")
            },
        );
        let text =
            format!("The project's machine {since}. It may be starting, overloaded or gone.");
        let wait = "Wait two minutes: what has stopped is started again. If it lasts, restart the project.";
        return (Verdict::MetricsStopped, text, wait);
    }
    if !serves {
        let text = "The project's machine reports that the backend does not serve.".to_owned();
        let restart = "Restart the project. If that does not help, write to support.";
        return (Verdict::DownUnknown, text, restart);
    }
    let text = "The project's machine reports that the backend serves.".to_owned();
    let look = "If you see errors all the same, look at the logs: insforge logs.";
    (Verdict::NoIncidentDetected, text, look)
}
