//! What partners are told without asking, and when.

use chrono::{Datelike as _, Days, Months, NaiveDate};

use crate::{ProjectStatus, text_enum};

text_enum! {
    /// What an event is about, as receivers read it.
    WebhookEventType ("event type") {
        ProjectActive = "project.active",
        ProjectPaused = "project.paused",
        ProjectFailed = "project.failed",
        ProjectDeleted = "project.deleted",
        /// A branch will be deleted within a day.
        BranchExpiring = "branch.expiring",
        UsageLimitCrossed = "usage.limit_crossed",
        /// Asked for by an operator.
        Test = "webhook.test",
    }
}

impl WebhookEventType {
    /// What is told when a project gets this status. None: the status is on the way to another one.
    pub const fn of_status(status: ProjectStatus) -> Option<Self> {
        match status {
            ProjectStatus::Active => Some(Self::ProjectActive),
            ProjectStatus::Paused => Some(Self::ProjectPaused),
            ProjectStatus::Failed => Some(Self::ProjectFailed),
            ProjectStatus::Deleted => Some(Self::ProjectDeleted),
            ProjectStatus::Provisioning
            | ProjectStatus::Pausing
            | ProjectStatus::Restoring
            | ProjectStatus::Restarting
            | ProjectStatus::Upgrading
            | ProjectStatus::Deleting => None,
        }
    }
}

text_enum! {
    /// How far the telling of an event is.
    WebhookState ("state") {
        /// Not told yet; it will be tried, or is just being tried.
        Queued = "queued",
        /// The receiver said that it has it.
        Delivered = "delivered",
        /// Given up.
        Failed = "failed",
    }
}

text_enum! {
    /// How long usage is added up before a limit begins anew. Days and months of UTC.
    LimitPeriod ("period") {
        Day = "day",
        Month = "month",
    }
}

impl LimitPeriod {
    /// The first day of the period that the day lies in.
    pub fn first_day(self, day: NaiveDate) -> NaiveDate {
        match self {
            Self::Day => day,
            Self::Month => day.with_day(1).unwrap_or(day),
        }
    }

    /// The last day of the period that begins on `first`.
    pub fn last_day(self, first: NaiveDate) -> NaiveDate {
        match self {
            Self::Day => first,
            Self::Month => first + Months::new(1) - Days::new(1),
        }
    }

    /// `2026-11-21`, or `2026-11`.
    pub fn name(self, first: NaiveDate) -> String {
        match self {
            Self::Day => first.to_string(),
            Self::Month => first.format("%Y-%m").to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_whole() {
        let day: NaiveDate = "2024-02-29".parse().unwrap();
        let first = LimitPeriod::Month.first_day(day);
        assert_eq!(LimitPeriod::Month.name(first), "2024-02");
        assert_eq!(LimitPeriod::Month.last_day(first), day);
        assert_eq!(
            LimitPeriod::Day.name(LimitPeriod::Day.first_day(day)),
            "2024-02-29"
        );
        assert_eq!(LimitPeriod::Day.last_day(day), day);
    }

    #[test]
    fn only_lasting_statuses_are_told() {
        let told: Vec<_> = ProjectStatus::ALL
            .iter()
            .filter_map(|status| WebhookEventType::of_status(*status))
            .map(WebhookEventType::as_str)
            .collect();
        assert_eq!(
            told,
            [
                "project.active",
                "project.paused",
                "project.failed",
                "project.deleted"
            ]
        );
    }
}
