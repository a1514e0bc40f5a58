//! A branch: a copy of a whole backend, made to be changed and merged back
//! (contract/branching.md). It is a project of its own with a machine of its own, and a parent.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Operation, Project, ProjectId, text_enum};

text_enum!(
    /// What a branch begins with. Fixed when it is made.
    BranchMode ("mode") {
        /// Schema, configuration and data.
        Full = "full",
        /// Schema and configuration; the users' tables are empty.
        SchemaOnly = "schema-only",
    }
);

text_enum!(
    /// Where a branch stands (contract/platform-api.md 10.2).
    BranchState ("branch state") {
        Creating = "creating",
        Ready = "ready",
        /// A merge or a rebase works on it.
        Merging = "merging",
        Merged = "merged",
        Resetting = "resetting",
        Deleted = "deleted",
    }
);

text_enum!(
    /// Whose changes go where.
    MergeDirection ("direction") {
        /// The branch's changes to the parent.
        Merge = "merge",
        /// The parent's changes to the branch.
        Rebase = "rebase",
    }
);

impl BranchState {
    /// Whether an operation is working on it.
    pub const fn is_transitional(self) -> bool {
        matches!(self, Self::Creating | Self::Merging | Self::Resetting)
    }

    pub const fn can_become(self, next: Self) -> bool {
        use BranchState as S;
        match self {
            S::Creating => matches!(next, S::Ready | S::Deleted),
            S::Ready => matches!(next, S::Merging | S::Resetting | S::Deleted),
            S::Merging => matches!(next, S::Merged | S::Ready | S::Deleted),
            S::Merged => matches!(next, S::Resetting | S::Merging | S::Deleted),
            // One that failed leaves it where it came from.
            S::Resetting => matches!(next, S::Ready | S::Merged | S::Deleted),
            S::Deleted => false,
        }
    }
}

/// A branch and its project.
#[derive(Debug, Clone, PartialEq)]
pub struct Branch {
    pub project: Project,
    pub parent_id: ProjectId,
    pub name: String,
    pub mode: BranchMode,
    pub state: BranchState,
    /// Whether its backend may run: not before its database was restored, nor while it is restored again.
    pub serves: bool,
    /// What it was made from; complete from `ready` on.
    pub copies: BranchCopies,
    /// When its making was asked for.
    pub created_at: DateTime<Utc>,
    /// When it is deleted by itself; none: never.
    pub expires_at: Option<DateTime<Utc>>,
    pub merged_at: Option<DateTime<Utc>>,
    /// What is done to it now, in a state that passes.
    pub work: Option<Operation>,
}

/// The objects that a branch was made from (T0), all in its project's region.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchCopies {
    /// `pg_dump -Fc` of the parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dump: Option<StoredCopy>,
    /// The parent's catalog and configuration, of the same moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<StoredCopy>,
    /// The branch's own, right after the restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<StoredCopy>,
    /// The users' own roles, which no dump carries; as `cp-dump` wrote them.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub roles: serde_json::Value,
}

/// One stored object, with what proves that it is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCopy {
    pub key: String,
    /// In bytes.
    pub size: u64,
    /// CRC-32 of the whole.
    pub crc32: u32,
}

/// Which of both sides a conflict is settled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MergeSide {
    Branch,
    Parent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_but_the_last_can_be_deleted_and_none_is_a_dead_end() {
        for state in BranchState::ALL {
            let deleted = *state == BranchState::Deleted;
            assert_eq!(state.can_become(BranchState::Deleted), !deleted, "{state}");
            let ends = BranchState::ALL.iter().filter(|n| state.can_become(**n));
            assert_eq!(ends.count() == 0, deleted, "{state}");
        }
    }

    #[test]
    fn work_ends_where_nothing_works() {
        for state in BranchState::ALL.iter().filter(|s| s.is_transitional()) {
            for next in BranchState::ALL.iter().filter(|n| state.can_become(**n)) {
                assert!(!next.is_transitional(), "{state} -> {next}");
            }
        }
    }
}
