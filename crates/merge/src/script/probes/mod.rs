//! What the rows may object to: one counting query each, for the database as it is before the script.

mod constraints;

pub use constraints::key_expression;

use super::{
    Lock, Probe, Rename, casts,
    casts::Fit,
    quote,
    rebuild::{Action, Actions},
    renames,
    side::{Side, base_type},
};
use std::collections::BTreeSet;

use crate::catalog::{Column, FactId, Kind, Payload};

struct Prober<'a, 's> {
    from: &'s Side<'a>,
    to: &'s Side<'a>,
    actions: &'s Actions<'a>,
    renames: &'s [Rename],
    probes: Vec<Probe>,
}

pub fn probes<'a>(
    from: &Side<'a>,
    to: &Side<'a>,
    actions: &Actions<'a>,
    renames: &[Rename],
) -> Vec<Probe> {
    let mut prober = Prober {
        from,
        to,
        actions,
        renames,
        probes: Vec::new(),
    };
    let mut ids: Vec<_> = actions.iter().collect();
    ids.sort_unstable_by_key(|(id, _)| *id);
    for (id, action) in ids {
        if from.payload(id) == to.payload(id) && id.kind != Kind::Table {
            continue;
        }
        match action {
            Action::Keep => {}
            Action::Drop => prober.drop(id),
            _ => prober.make(id, action),
        }
    }
    prober.probes
}

impl<'a> Prober<'a, '_> {
    fn make(&mut self, id: &'a FactId, action: Action) {
        match self.to.payload(id) {
            Some(Payload::Column(new)) => self.column(id, action, new),
            Some(Payload::Constraint {
                kind,
                definition,
                validated: true,
            }) => match self.to.container(&id.schema, &id.object) {
                Some(domain) if domain.kind == Kind::Domain => {
                    self.domain_check(id, domain, definition);
                }
                _ => self.constraint(id, *kind, definition),
            },
            Some(Payload::Index { definition, on, .. })
                if definition.starts_with("CREATE UNIQUE ") && action.fresh() =>
            {
                self.unique_index(id, definition, on);
            }
            Some(Payload::Domain { not_null: true, .. })
                if matches!(
                    self.from.payload(id),
                    Some(Payload::Domain {
                        not_null: false,
                        ..
                    })
                ) =>
            {
                self.over_domain(id, "hold no value", |column| format!("{column} IS NULL"));
            }
            Some(Payload::Sequence(sequence)) if action == Action::Alter => {
                let (low, high) = (sequence.options.minimum, sequence.options.maximum);
                let sql = format!(
                    "SELECT count(*) FROM {} WHERE last_value NOT BETWEEN {low} AND {high}",
                    quote::object(&self.old(id))
                );
                self.add(
                    id,
                    sql,
                    format!("the value that {id} has reached is not between {low} and {high}"),
                );
            }
            Some(Payload::Table(_)) if action == Action::Rebuild => {
                let sql = format!("SELECT count(*) FROM {}", self.old_name(id));
                self.add(
                    id,
                    sql,
                    format!("{id} would have to be dropped and made again, and has {{rows}} rows"),
                );
            }
            _ => {}
        }
    }

    /// Without a rename that says otherwise, what is dropped while something is added beside it may be the same thing
    /// under another name: its rows are asked for first.
    fn drop(&mut self, id: &'a FactId) {
        let added_beside = |kind: Kind| {
            self.actions.iter().any(|(other, action)| {
                action == Action::Create
                    && other.kind == kind
                    // A table may have been moved to another schema.
                    && (kind != Kind::Column
                        || (other.schema == id.schema && other.object == id.object))
                    && self.to.column(other).is_none_or(|c| c.generated.is_none())
            })
        };
        match self.from.payload(id) {
            Some(Payload::Column(column)) if column.generated.is_none() => {
                let stays = self
                    .to
                    .container(&id.schema, &id.object)
                    .is_some_and(|t| t.kind == Kind::Table);
                if stays && added_beside(Kind::Column) {
                    let sql = format!(
                        "SELECT count({}) FROM {}",
                        self.old_column(id),
                        self.old_name(id)
                    );
                    self.add(id, sql, format!("{{rows}} rows have a value in {id}, which is dropped while another column is added"));
                }
            }
            Some(Payload::Table(_)) => {
                let replaced = self.to.container(&id.schema, &id.object).is_some();
                if replaced || added_beside(Kind::Table) {
                    let sql = format!("SELECT count(*) FROM {}", self.old_name(id));
                    self.add(
                        id,
                        sql,
                        format!(
                            "{id} has {{rows}} rows and is dropped while something else is added"
                        ),
                    );
                }
            }
            _ => {}
        }
    }

    fn column(&mut self, id: &'a FactId, action: Action, new: &Column) {
        let Some(table) = self.existing_table(&id.schema, &id.object) else {
            return;
        };
        let name = self.old_name(table);
        if action == Action::Create {
            let (domain_default, domain_not_null) = self.domain_demands(&new.type_);
            let demands = new.not_null || domain_not_null;
            let has_value = new.default.is_some()
                || new.identity.is_some()
                || new.generated.is_some()
                || domain_default;
            if demands && !has_value {
                let sql = format!("SELECT count(*) FROM {name}");
                self.add(
                    id,
                    sql,
                    format!("{{rows}} rows would have no value in the new column {id}"),
                );
            }
            return;
        }
        let Some(old) = self.from.effective_column(&id.schema, &id.object, &id.part) else {
            return;
        };
        let column = self.old_column(id);
        if action == Action::Rebuild {
            if old.column.generated.is_none() {
                let sql = format!("SELECT count({column}) FROM {name}");
                self.add(
                    id,
                    sql,
                    format!("{{rows}} rows have a value in {id}, which becomes a generated column"),
                );
            }
            return;
        }
        if new.not_null && !old.column.not_null {
            let sql = format!("SELECT count(*) FROM {name} WHERE {column} IS NULL");
            self.add(id, sql, format!("{{rows}} rows have no value in {id}"));
        }
        if new.type_ != old.column.type_ {
            match casts::fit(self.from, self.to, &column, &old.column.type_, &new.type_) {
                Fit::Always => {}
                Fit::Unless(condition) => {
                    let sql = format!("SELECT count(*) FROM {name} WHERE {condition}");
                    self.add(
                        id,
                        sql,
                        format!(
                            "{{rows}} rows have a value in {id} that {} cannot hold as it is",
                            new.type_
                        ),
                    );
                }
                Fit::Unknown => {
                    let sql = format!("SELECT count(*) FROM {name}");
                    self.add(
                        id,
                        sql,
                        format!(
                            "{id} goes from {} to {}, which no assignment cast does, and {{rows}} rows are there",
                            old.column.type_, new.type_
                        ),
                    );
                }
            }
            self.retyped_to_domain(id, &name, &column, &new.type_);
        }
    }

    /// A column that becomes one of a domain must satisfy its checks.
    fn retyped_to_domain(&mut self, id: &FactId, table: &str, column: &str, type_: &str) {
        let Some(domain) = self.domain(type_) else {
            return;
        };
        if type_.ends_with("[]") {
            return;
        }
        let mut conditions = Vec::new();
        if self.domain_demands(type_).1 {
            conditions.push(format!("{column} IS NULL"));
        }
        for &part in self.to.parts(&domain.schema, &domain.object) {
            if let Some(Payload::Constraint { definition, .. }) = self.to.payload(part)
                && self.can_ask(part)
                && let Some((check, _)) = quote::parenthesized(definition)
            {
                conditions.push(format!("NOT ({})", with_value(check, column)));
            }
        }
        if !conditions.is_empty() {
            let sql = format!(
                "SELECT count(*) FROM {table} WHERE {}",
                conditions.join(" OR ")
            );
            self.add(
                id,
                sql,
                format!("{{rows}} rows have a value in {id} that {type_} does not allow"),
            );
        }
    }

    fn domain(&self, type_: &str) -> Option<&'a FactId> {
        self.to
            .facts
            .iter()
            .find(|(id, _)| {
                id.kind == Kind::Domain && id.of.is_none() && quote::object(id) == base_type(type_)
            })
            .map(|(&id, _)| id)
    }

    /// Whether the type, if it is a domain, gives a default and demands a value.
    fn domain_demands(&self, type_: &str) -> (bool, bool) {
        if type_.ends_with("[]") {
            return (false, false);
        }
        match self.domain(type_).and_then(|id| self.to.payload(id)) {
            Some(Payload::Domain {
                default, not_null, ..
            }) => (default.is_some(), *not_null),
            _ => (false, false),
        }
    }

    fn domain_check(&mut self, id: &'a FactId, domain: &'a FactId, definition: &str) {
        if self.actions.of(domain).fresh() || !self.can_ask(id) {
            return;
        }
        if let Some((check, _)) = quote::parenthesized(definition) {
            let check = check.to_owned();
            let id_domain = FactId {
                kind: Kind::Domain,
                part: String::new(),
                ..id.clone()
            };
            self.over_domain_as(id, &id_domain, "violate it", |column| {
                format!("NOT ({})", with_value(&check, column))
            });
        }
    }

    fn over_domain(&mut self, domain: &'a FactId, what: &str, condition: impl Fn(&str) -> String) {
        self.over_domain_as(domain, domain, what, condition);
    }

    fn over_domain_as(
        &mut self,
        id: &FactId,
        domain: &FactId,
        what: &str,
        condition: impl Fn(&str) -> String,
    ) {
        let mut counts = Vec::new();
        for (column_id, column) in self.from.columns_of_type(&domain.schema, &domain.object) {
            let retyped = self
                .to
                .column(column_id)
                .is_none_or(|c| base_type(&c.type_) != base_type(&column.type_));
            if column.type_.ends_with("[]") || retyped {
                continue;
            }
            let name = self.old_name(column_id);
            let condition = condition(&self.old_column(column_id));
            counts.push(format!("(SELECT count(*) FROM {name} WHERE {condition})"));
        }
        if !counts.is_empty() {
            let sql = format!("SELECT {}", counts.join(" + "));
            self.add(
                id,
                sql,
                format!("{{rows}} values of {} {what}", quote::object(domain)),
            );
        }
    }

    /// The table, if it and its rows are there before and after the script.
    fn existing_table(&self, schema: &str, object: &str) -> Option<&'a FactId> {
        let table = self.to.container(schema, object)?;
        let there = table.kind == Kind::Table
            && matches!(self.actions.of(table), Action::Keep | Action::Alter)
            && self.from.find(table).is_some();
        there.then_some(table)
    }

    fn old(&self, id: &FactId) -> FactId {
        renames::old_id(id, self.renames)
    }

    /// The table of the fact under the name that it has before the script.
    fn old_name(&self, id: &FactId) -> String {
        quote::object(&self.old(&FactId::object(Kind::Table, &id.schema, &id.object)))
    }

    fn old_column(&self, id: &FactId) -> String {
        quote::ident(&self.old(id).part).into_owned()
    }

    fn add(&mut self, id: &FactId, sql: String, why: String) {
        let lock = match self.to.payload(id) {
            Some(Payload::Index { .. } | Payload::Domain { .. }) => Lock::Share,
            Some(Payload::Constraint { kind: 'f', .. }) => Lock::ShareRowExclusive,
            Some(Payload::Constraint { .. })
                if self
                    .to
                    .container(&id.schema, &id.object)
                    .is_some_and(|holder| holder.kind == Kind::Domain) =>
            {
                Lock::Share
            }
            _ => Lock::AccessExclusive,
        };
        self.probes.push(Probe {
            id: id.clone(),
            relations: relations(&sql),
            sql,
            why,
            lock,
        });
    }
}

/// What the query reads: the qualified names behind each FROM.
fn relations(sql: &str) -> BTreeSet<String> {
    const FROM: &str = "FROM ";
    sql.match_indices(FROM)
        .filter_map(|(at, _)| {
            let (schema, rest) = quote::leading_ident(&sql[at + FROM.len()..])?;
            let (name, _) = quote::leading_ident(rest.strip_prefix('.')?)?;
            Some(quote::qualified(&schema, &name))
        })
        .collect()
}

/// A domain's check, asked about a column.
fn with_value(check: &str, column: &str) -> String {
    quote::replace_idents(check, |name, _| {
        (name == "VALUE").then(|| column.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_query_reads() {
        let sql = "SELECT count(*) FROM (SELECT * FROM public.a) o WHERE NOT EXISTS (SELECT FROM \"P\".\"b c\" r)";
        let found: Vec<String> = relations(sql).into_iter().collect();
        assert_eq!(found, ["\"P\".\"b c\"", "public.a"]);
    }

    #[test]
    fn checks_of_domains_are_asked_about_columns() {
        assert_eq!(
            with_value("(VALUE > 0) AND (VALUE <> 'VALUE'::text)", "\"P\""),
            "(\"P\" > 0) AND (\"P\" <> 'VALUE'::text)"
        );
    }
}
