//! What of a database goes into an archive.

use crate::{
    database::quote_identifier,
    tables::{Relation, Tables},
};

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

/// A longer pattern takes the server long to compile.
const PATTERN_BYTES: usize = 4_000;

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
        // Table by table: a whole schema would take its materialized views along, which would then stay unpopulated and
        // fail to be read.
        for pattern in patterns(tables.emptied(self).into_values()) {
            arguments.push(format!("--exclude-table-data={pattern}"));
        }
        arguments
    }
}

/// Patterns of pg_dump that match exactly these: `"schema".("one"|"other")`. Within quotes nothing is special but the
/// quote; outside, parentheses and bars are those of a regular expression.
fn patterns<'a>(relations: impl Iterator<Item = &'a Relation>) -> Vec<String> {
    let mut sorted: Vec<&Relation> = relations.collect();
    sorted.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    let mut patterns: Vec<String> = Vec::new();
    let mut schema = None;
    for relation in sorted {
        let name = quote_identifier(&relation.name);
        match patterns.last_mut() {
            Some(open) if schema == Some(&relation.schema) && open.len() < PATTERN_BYTES => {
                open.push('|');
                open.push_str(&name);
            }
            _ => patterns.push(format!("{}.({name}", quote_identifier(&relation.schema))),
        }
        schema = Some(&relation.schema);
    }
    for pattern in &mut patterns {
        pattern.push(')');
    }
    patterns
}
