//! Three-way merges of Postgres databases, part by part.
//!
//! Two databases that came from one (a parent and its branch) are read into [`Catalog`]s: once when the branch is
//! made (T0, both sides), and again when it is merged. What follows from them:
//!
//! 1. [`three_way`] decides: which of the branch's changes go to the parent, which are there already, which
//!    conflict. Its result is the catalog that the parent should have.
//! 2. [`script`] writes the statements that turn one catalog into another, in an order in which they run.
//! 3. [`apply`](mod@apply) tries the script on a scratch copy, probes the parent's rows, runs it in one transaction and
//!    proves the result before it commits. For big tables it builds indexes and proves foreign keys and checks afterwards
//!    ([`ApplyOptions::online`]).

mod after_migrations;
pub mod apply;
pub mod catalog;
pub mod command;
pub mod config;
mod definitions;
pub mod error;
mod parallel;
mod plan;
mod probing;
mod rebase;
mod render;
pub mod report;
pub mod scratch;
pub mod script;
mod session;
mod snapshot;
pub mod three_way;

pub use apply::{
    Applied, ApplyOptions, Finished, Record, Unfinished, apply, is_recorded, unfinished,
};
pub use catalog::Catalog;
pub use definitions::Definitions;
pub use error::Error;
pub use plan::{Bases, MergePlan, plan};
pub use rebase::{RebaseError, RebasePlan, apply_rebase, plan_rebase};
pub use report::DiffResult;
pub use snapshot::{Snapshot, snapshot};
pub use three_way::{Choice, Direction, Resolutions};
