//! What can go wrong between reading two databases and having merged them.

use crate::{catalog::FactId, plan::MergePlan, report::NeedsMigration};

/// Errors of this crate. One variant per thing that a caller can act on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused a statement, or could not be reached.
    #[error("{doing}: {source}")]
    Database {
        /// What was being done, as in "read the policies".
        doing: String,
        source: sqlx::Error,
    },
    /// Two reads of one schema kept differing: somebody changes it right now. Worth another try later.
    #[error("the schema keeps changing while it is read ({reads} reads)")]
    Unsettled { reads: u32 },
    /// Bytes of a snapshot that this release cannot read.
    #[error("not a snapshot of this release: {0}")]
    InvalidSnapshot(String),
    /// The schema or configuration of the database to be changed is not what the plan was made from. A new plan is needed.
    #[error("the database changed since the plan was made")]
    Stale,
    /// Conflicts or needs-migration items are open: nothing is applied.
    #[error("{conflicts} conflicts and {needs_migration} changes that need a migration are open")]
    NotClean {
        conflicts: usize,
        needs_migration: usize,
    },
    /// Rows of the parent do not allow what the plan does to its schema, with what the branch's migrations left of them.
    /// Everything was rolled back.
    #[error("rows stand in the way: {}", hints(.0))]
    RowsInTheWay(Vec<NeedsMigration>),
    /// The result of the script is not what the plan promised. Everything was rolled back.
    #[error("the result differs from the plan, nothing was changed: {0}")]
    Unexpected(String),
}

impl Error {
    /// For `map_err`: names what was being done when the database failed.
    pub fn while_doing(doing: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Database { doing, source }
    }

    /// Labels that were committed before a merge failed are still there: says so.
    pub(crate) fn with_labels_left(self, plan: &MergePlan) -> Self {
        let left: Vec<String> = plan
            .script
            .pre_steps
            .iter()
            .map(|step| format!("`{}`", step.sql))
            .collect();
        if left.is_empty() {
            return self;
        }
        let note = format!(
            " (committed before, and left: {}; a label cannot be used in the transaction that adds it)",
            left.join(", ")
        );
        match self {
            Self::Database { doing, source } => Self::Database {
                doing: format!("{doing}{note}"),
                source,
            },
            Self::Unexpected(text) => Self::Unexpected(format!("{text}{note}")),
            Self::RowsInTheWay(mut items) => {
                if let Some(item) = items.last_mut() {
                    item.hint.push_str(&note);
                }
                Self::RowsInTheWay(items)
            }
            other => other,
        }
    }

    /// What should have been cleared away after a failure is still there: says so.
    pub(crate) fn with_index_left(self, index: &FactId, why: &Self) -> Self {
        match self {
            Self::Database { doing, source } => Self::Database {
                doing: format!("{doing} (and left: the invalid index {index}, since {why})"),
                source,
            },
            other => other,
        }
    }

    /// Whether trying again as it is cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Unsettled { .. } | Self::Stale => false,
            Self::InvalidSnapshot(_)
            | Self::NotClean { .. }
            | Self::RowsInTheWay(_)
            | Self::Unexpected(_) => true,
            Self::Database { source, .. } => match source {
                // Locks and deadlocks, what a shutdown ends, no room (PostgreSQL manual, appendix A).
                sqlx::Error::Database(error) => {
                    let code = error.code().unwrap_or_default();
                    let passes = ["08", "40", "53", "55P03", "57P", "58"];
                    !passes.iter().any(|class| code.starts_with(class))
                }
                sqlx::Error::Io(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::WorkerCrashed => false,
                _ => true,
            },
        }
    }

    /// The SQLSTATE, where the database gave one: what a log may have of an error, whose text quotes statements.
    pub fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Database {
                source: sqlx::Error::Database(error),
                ..
            } => error.code().map(std::borrow::Cow::into_owned),
            _ => None,
        }
    }
}

fn hints(items: &[NeedsMigration]) -> String {
    let hints: Vec<&str> = items.iter().map(|item| item.hint.as_str()).collect();
    hints.join("; ")
}
