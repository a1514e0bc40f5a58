//! What of a database goes into an archive.

use std::collections::BTreeSet;

use crate::{database::quote_identifier, tables::Tables};

/// What pg_dump leaves the rows of out. All tables are there in any case, with their whole definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// All of it: a backup.
    Everything,
    /// A branch in mode `full`: without what is the parent's alone. No rows of `pg_cron`, nor of the tables that the
    /// contract (6.2) has empty on a full branch; no subscriptions, whose end on a branch would drop the parent's slot.
    Branch,
    /// A branch in mode `schema-only`: further without users' rows, sequences' values and large objects. What is
    /// configuration (6.1), the ledgers and the secrets stay.
    BranchWithoutData,
}

impl Contents {
    /// The arguments of pg_dump that leave out what is left out, for a database with these tables.
    pub(crate) fn arguments(self, tables: &Tables) -> Vec<String> {
        if self == Self::Everything {
            return Vec::new();
        }
        let mut arguments = vec![
            // Also counts for the configuration tables of an extension, as these are.
            "--exclude-table-data=cron.*".to_owned(),
            "--no-subscriptions".to_owned(),
        ];
        if self == Self::BranchWithoutData {
            arguments.push("--no-blobs".to_owned());
        }
        for pattern in patterns(tables, self) {
            arguments.push(format!("--exclude-table-data={pattern}"));
        }
        arguments
    }
}

/// Patterns of pg_dump for what begins empty: whole schemas where nothing else is in them, else name by name, which the
/// server looks up by its index. (Alternatives in one pattern are no help: 2,000 of them took it half a minute.) Within
/// quotes nothing is special but the quote.
fn patterns(tables: &Tables, contents: Contents) -> Vec<String> {
    let emptied = tables.emptied(contents);
    let mixed = tables.schemas_with_others(&emptied);
    let patterns: BTreeSet<String> = emptied
        .values()
        .map(|relation| {
            if mixed.contains(relation.schema.as_str()) {
                relation.quoted()
            } else {
                format!("{}.*", quote_identifier(&relation.schema))
            }
        })
        .collect();
    patterns.into_iter().collect()
}
