//! Copies of a project's database: what branches are made from, and what a reset goes back to.
//!
//! Called by the worker, which joins this crate's streams to the object store; nothing here knows of machines, projects
//! or S3. A branch's life, in this crate's verbs:
//!
//! 1. [`Exported::open`] holds one snapshot of the parent. [`Exported::connection`] reads the catalog in it, and
//!    [`dump()`] takes the archive in the very same snapshot, so that both agree whatever the parent does meanwhile.
//! 2. [`restore()`] fills the branch's database from the archive while it arrives.
//! 3. [`fix_up_branch`] takes out of the copy what belongs to the parent alone (keys, deployments, schedules).
//!
//! A backup is an archive of everything; put back into its own database, [`fix_up_backup`] keeps the keys of today.
//!
//! Archives are pg_dump's own custom format, written and read by the programs of this machine through pipes: no file
//! lies between, and memory stays flat whatever the size. Sections 5.9 to 5.12 and 6.2 of the project backend's
//! contract are what the SQL in here follows.
//!
//! Both ends assume a superuser, as every project's `POSTGRES_USER` is.

mod archive;
mod contents;
mod database;
mod dump;
mod error;
mod exported;
mod fix_ups;
mod mark;
mod meter;
mod old;
mod prepare;
mod process;
mod programs;
mod restore;
mod roles;
mod tables;

pub use contents::Contents;
pub use database::{Database, Tls};
pub use dump::{DumpStream, dump};
pub use error::Error;
pub use exported::Exported;
pub use fix_ups::{FixUps, fix_up_backup, fix_up_branch};
pub use mark::is_incomplete;
pub use meter::Meter;
pub use old::{discard_kept, put_back};
pub use programs::Programs;
pub use restore::{How, Restored, restore};
pub use roles::{Role, make_roles};
