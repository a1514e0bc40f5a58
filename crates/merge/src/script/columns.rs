//! Columns: added, altered in place, dropped and added again where a generation expression changes.

use std::fmt::Write as _;

use super::{
    casts,
    graph::{Rank, Step},
    kinds::order,
    quote,
    rebuild::Action,
    sequences, types,
    writer::Writer,
};
use crate::catalog::{Column, FactId, Identity, Kind};

impl<'a> Writer<'a, '_> {
    pub(super) fn make_column(&mut self, id: &'a FactId, action: Action) {
        // Without a fact of its own, it is to be as its parent has it.
        let inherited = self
            .to
            .effective_column(&id.schema, &id.object, &id.part)
            .filter(|c| c.inherited);
        let Some(new) = self.to.column(id).or(inherited.map(|c| c.column)) else {
            return;
        };
        let Some(table) = self.to.container(&id.schema, &id.object) else {
            return;
        };
        if self.actions.of(table).fresh() && !self.cuts.separate.contains(id) {
            // Written by `create_table`.
            self.graph.alias((id, Step::Make), (table, Step::Make));
            self.complete_default(id, new);
            return;
        }
        let name = quote::object(id);
        if action.fresh() {
            let inherited = self
                .to
                .table(&id.schema, &id.object)
                .is_some_and(|t| !t.parents.is_empty())
                && self.inherited_column(id).is_some();
            let mut sql = Vec::new();
            if let Some(parent) = self.inherited_column(id)
                && inherited
            {
                // The parent's ADD COLUMN brings it; what differs here is altered.
                sql.extend(self.alter_column(id, &without_identity(parent), new));
                for parent in self.parents_with_column(id) {
                    self.graph.edge((parent, Step::Make), (id, Step::Make));
                }
            } else {
                let with_default = !self.cuts.late_defaults.contains(id);
                let add = format!("ADD COLUMN {}", column_sql(&id.part, new, with_default));
                let extras = column_extras(&id.part, new);
                sql.push(format!("ALTER TABLE {name} {add}"));
                if !extras.is_empty() {
                    sql.push(format!("ALTER TABLE {name} {}", extras.join(", ")));
                }
            }
            self.step(id, Step::Make, order::COLUMN, sql);
            self.complete_default(id, new);
            return;
        }
        let old = self
            .from
            .effective_column(&id.schema, &id.object, &id.part)
            .map(|c| c.column);
        if let Some(old) = old {
            let sql = match inherited {
                Some(_) => self.alter_column(
                    id,
                    old,
                    &Column {
                        identity: old.identity.clone(),
                        ..new.clone()
                    },
                ),
                None => self.alter_column(id, old, new),
            };
            self.step(id, Step::Make, order::COLUMN, sql);
            self.loosen_if_needed(id, old, new);
            if old.identity.is_some() && new.identity.is_none() {
                // Early: a sequence that takes over takes its name, too.
                self.add_loosen(
                    id,
                    format!(
                        "ALTER TABLE {name} ALTER COLUMN {} DROP IDENTITY",
                        quote::ident(&id.part)
                    ),
                );
            }
        }
    }

    /// The default of a new column, where it had to be left out at first.
    fn complete_default(&mut self, id: &'a FactId, new: &Column) {
        if let Some(default) = &new.default
            && self.cuts.late_defaults.contains(id)
        {
            let sql = set_default(id, default);
            self.step(id, Step::Complete, order::DEFAULT, vec![sql]);
        }
    }

    /// The column as the table's parents have it, if one of them does.
    pub(super) fn inherited_column(&self, id: &FactId) -> Option<&'a Column> {
        self.to
            .table(&id.schema, &id.object)?
            .parents
            .iter()
            .find_map(|(s, o)| self.to.effective_column(s, o, &id.part))
            .map(|c| c.column)
    }

    fn parents_with_column(&self, id: &FactId) -> Vec<&'a FactId> {
        let Some(table) = self.to.table(&id.schema, &id.object) else {
            return Vec::new();
        };
        table
            .parents
            .iter()
            .filter_map(|(s, o)| self.to.effective_column(s, o, &id.part))
            .map(|c| c.id)
            .collect()
    }

    /// The ALTER statements between two forms of a column.
    pub(super) fn alter_column(&self, id: &FactId, old: &Column, new: &Column) -> Vec<String> {
        let table = quote::object(id);
        let column = format!("ALTER COLUMN {}", quote::ident(&id.part));
        let mut actions: Vec<String> = Vec::new();
        let mut before = Vec::new();
        let mut after = Vec::new();
        let retyped = old.type_ != new.type_ || old.collation != new.collation;
        // A parent's ALTER TYPE goes through to its children.
        let retypes_here = retyped && self.inherited_column(id).is_none();

        if old.generated.is_some() && new.generated.is_none() {
            before.push(format!("ALTER TABLE {table} {column} DROP EXPRESSION"));
        }
        let early = self.cuts.loosened.contains(id) || self.actions.loosened.contains(id);
        let default_differs = old.default != new.default;
        if old.default.is_some()
            && (retypes_here || default_differs || early)
            && (new.default.is_none() || retypes_here)
        {
            // The old default may have no cast to the new type.
            actions.push(format!("{column} DROP DEFAULT"));
        }
        if retypes_here {
            let collate = new
                .collation
                .as_ref()
                .map(|c| format!(" COLLATE {}", types::collation_name(c)))
                .unwrap_or_default();
            let using = casts::using(
                self.from,
                self.to,
                &quote::ident(&id.part),
                &old.type_,
                &new.type_,
            )
            .map(|using| format!(" USING {using}"))
            .unwrap_or_default();
            actions.push(format!("{column} TYPE {}{collate}{using}", new.type_));
        }
        if let Some(default) = &new.default
            && (default_differs || retypes_here || early)
        {
            actions.push(format!("{column} SET DEFAULT {default}"));
        }
        match (old.not_null, new.not_null) {
            (false, true) => actions.push(format!("{column} SET NOT NULL")),
            (true, false) => after.push(format!("ALTER TABLE {table} {column} DROP NOT NULL")),
            _ => {}
        }
        // ALTER TYPE puts storage and compression back to the new type's own.
        let resets =
            |old: Option<char>, new: Option<char>| if retyped { new.is_some() } else { old != new };
        if resets(old.storage, new.storage) {
            let storage = new
                .storage
                .map_or_else(|| casts::type_storage(&new.type_), storage_name);
            actions.push(format!("{column} SET STORAGE {storage}"));
        }
        if resets(old.compression, new.compression) {
            actions.push(format!(
                "{column} SET COMPRESSION {}",
                compression_name(new.compression)
            ));
        }
        if old.statistics != new.statistics {
            actions.push(format!(
                "{column} SET STATISTICS {}",
                new.statistics.unwrap_or(-1)
            ));
        }
        actions.extend(option_changes(&column, &old.options, &new.options));
        match (&old.identity, &new.identity) {
            (None, Some(identity)) => {
                after.push(format!(
                    "ALTER TABLE {table} {column} ADD {}",
                    identity_sql(identity)
                ));
                if sequences::is_integer(&new.type_) {
                    let sequence = format!(
                        "pg_catalog.pg_get_serial_sequence({}, {})",
                        quote::literal(&table),
                        quote::literal(&id.part)
                    );
                    after.push(sequences::past_maximum(&sequence, id, &identity.options));
                }
            }
            (Some(a), Some(b)) if a != b || retypes_here => {
                let mut set = Vec::new();
                if a.always != b.always {
                    set.push(format!(
                        "SET GENERATED {}",
                        if b.always { "ALWAYS" } else { "BY DEFAULT" }
                    ));
                }
                if a.options != b.options {
                    set.extend(
                        sequences::all_sequence_options(&b.options, false)
                            .into_iter()
                            .map(|option| format!("SET {option}")),
                    );
                }
                if !set.is_empty() {
                    after.push(format!("ALTER TABLE {table} {column} {}", set.join(" ")));
                }
            }
            _ => {}
        }
        if !actions.is_empty() {
            before.push(format!("ALTER TABLE {table} {}", actions.join(", ")));
        }
        before.extend(after);
        before
    }

    /// Drops the old default ahead where it holds on to something that goes.
    fn loosen_if_needed(&mut self, id: &'a FactId, old: &Column, new: &Column) {
        if old.default.is_none()
            || (old.default == new.default && !self.actions.loosened.contains(id))
        {
            return;
        }
        let holds = self
            .from
            .needs(id)
            .iter()
            .any(|need| self.actions.of(need).drops() || need.kind == Kind::Sequence);
        if holds {
            self.add_loosen(
                id,
                format!(
                    "ALTER TABLE {} ALTER COLUMN {} DROP DEFAULT",
                    quote::object(id),
                    quote::ident(&id.part)
                ),
            );
        }
    }

    pub(super) fn add_loosen(&mut self, id: &'a FactId, sql: String) {
        if !self.graph.contains((id, Step::Loosen)) {
            let statement = self.statement(id, sql);
            self.graph.add(
                (id, Step::Loosen),
                Rank { phase: 0, order: 2 },
                vec![statement],
            );
        }
    }

    /// The default of a column or domain goes early; if nothing else about it is written, it comes back later.
    pub(super) fn loosen_default(&mut self, id: &'a FactId) {
        let name = quote::object(id);
        let drop = match id.kind {
            Kind::Domain => format!("ALTER DOMAIN {name} DROP DEFAULT"),
            Kind::Column => format!(
                "ALTER TABLE {name} ALTER COLUMN {} DROP DEFAULT",
                quote::ident(&id.part)
            ),
            _ => return,
        };
        self.add_loosen(id, drop);
        if self.actions.of(id) != Action::Keep {
            return;
        }
        let default = match self.to.payload(id) {
            Some(crate::catalog::Payload::Column(column)) => column.default.as_ref(),
            Some(crate::catalog::Payload::Domain { default, .. }) => default.as_ref(),
            _ => None,
        };
        if let Some(default) = default {
            let set = if id.kind == Kind::Domain {
                format!("ALTER DOMAIN {name} SET DEFAULT {default}")
            } else {
                set_default(id, default)
            };
            self.step(id, Step::Complete, order::DEFAULT, vec![set]);
            self.graph.edge((id, Step::Loosen), (id, Step::Complete));
            for &need in self.to.needs(id) {
                self.graph.edge((need, Step::Make), (id, Step::Complete));
            }
        }
    }
}

/// A column as children get it.
pub fn without_identity(column: &Column) -> Column {
    Column {
        identity: None,
        ..column.clone()
    }
}

fn set_default(id: &FactId, default: &str) -> String {
    format!(
        "ALTER TABLE {} ALTER COLUMN {} SET DEFAULT {default}",
        quote::object(id),
        quote::ident(&id.part)
    )
}

/// A column as CREATE TABLE and ADD COLUMN define it.
pub fn column_sql(name: &str, column: &Column, with_default: bool) -> String {
    let mut sql = format!("{} {}", quote::ident(name), column.type_);
    if column.compression.is_some() {
        let _ = write!(sql, " COMPRESSION {}", compression_name(column.compression));
    }
    if let Some(collation) = &column.collation {
        let _ = write!(sql, " COLLATE {}", types::collation_name(collation));
    }
    if let Some(generated) = &column.generated {
        let _ = write!(sql, " GENERATED ALWAYS AS ({generated}) STORED");
    }
    if let Some(identity) = &column.identity {
        sql.push(' ');
        sql.push_str(&identity_sql(identity));
    }
    if let Some(default) = &column.default
        && with_default
    {
        let _ = write!(sql, " DEFAULT {default}");
    }
    if column.not_null {
        sql.push_str(" NOT NULL");
    }
    sql
}

/// What a column's definition has no room for: actions of ALTER TABLE.
pub fn column_extras(name: &str, column: &Column) -> Vec<String> {
    let alter = format!("ALTER COLUMN {}", quote::ident(name));
    let mut actions = Vec::new();
    if let Some(storage) = column.storage {
        actions.push(format!("{alter} SET STORAGE {}", storage_name(storage)));
    }
    if let Some(statistics) = column.statistics {
        actions.push(format!("{alter} SET STATISTICS {statistics}"));
    }
    actions.extend(option_changes(&alter, &[], &column.options));
    actions
}

fn identity_sql(identity: &Identity) -> String {
    let when = if identity.always {
        "ALWAYS"
    } else {
        "BY DEFAULT"
    };
    let options = sequences::identity_options(&identity.options);
    if options.is_empty() {
        format!("GENERATED {when} AS IDENTITY")
    } else {
        format!("GENERATED {when} AS IDENTITY ({})", options.join(" "))
    }
}

/// SET and RESET of `name=value` lists, after `prefix`.
pub fn option_changes(prefix: &str, old: &[String], new: &[String]) -> Vec<String> {
    let name = |option: &String| option.split('=').next().unwrap_or_default().to_owned();
    let reset: Vec<_> = old
        .iter()
        .map(name)
        .filter(|gone| !new.iter().any(|n| name(n) == *gone))
        .collect();
    let set: Vec<_> = new.iter().filter(|n| !old.contains(n)).cloned().collect();
    let mut actions = Vec::new();
    if !reset.is_empty() {
        actions.push(format!("{prefix} RESET ({})", reset.join(", ")));
    }
    if !set.is_empty() {
        actions.push(format!("{prefix} SET ({})", quote::options(&set)));
    }
    actions
}

fn storage_name(storage: char) -> &'static str {
    match storage {
        'p' => "PLAIN",
        'e' => "EXTERNAL",
        'm' => "MAIN",
        _ => "EXTENDED",
    }
}

fn compression_name(compression: Option<char>) -> &'static str {
    match compression {
        Some('p') => "pglz",
        Some(_) => "lz4",
        None => "DEFAULT",
    }
}
