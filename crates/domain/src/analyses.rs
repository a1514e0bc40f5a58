//! Questions about projects that people ask an AI (contract/platform-api.md 13.4, 13.5). The AI itself is asked by `api`; here
//! is who may ask, how often, and how they rate what they are told. What is asked and answered is kept nowhere.

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::{AnalysisId, FieldError, ProjectId, Scope};
use cp_storage::analyses::{self, NewAnalysis};

use crate::context::UserCaller;
use crate::operations::commit;
use crate::{ControlPlane, DomainError, DomainResult, Thing};

/// The time that questions are counted in.
const WINDOW: TimeDelta = TimeDelta::hours(1);

const LONGEST_COMMENT: usize = 2000;

/// How a question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnalysisOutcome {
    Done,
    /// The AI failed.
    Failed,
    /// The person hung up.
    Abandoned,
}

impl AnalysisOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }
}

/// What a person thinks of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rating {
    Helpful,
    NotHelpful,
    Incorrect,
}

impl Rating {
    pub const ALL: &[Self] = &[Self::Helpful, Self::NotHelpful, Self::Incorrect];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Helpful => "helpful",
            Self::NotHelpful => "not_helpful",
            Self::Incorrect => "incorrect",
        }
    }
}

impl ControlPlane {
    /// Counts a question about a project that the person belongs to. They may ask some in an hour.
    pub async fn begin_analysis(
        &self,
        by: &UserCaller,
        project: ProjectId,
        question_length: usize,
    ) -> DomainResult<AnalysisId> {
        by.require(Scope::ProjectsRead)?;
        let project = self.member_project(by, project).await?.id;
        let (user, now) = (by.user.id, self.now());
        let mut tx = self.db().begin().await?;
        let (asked, first) = analyses::count_since(&mut tx, user, now - WINDOW).await?;
        let limit = self.settings().analyses_per_hour;
        if asked >= i64::from(limit) {
            return Err(DomainError::RateLimited {
                limit,
                retry_after: seconds_until(first.unwrap_or(now) + WINDOW, now),
            });
        }
        let id = AnalysisId::generate();
        let new = NewAnalysis {
            id,
            project,
            user,
            question_length: i32::try_from(question_length).unwrap_or(i32::MAX),
            now,
        };
        analyses::insert_analysis(&mut tx, &new).await?;
        commit(tx).await?;
        Ok(id)
    }

    pub async fn end_analysis(
        &self,
        by: &UserCaller,
        id: AnalysisId,
        outcome: AnalysisOutcome,
    ) -> DomainResult<()> {
        let mut conn = self.db().acquire().await?;
        let (user, now) = (by.user.id, self.now());
        analyses::mark_ended(&mut conn, user, id, outcome.as_str(), now).await?;
        Ok(())
    }

    /// Only who asked may rate; for others there is no such analysis.
    pub async fn rate_analysis(
        &self,
        by: &UserCaller,
        id: AnalysisId,
        rating: Rating,
        comment: Option<&str>,
    ) -> DomainResult<()> {
        by.require(Scope::ProjectsRead)?;
        let comment = comment.map(str::trim).filter(|comment| !comment.is_empty());
        let length = comment.map_or(0, |comment| comment.chars().count());
        if length > LONGEST_COMMENT {
            let rule = format!("must have at most {LONGEST_COMMENT} characters, has {length}");
            return Err(FieldError::new("comment", rule).into());
        }
        if comment.is_some_and(|comment| comment.contains('\0')) {
            let rule = "must not contain the character U+0000";
            return Err(FieldError::new("comment", rule).into());
        }
        let mut conn = self.db().acquire().await?;
        let (user, now) = (by.user.id, self.now());
        let rated = analyses::rate(&mut conn, user, id, rating.as_str(), comment, now).await?;
        rated
            .then_some(())
            .ok_or(DomainError::NotFound(Thing::Analysis))
    }
}

fn seconds_until(then: DateTime<Utc>, now: DateTime<Utc>) -> u64 {
    (then - now).num_seconds().max(0).unsigned_abs() + 1
}
