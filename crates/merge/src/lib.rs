//! Three-way merges of Postgres databases, part by part.
//!
//! Two databases that came from one (a parent and its branch) are read into [`Catalog`]s: once when the branch is
//! made (T0, both sides), and again when it is merged. What follows from them:
//!
//! 1. [`three_way`] decides: which of the branch's changes go to the parent, which are there already, which
//!    conflict. Its result is the catalog that the parent should have.
//! 2. [`script`] writes the statements that turn one catalog into another, in an order in which they run.
//! 3. [`apply`] tries the script on a scratch copy, probes the parent's rows, runs it in one transaction and
//!    proves the result before it commits.

pub mod catalog;
pub mod error;
pub mod script;

pub use catalog::Catalog;
pub use error::Error;
