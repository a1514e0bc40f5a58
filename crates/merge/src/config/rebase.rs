//! The configuration of a branch's new base, after a rebase.

use super::{Rows, tables::TABLES};

impl Rows {
    /// What a branch would have, had it only its old base and what the parent changed since. Values have no ids, so that
    /// what the parent changed is as the parent has it, whatever the branch made of it (`now`).
    ///
    /// A row that the parent dropped stays in the base while the branch has it: no merge deletes rows, and without it
    /// the next one would bring the row back to the parent as one of the branch's own.
    pub(crate) fn rebased(parent_t0: &Self, parent: &Self, branch_t0: &Self, now: &Self) -> Self {
        let mut base = branch_t0.clone();
        for table in TABLES {
            let Some(rows) = parent.tables.get(&table.qualified()) else {
                continue;
            };
            let kept = base.tables.entry(table.qualified()).or_default();
            kept.retain(|name, _| {
                rows.contains_key(name)
                    || parent_t0.row(table, name).is_none()
                    || now.row(table, name).is_some()
            });
            for (name, row) in rows {
                let was = parent_t0.row(table, name);
                // A column that the branch's release lacks is none of its base.
                let columns = now.row(table, name).or(branch_t0.row(table, name));
                let mut changed = row.values.clone();
                changed.retain(|column, value| {
                    columns.is_none_or(|row| row.values.contains_key(column))
                        && was.is_none_or(|was| was.values.get(column) != Some(value))
                });
                match kept.get_mut(name) {
                    Some(kept) => kept.values.extend(changed),
                    None if was.is_none() && now.row(table, name).is_some() => {
                        let mut added = row.clone();
                        added.values = changed;
                        kept.insert(name.clone(), added);
                    }
                    // Not in the copy from the beginning, or it could not be brought there.
                    None => {}
                }
            }
        }
        base.migrations.retain(|version, _| {
            parent.migrations.contains_key(version) || !parent_t0.migrations.contains_key(version)
        });
        base.migrations.extend(parent.migrations.clone());
        base
    }
}
