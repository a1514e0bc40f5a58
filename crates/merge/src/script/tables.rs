//! Tables: made with all that fits into one statement, altered, given to parents and taken from them.

use super::{
    columns,
    graph::{Rank, Step},
    quote,
    rebuild::Action,
    writer::{Writer, order},
};
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
            sql.push_str(&format!(
                " PARTITION OF {}",
                quote::qualified(schema, parent)
            ));
            if !body.is_empty() {
                sql.push_str(&format!(" ({body})"));
            }
            sql.push_str(&format!(" {bound}"));
        } else {
            sql.push_str(&format!(" ({body})"));
            if !table.parents.is_empty() {
                let parents: Vec<_> = table
                    .parents
                    .iter()
                    .map(|(s, o)| quote::qualified(s, o))
                    .collect();
                sql.push_str(&format!(" INHERITS ({})", parents.join(", ")));
            }
        }
        if let Some(by) = &table.partition_by {
            sql.push_str(&format!(" PARTITION BY {by}"));
        }
        if let Some(method) = &table.access_method {
            sql.push_str(&format!(" USING {}", quote::ident(method)));
        }
        if !table.options.is_empty() {
            sql.push_str(&format!(" WITH ({})", quote::options(&table.options)));
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
        if (&old.parents, &old.bound) != (&new.parents, &new.bound) {
            self.move_between_parents(id, old, new);
        }
    }

    /// Tables that stay while a parent of theirs is dropped and made again.
    pub(super) fn reattach(&mut self) {
        let mut tables: Vec<_> = self.actions.reattached.iter().copied().collect();
        tables.sort_unstable();
        for id in tables {
            if let (Some(Payload::Table(old)), Some(Payload::Table(new))) =
                (self.from.payload(id), self.to.payload(id))
                && self.actions.of(id) == Action::Keep
            {
                self.move_between_parents(id, old, new);
            }
        }
    }

    fn move_between_parents(&mut self, id: &'a FactId, old: &Table, new: &Table) {
        let name = quote::object(id);
        let stays = |parent: &(String, String)| {
            old.bound == new.bound
                && old.parents.contains(parent)
                && new.parents.contains(parent)
                && self
                    .from
                    .container(&parent.0, &parent.1)
                    .is_some_and(|p| !self.actions.of(p).drops())
        };
        let mut detach = Vec::new();
        for parent in old.parents.iter().filter(|p| !stays(p)) {
            let parent_name = quote::qualified(&parent.0, &parent.1);
            detach.push(if old.bound.is_some() {
                format!("ALTER TABLE {parent_name} DETACH PARTITION {name}")
            } else {
                format!("ALTER TABLE {name} NO INHERIT {parent_name}")
            });
            // The parent's columns change without this table.
            if let Some(parent) = self.from.container(&parent.0, &parent.1) {
                self.graph.edge((id, Step::Detach), (parent, Step::Drop));
                for &part in self.from.parts(&parent.schema, &parent.object) {
                    self.graph.edge((id, Step::Detach), (part, Step::Drop));
                    self.graph.edge((id, Step::Detach), (part, Step::Make));
                }
            }
        }
        let mut attach = Vec::new();
        for parent in new.parents.iter().filter(|p| !stays(p)) {
            let parent_name = quote::qualified(&parent.0, &parent.1);
            attach.push(match &new.bound {
                Some(bound) => format!("ALTER TABLE {parent_name} ATTACH PARTITION {name} {bound}"),
                None => format!("ALTER TABLE {name} INHERIT {parent_name}"),
            });
            if let Some(parent) = self.to.container(&parent.0, &parent.1) {
                self.graph.edge((parent, Step::Make), (id, Step::Attach));
                // Columns that only the parent has to get come to this table through it.
                for &part in self.to.parts(&parent.schema, &parent.object) {
                    let there = self
                        .from
                        .effective_column(&id.schema, &id.object, &part.part)
                        .is_some();
                    if part.kind == Kind::Column
                        && self.actions.of(part) == Action::Create
                        && !there
                    {
                        self.graph.edge((id, Step::Attach), (part, Step::Make));
                    } else if matches!(part.kind, Kind::Column) {
                        self.graph.edge((part, Step::Make), (id, Step::Attach));
                    }
                }
            }
        }
        if !detach.is_empty() {
            let statements = detach
                .into_iter()
                .map(|sql| self.statement(id, sql))
                .collect();
            self.graph
                .add((id, Step::Detach), Rank { phase: 0, order: 0 }, statements);
        }
        if !attach.is_empty() {
            self.step(id, Step::Attach, order::ATTACH, attach);
            self.graph.edge((id, Step::Detach), (id, Step::Attach));
            self.graph.edge((id, Step::Make), (id, Step::Attach));
            self.after_columns(id, Step::Attach);
        }
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
