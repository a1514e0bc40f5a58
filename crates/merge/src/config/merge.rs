//! The three-way decision on configuration, row by row and column by column.
//!
//! A column that one side changed goes to the other; one that both changed to different values is a conflict of its
//! own name (`auth.config.password_min_length`). A row that the branch dropped stays on the parent and is reported.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    Migration, Row, Rows, hash, ledger, shown,
    tables::{Special, TABLES, Table},
    write::{self, Write},
};
use crate::{
    catalog::Hash,
    definitions::Definitions,
    three_way::{Action, Choice, Direction, Resolutions},
};

/// The same four sides as those of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    pub parent_t0: &'a Rows,
    pub parent: &'a Rows,
    pub branch_t0: &'a Rows,
    pub branch: &'a Rows,
    pub direction: Direction,
}

/// What a merge does to the parent's configuration.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    /// To run before the schema's script, in order.
    pub migrations: Vec<Migration>,
    pub changes: Vec<RowChange>,
    pub conflicts: Vec<RowConflict>,
    /// What people should know: rows that were dropped, arrive without a secret or cannot be inserted at all.
    pub notes: Vec<Note>,
    /// The names of resolutions that answered something here.
    pub used: Vec<String>,
    /// How the parent's configuration should read afterwards.
    pub expected: Rows,
}

/// A row that is added or modified on the parent.
#[derive(Clone, Debug)]
pub struct RowChange {
    /// `config_row` or `edge_function`.
    pub kind: &'static str,
    pub schema: String,
    pub object: String,
    pub action: Action,
    pub writes: Vec<Write>,
    /// The table that is written, as `schema.table`.
    pub table: String,
    pub definitions: Definitions,
}

/// Hashes are those of the value; empty where the side has no such row.
#[derive(Clone, Debug)]
pub struct RowConflict {
    pub kind: &'static str,
    pub schema: String,
    pub object: String,
    pub parent_t0: Hash,
    pub parent_now: Hash,
    pub branch_now: Hash,
    pub hint: String,
    pub definitions: Definitions,
}

#[derive(Clone, Debug)]
pub struct Note {
    pub kind: &'static str,
    pub schema: String,
    pub object: String,
    pub text: String,
}

/// How people call a row or one of its columns: `auth.oauth_configs.google.client_id`, `functions.hello`.
pub(super) struct Name {
    kind: &'static str,
    schema: &'static str,
    object: String,
}

impl Name {
    pub fn row(table: &Table, row: &str) -> Self {
        let object = match (table.special, row) {
            (Special::EdgeFunction, slug) => slug.to_owned(),
            (_, "") => table.name.to_owned(),
            (_, row) => format!("{}.{row}", table.name),
        };
        Self {
            kind: table.kind(),
            schema: table.schema,
            object,
        }
    }

    fn column(&self, column: &str) -> Self {
        Self {
            object: format!("{}.{column}", self.object),
            ..*self
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.object)
    }
}

/// Decides for all tables and the ledger.
pub fn merge(sides: &Sides<'_>, resolutions: &Resolutions) -> Merged {
    let mut merger = Merger {
        sides,
        resolutions,
        merged: Merged {
            expected: sides.parent.clone(),
            ..Merged::default()
        },
    };
    for table in TABLES {
        merger.merge_table(table);
    }
    let Sides {
        branch_t0,
        branch,
        parent,
        direction,
        ..
    } = *sides;
    let mut merged = merger.merged;
    let (migrations, conflicts) = ledger::pending(
        branch_t0,
        branch,
        parent,
        resolutions,
        direction,
        &mut merged.used,
    );
    for migration in &migrations {
        let version = migration.version.clone();
        merged
            .expected
            .migrations
            .insert(version, migration.clone());
    }
    merged.migrations = migrations;
    merged.conflicts.extend(conflicts);
    merged
}

struct Merger<'a> {
    sides: &'a Sides<'a>,
    resolutions: &'a Resolutions,
    merged: Merged,
}

impl Merger<'_> {
    fn merge_table(&mut self, table: &'static Table) {
        let names = |rows: &Rows| -> BTreeSet<String> {
            rows.tables
                .get(&table.qualified())
                .map(|rows| rows.keys().cloned().collect())
                .unwrap_or_default()
        };
        let mut all = names(self.sides.branch);
        all.extend(names(self.sides.branch_t0));
        for row in &all {
            self.merge_row(table, row);
        }
    }

    fn merge_row(&mut self, table: &'static Table, row: &str) {
        let Sides {
            parent_t0,
            parent,
            branch_t0,
            branch,
            direction: _,
        } = *self.sides;
        let (target, source) = self.words();
        let name = Name::row(table, row);
        let (was, now) = (branch_t0.row(table, row), branch.row(table, row));
        let (parent_was, there) = (parent_t0.row(table, row), parent.row(table, row));
        match (was, now, there) {
            (Some(_), None, Some(_)) => self.note(
                &name,
                format!("dropped on the {source}; no merge deletes configuration, so the {target} keeps it"),
            ),
            (None, Some(now), None) => self.add(table, row, &name, now),
            (Some(was), Some(now), None) if was != now => {
                // Dropped on the parent, changed on the branch.
                let conflict = RowConflict {
                    definitions: shown::row(self.sides, table, row, None),
                    hint: format!("{name} was dropped on the {target} and changed on the {source}"),
                    ..conflict(&name, parent_was.map(hash), None, Some(hash(now)))
                };
                if self.resolve(&[&name], conflict) {
                    self.add(table, row, &name, now);
                }
            }
            (_, Some(_), Some(there)) => {
                let set = self.changed_columns(table, row, &name);
                if !set.is_empty() {
                    self.modify(table, row, &name, there, &set);
                }
            }
            _ => {}
        }
    }

    /// The columns that the parent takes over, with their values.
    fn changed_columns(
        &mut self,
        table: &Table,
        row: &str,
        name: &Name,
    ) -> BTreeMap<String, Option<String>> {
        let (target, source) = self.words();
        let sides = self.sides;
        let (was, parent_was) = (
            sides.branch_t0.row(table, row),
            sides.parent_t0.row(table, row),
        );
        let mut set = BTreeMap::new();
        let (Some(now), Some(there)) = (sides.branch.row(table, row), sides.parent.row(table, row))
        else {
            return set;
        };
        for (column, value) in &now.values {
            // A column that the parent's release lacks cannot be written there.
            let Some(current) = there.values.get(column) else {
                continue;
            };
            let before = was.and_then(|row| row.values.get(column));
            let parent_before = parent_was.and_then(|row| row.values.get(column));
            if before == Some(value) || value == current {
                continue;
            }
            let untouched = was.is_some() && parent_before.is_none_or(|before| before == current);
            let column_name = name.column(column);
            let wanted = untouched || {
                let conflict = RowConflict {
                    definitions: shown::row(sides, table, row, Some(column)),
                    hint: format!(
                        "{column_name} is {} on the {target} and {} on the {source}",
                        shown(current.as_deref()),
                        shown(value.as_deref())
                    ),
                    ..conflict(
                        &column_name,
                        parent_before.map(hash),
                        Some(hash(current)),
                        Some(hash(value)),
                    )
                };
                self.resolve(&[&column_name, name], conflict)
            };
            if wanted {
                set.insert(column.clone(), value.clone());
            }
        }
        set
    }

    /// What people call the two sides.
    fn words(&self) -> (&'static str, &'static str) {
        let direction = self.sides.direction;
        (direction.target(), direction.source())
    }

    /// Whether the branch's side is taken. Without an answer it is a conflict, and nothing is.
    fn resolve(&mut self, names: &[&Name], conflict: RowConflict) -> bool {
        for name in names {
            let name = name.to_string();
            if let Some(choice) = self.resolutions.get(&name) {
                self.merged.used.push(name);
                return *choice == Choice::Branch;
            }
        }
        self.merged.conflicts.push(conflict);
        false
    }

    fn add(&mut self, table: &'static Table, row: &str, name: &Name, now: &Row) {
        let secret = match table.special {
            Special::SecretRequired => {
                let key = format!("CUSTOM_OAUTH_{row}_CLIENT_SECRET");
                let secrets = &self.sides.parent.here.secrets;
                let Some(found) = secrets.iter().find(|s| s.eq_ignore_ascii_case(&key)) else {
                    let text = format!(
                        "not added: the {} has no secret {key}, which this row needs; store it there and merge again",
                        self.sides.direction.target()
                    );
                    return self.note(name, text);
                };
                Some(found.clone())
            }
            _ => None,
        };
        self.note_missing_secrets(table, name, None, now);
        let place = write::Place {
            table,
            row: now,
            parent: self.sides.parent,
            branch: self.sides.branch,
        };
        let writes = place.insert(secret.as_deref());
        self.apply(table, row, name, Action::Add, writes, now.clone());
    }

    fn modify(
        &mut self,
        table: &'static Table,
        row: &str,
        name: &Name,
        there: &Row,
        set: &BTreeMap<String, Option<String>>,
    ) {
        let mut merged = there.clone();
        merged.values.extend(set.clone());
        self.note_missing_secrets(table, name, Some(there), &merged);
        let place = write::Place {
            table,
            row: &merged,
            parent: self.sides.parent,
            branch: self.sides.branch,
        };
        let writes = place.update(set);
        self.apply(table, row, name, Action::Modify, writes, merged);
    }

    fn apply(
        &mut self,
        table: &Table,
        row: &str,
        name: &Name,
        action: Action,
        writes: Vec<Write>,
        result: Row,
    ) {
        self.merged.changes.push(RowChange {
            kind: name.kind,
            schema: name.schema.to_owned(),
            object: name.object.clone(),
            action,
            writes,
            table: table.qualified(),
            definitions: shown::row(self.sides, table, row, None),
        });
        let rows = &mut self.merged.expected.tables;
        rows.entry(table.qualified())
            .or_default()
            .insert(row.to_owned(), result);
    }

    /// Rows that arrive whole but will not work until somebody enters a secret on the parent.
    fn note_missing_secrets(&mut self, table: &Table, name: &Name, there: Option<&Row>, row: &Row) {
        let target = self.sides.direction.target();
        let is = |row: &Row, column: &str, value: &str| {
            row.values.get(column) == Some(&Some(value.to_owned()))
        };
        match table.special {
            Special::OwnKeys
                if is(row, "use_shared_key", "false")
                    && there.is_none_or(|there| is(there, "use_shared_key", "true")) =>
            {
                self.note(
                    name,
                    format!("sign-in fails until the client secret is entered on the {target}"),
                );
            }
            Special::Password
                if is(row, "enabled", "true") && !self.sides.parent.here.email_has_password =>
            {
                self.note(
                    name,
                    format!("SMTP is not used until its password is entered on the {target}"),
                );
            }
            _ => {}
        }
    }

    fn note(&mut self, name: &Name, text: String) {
        self.merged.notes.push(Note {
            kind: name.kind,
            schema: name.schema.to_owned(),
            object: name.object.clone(),
            text,
        });
    }
}

fn conflict(
    name: &Name,
    parent_t0: Option<Hash>,
    parent_now: Option<Hash>,
    branch_now: Option<Hash>,
) -> RowConflict {
    RowConflict {
        kind: name.kind,
        schema: name.schema.to_owned(),
        object: name.object.clone(),
        parent_t0: parent_t0.unwrap_or_default(),
        parent_now: parent_now.unwrap_or_default(),
        branch_now: branch_now.unwrap_or_default(),
        hint: String::new(),
        definitions: Definitions::default(),
    }
}

/// A value for a hint: short, on one line.
fn shown(value: Option<&str>) -> String {
    match value {
        None => "null".to_owned(),
        Some(text) if text.chars().count() <= 40 && !text.contains('\n') => format!("'{text}'"),
        Some(text) => format!("another text of {} bytes", text.len()),
    }
}
