//! Decides what a merge does: which of the branch's changes go to the parent, which are there already, which conflict.
//!
//! Each side's edits are measured against its own T0 (a copy has other oids, and some texts change once when they are parsed
//! again). The story: [`names`] brings all four catalogs into one set of names, [`edits`] says what each side did, [`decide`]
//! takes or refuses each edit of the branch, [`combine`] looks for edits that are fine alone and not together, and
//! [`changes`] names what is left as people know it.

mod align;
mod changes;
mod combine;
mod containers;
mod decide;
mod edits;
mod enums;
mod hints;
mod names;
mod names_of;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    catalog::{Catalog, FactId, Hash},
    script::{Blocked, Rename},
};
pub use align::align;
pub(crate) use align::reparsed;
pub(crate) use containers::{ancestors, parts};
pub use names::Aligned;
pub(crate) use names_of::Names;

/// What is compared: each side when the branch was made, and now.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    pub parent_t0: &'a Catalog,
    pub parent: &'a Catalog,
    pub branch_t0: &'a Catalog,
    pub branch: &'a Catalog,
    pub direction: Direction,
}

/// Who takes whose changes. All that decides calls the taker "parent" and the giver "branch", as in a merge; people are
/// told the names that they know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// The branch's changes go to the parent.
    #[default]
    Merge,
    /// The parent's changes go to the branch.
    Rebase,
}

impl Direction {
    /// Who takes the changes.
    pub const fn target(self) -> &'static str {
        match self {
            Self::Merge => "parent",
            Self::Rebase => "branch",
        }
    }

    /// Whose changes they are.
    pub const fn source(self) -> &'static str {
        match self {
            Self::Merge => "branch",
            Self::Rebase => "parent",
        }
    }
}

/// Whose form answers a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The branch's change is dropped.
    Parent,
    /// From what the parent has now to what the branch has.
    Branch,
}

/// By the whole name of the conflict, as [`FactId`] displays it: `public.users.email`.
pub type Resolutions = BTreeMap<String, Choice>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Add,
    Modify,
    Drop,
}

impl Action {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Modify => "modify",
            Self::Drop => "drop",
        }
    }
}

/// One change that the merge makes, named as merge-cases' "Names and grain of changes" says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The name at T0, for what was renamed.
    pub id: FactId,
    pub action: Action,
    /// The facts of the target that it stands for, itself first: a table's with its columns and so on. Statements that serve
    /// one of them serve this change.
    pub facts: Vec<FactId>,
}

/// What a person has to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The name at T0, for what was renamed.
    pub id: FactId,
    /// Hashes of the thing with all that it holds; empty where it is not there.
    pub parent_t0: Hash,
    pub parent_now: Hash,
    pub branch_now: Hash,
    /// Names both edits.
    pub hint: String,
    /// It follows from dependencies or shared namespaces, not from two edits of one thing.
    pub semantic: bool,
}

/// What follows from the four catalogs.
#[derive(Clone, Debug)]
pub struct Merge {
    /// What the parent should read as. Where conflicts are open it keeps the parent's form.
    pub target: Catalog,
    /// The branch's renames, from the parent's names now to the target's: to be done on the parent first.
    pub renames: Vec<Rename>,
    /// All renames on the branch since T0, those in conflict and those that the parent made too among them.
    pub detected: Vec<Rename>,
    pub changes: Vec<Change>,
    pub conflicts: Vec<Conflict>,
    pub blocked: Vec<Blocked>,
    /// Resolutions that name no conflict.
    pub unused_resolutions: Vec<String>,
}

/// Decides by names and texts alone. Where somebody renamed what texts mention, those texts count as edits: bring the sides
/// together in a scratch database first ([`align`]) and call [`decide`].
pub fn three_way(sides: &Sides<'_>, resolutions: &Resolutions) -> Merge {
    decide(&Aligned::by_name(sides, resolutions), resolutions)
}

/// Decides from sides that are in one set of names.
pub fn decide(aligned: &Aligned<'_>, resolutions: &Resolutions) -> Merge {
    decide::decide(aligned, resolutions)
}
