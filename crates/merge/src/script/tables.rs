//! Tables: made with all that fits into one statement, altered, given to parents and taken from them.

use std::fmt::Write as _;

use super::{columns, graph::Step, kinds::order, quote, rebuild::Action, writer::Writer};
use crate::catalog::{FactId, Kind, Payload, Table};

impl<'a> Writer<'a, '_> {
    pub(super) fn make_table(&mut self, id: &'a FactId, action: Action) {
        let Some(Payload::Table(new)) = self.to.payload(id) else {
            return;
        };
        if action.fresh() {
            self.create_table(id, new);
        } else if let Some(Payload::Table(old)) = self.from.payload(id) {
            self.alter_table(id, old, new);
        }
        self.replica_identity(id, new, action);
    }

    fn create_table(&mut self, id: &'a FactId, table: &Table) {
        let name = quote::object(id);
        let partition_of = table
            .bound
            .as_ref()
            .and_then(|bound| Some((table.parents.first()?, bound)));
        let mut lines = Vec::new();
        let mut after = Vec::new();
        let mut extras = Vec::new();
        for (column_id, column) in self.to.own_columns(&id.schema, &id.object) {
            if self.cuts.separate.contains(column_id) {
                continue;
            }
            if let Some(parent) = self.inherited_column(column_id) {
                after.extend(self.alter_column(
                    column_id,
                    &columns::without_identity(parent),
                    column,
                ));
                continue;
            }
            let with_default = !self.cuts.late_defaults.contains(column_id);
            lines.push(columns::column_sql(&column_id.part, column, with_default));
            extras.extend(columns::column_extras(&column_id.part, column));
        }
        for &part in self.to.parts(&id.schema, &id.object) {
            if let Some(Payload::Constraint {
                kind,
                definition,
                validated: true,
            }) = self.to.payload(part)
                && *kind != 'f'
                && !self.cuts.separate.contains(part)
                && self.columns_are_inline(part)
            {
                lines.push(format!(
                    "CONSTRAINT {} {definition}",
                    quote::ident(&part.part)
                ));
                self.graph.alias((part, Step::Make), (id, Step::Make));
            }
        }

        let unlogged = if table.unlogged { "UNLOGGED " } else { "" };
        let mut sql = format!("CREATE {unlogged}TABLE {name}");
        let body = if lines.is_empty() {
            String::new()
        } else {
            format!("\n    {}\n", lines.join(",\n    "))
        };
        if let Some(((schema, parent), bound)) = partition_of {
            let _ = write!(sql, " PARTITION OF {}", quote::qualified(schema, parent));
            if !body.is_empty() {
                let _ = write!(sql, " ({body})");
            }
            let _ = write!(sql, " {bound}");
        } else {
            let _ = write!(sql, " ({body})");
            if !table.parents.is_empty() {
                let parents: Vec<_> = table
                    .parents
                    .iter()
                    .map(|(s, o)| quote::qualified(s, o))
                    .collect();
                let _ = write!(sql, " INHERITS ({})", parents.join(", "));
            }
        }
        if let Some(by) = &table.partition_by {
            let _ = write!(sql, " PARTITION BY {by}");
        }
        if let Some(method) = &table.access_method {
            let _ = write!(sql, " USING {}", quote::ident(method));
        }
        if !table.options.is_empty() {
            let _ = write!(sql, " WITH ({})", quote::options(&table.options));
        }
        let mut statements = vec![sql];
        if !extras.is_empty() {
            statements.push(format!("ALTER TABLE {name} {}", extras.join(", ")));
        }
        statements.extend(after);
        self.step(id, Step::Make, order::TABLE, statements);
    }

    /// Whether a constraint finds all its columns in its table's CREATE.
    fn columns_are_inline(&self, constraint: &FactId) -> bool {
        !self
            .to
            .needs(constraint)
            .iter()
            .any(|need| need.kind == Kind::Column && self.cuts.separate.contains(need))
    }

    fn alter_table(&mut self, id: &'a FactId, old: &Table, new: &Table) {
        let name = quote::object(id);
        let mut sql = Vec::new();
        if old.access_method != new.access_method {
            let method = new.access_method.as_deref().unwrap_or("heap");
            sql.push(format!(
                "ALTER TABLE {name} SET ACCESS METHOD {}",
                quote::ident(method)
            ));
        }
        if old.unlogged != new.unlogged {
            let logged = if new.unlogged { "UNLOGGED" } else { "LOGGED" };
            sql.push(format!("ALTER TABLE {name} SET {logged}"));
        }
        let options = columns::option_changes("", &old.options, &new.options);
        if !options.is_empty() {
            let options: Vec<_> = options.iter().map(|o| o.trim_start()).collect();
            let options = format!("ALTER TABLE {name} {}", options.join(", "));
            // A table has TOAST options once it has a column that needs TOAST.
            self.step(id, Step::Late, order::DEFAULT, vec![options]);
            self.after_columns(id, Step::Late);
        }
        self.step(id, Step::Make, order::TABLE, sql);
    }

    fn after_columns(&mut self, id: &'a FactId, step: Step) {
        for &part in self.to.parts(&id.schema, &id.object) {
            if part.kind == Kind::Column {
                self.graph.edge((part, Step::Make), (id, step));
            }
        }
    }

    fn replica_identity(&mut self, id: &'a FactId, new: &Table, action: Action) {
        let old = match self.from.payload(id) {
            Some(Payload::Table(old)) if action == Action::Alter => Some(old),
            _ => None,
        };
        let unset = |c: char| c == 'd' || c == '\0';
        let same = match old {
            Some(old) => {
                old.replica_identity == new.replica_identity
                    && old.replica_index == new.replica_index
                    && !self.replica_index_drops(id, old)
            }
            None => unset(new.replica_identity),
        };
        if same {
            return;
        }
        self.write_replica_identity(id, new);
    }

    fn replica_index_drops(&self, id: &FactId, table: &Table) -> bool {
        let Some(index) = &table.replica_index else {
            return false;
        };
        self.actions
            .of(&FactId::object(Kind::Index, &id.schema, index))
            .drops()
            || self
                .actions
                .of(&FactId::part(
                    Kind::Constraint,
                    &id.schema,
                    &id.object,
                    index,
                ))
                .drops()
    }

    fn write_replica_identity(&mut self, id: &'a FactId, table: &Table) {
        let what = match (table.replica_identity, &table.replica_index) {
            ('n', _) => "NOTHING".to_owned(),
            ('f', _) => "FULL".to_owned(),
            ('i', Some(index)) => {
                let named = [
                    FactId::object(Kind::Index, &id.schema, index),
                    FactId::part(Kind::Constraint, &id.schema, &id.object, index),
                ];
                for index in named {
                    if let Some(index) = self.to.find(&index) {
                        self.graph.edge((index, Step::Make), (id, Step::Late));
                    }
                }
                format!("USING INDEX {}", quote::ident(index))
            }
            _ => "DEFAULT".to_owned(),
        };
        self.after_columns(id, Step::Late);
        let sql = format!("ALTER TABLE {} REPLICA IDENTITY {what}", quote::object(id));
        self.step(id, Step::Late, order::FOREIGN_KEY, vec![sql]);
    }

    /// A table whose replica identity is an index that is made again must be told so again.
    pub(super) fn renew_replica_identity(&mut self, index: &'a FactId, table: &FactId) {
        let index_name = if index.part.is_empty() {
            &index.object
        } else {
            &index.part
        };
        if let Some(id) = self.to.container(&table.schema, &table.object)
            && let Some(Payload::Table(new)) = self.to.payload(id)
            && new.replica_index.as_ref() == Some(index_name)
            && self.from.payload(id) == self.to.payload(id)
            && !self.actions.of(id).fresh()
        {
            self.write_replica_identity(id, new);
        }
    }
}
