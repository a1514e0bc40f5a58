//! The ledger of migrations, `system.custom_migrations`: append only. What the branch has and the parent lacks is run
//! on the parent before anything else, and recorded there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Rows, hash, merge::RowConflict};
use crate::definitions::Definitions;
use crate::three_way::{Choice, Direction, Resolutions};

/// One row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// 1 to 64 digits, compared as a number: `0001` and `1` are the same migration.
    pub version: String,
    pub name: String,
    /// Single statements, without semicolons. Run as `project_admin` with `search_path = public`.
    pub statements: Vec<String>,
    /// UTC, RFC 3339 with microseconds.
    pub created_at: String,
}

impl Migration {
    /// The name of the change.
    pub fn object(&self) -> String {
        object(&self.version)
    }
}

fn object(version: &str) -> String {
    format!("custom_migrations.{version}")
}

/// Orders like the number does: shorter ones first, once leading zeros are gone.
fn number(version: &str) -> (usize, &str) {
    let digits = version.trim_start_matches('0');
    (digits.len(), digits)
}

/// What is to run on the parent, in order, and versions under which the sides did different things.
pub(super) fn pending(
    branch_t0: &Rows,
    branch: &Rows,
    parent: &Rows,
    resolutions: &Resolutions,
    direction: Direction,
    used: &mut Vec<String>,
) -> (Vec<Migration>, Vec<RowConflict>) {
    let by_number = |rows: &Rows| -> BTreeMap<(usize, String), Migration> {
        rows.migrations
            .values()
            .map(|migration| {
                let (length, digits) = number(&migration.version);
                ((length, digits.to_owned()), migration.clone())
            })
            .collect()
    };
    let (before, there) = (by_number(branch_t0), by_number(parent));
    let (mut run, mut conflicts) = (Vec::new(), Vec::new());
    for (number, migration) in by_number(branch) {
        if before.contains_key(&number) {
            continue; // Older than the branch, whatever became of it on the parent.
        }
        match there.get(&number) {
            None => run.push(migration),
            Some(same) if same.statements == migration.statements => {}
            Some(other) => {
                let name = format!("system.{}", migration.object());
                let resolution = resolutions.get(&name);
                if resolution.is_some() {
                    used.push(name);
                }
                if resolution != Some(&Choice::Parent) {
                    conflicts.push(conflict(&migration, other, direction));
                }
            }
        }
    }
    (run, conflicts)
}

fn conflict(branch: &Migration, parent: &Migration, direction: Direction) -> RowConflict {
    let (target, source) = (direction.target(), direction.source());
    RowConflict {
        kind: "migration",
        schema: "system".to_owned(),
        object: branch.object(),
        parent_t0: String::new(),
        parent_now: hash(&parent.statements),
        branch_now: hash(&branch.statements),
        definitions: Definitions::of(direction, |place| match place {
            1 => Some(parent.text()),
            3 => Some(branch.text()),
            _ => None,
        }),
        hint: format!(
            "migration {} is \"{}\" on the {target} and \"{}\" on the {source}, with other statements; the ledger is \
             append only: give the {source}'s another version, or resolve with {target} to leave it out",
            branch.version, parent.name, branch.name
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn versions_order_as_numbers_of_any_length() {
        let mut versions = vec!["20260101120000", "2", "010", "9", "1"];
        versions.sort_by(|a, b| number(a).cmp(&number(b)));
        assert_eq!(versions, ["1", "2", "9", "010", "20260101120000"]);
        assert_eq!(number("0001"), number("1"));
    }
}
