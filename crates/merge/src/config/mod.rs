//! A backend's configuration: rows of the product's own tables, edge functions, the ledger of migrations.
//!
//! Row data of users never merges, but what a developer sets in the product's tables belongs to the branch as much as
//! its schema does. [`Rows`] is the part of a snapshot that holds it; [`merge`] decides column by column, as
//! [`crate::three_way`] does for the schema; [`Write`] is one statement of the result. Only databases of the product
//! (those with `system.is_exposed_schema`) have any of it.
//!
//! Secrets stay where they are: none is part of [`Rows`] as it is hashed and stored.

mod ledger;
mod merge;
mod read;
mod rebase;
mod shown;
mod tables;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use ledger::Migration;
pub use merge::{Merged, Note, RowChange, RowConflict, Sides, merge};
pub(crate) use read::LEDGER;
pub use read::{is_product, read};
pub use write::Write;

use crate::catalog::Hash;

/// All configuration of one database, as texts of Postgres.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// By `schema.table`, then by the row's name (empty in tables of one row).
    tables: BTreeMap<String, BTreeMap<String, Row>>,
    /// `system.custom_migrations`, by version.
    migrations: BTreeMap<String, Migration>,
    #[serde(skip)]
    here: Here,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    /// In the order of the table's key columns.
    key: Vec<Option<String>>,
    /// What a merge carries, by column. A column that this release does not have is absent.
    values: BTreeMap<String, Option<String>>,
}

/// What is true in this database only: needed to write rows here or from here, no part of snapshots and comparisons.
#[derive(Clone, Debug, Default)]
struct Here {
    /// Keys of `system.secrets` that belong to custom OAuth providers.
    secrets: BTreeSet<String>,
    email_has_password: bool,
    /// `schedules.enable_job` and `disable_job` are there.
    schedules: bool,
    /// By the job's id.
    encrypted_headers: BTreeMap<String, Sealed>,
    /// Tables with a column `updated_at`, as `schema.table`.
    stamped: BTreeSet<String>,
}

/// Always equal: [`Rows`] are compared by what merges.
impl PartialEq for Here {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Here {}

/// A ciphertext. Never printed.
#[derive(Clone)]
pub(crate) struct Sealed(String);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[sealed]")
    }
}

impl Sealed {
    /// Only to write it into another database.
    pub(crate) fn ciphertext(&self) -> &str {
        &self.0
    }
}

impl Rows {
    /// SHA-256 of what merges.
    pub fn hash(&self) -> Hash {
        hash(self)
    }

    fn row(&self, table: &tables::Table, name: &str) -> Option<&Row> {
        self.tables.get(&table.qualified())?.get(name)
    }

    /// Names of the rows and migrations that differ, for people.
    pub(crate) fn difference(&self, other: &Self) -> Vec<String> {
        let mut names = BTreeSet::new();
        for table in tables::TABLES {
            let of = |rows: &Self| {
                rows.tables
                    .get(&table.qualified())
                    .cloned()
                    .unwrap_or_default()
            };
            let (left, right) = (of(self), of(other));
            for name in left.keys().chain(right.keys()) {
                if left.get(name) != right.get(name) {
                    names.insert(merge::Name::row(table, name).to_string());
                }
            }
        }
        for version in self.migrations.keys().chain(other.migrations.keys()) {
            if self.migrations.get(version) != other.migrations.get(version) {
                names.insert(format!("system.custom_migrations.{version}"));
            }
        }
        names.into_iter().collect()
    }
}

/// SHA-256 of canonical JSON, as payloads of the catalog are hashed.
pub(crate) fn hash(value: &impl Serialize) -> Hash {
    let json = serde_json::to_vec(value).unwrap_or_default();
    hex::encode(Sha256::digest(json))
}
