//! What the rows may object to: one counting query each, for the database as it is before the script.

use super::{
    Probe, Rename, casts,
    casts::Fit,
    quote,
    rebuild::{Action, Actions},
    renames,
    side::{Side, base_type},
};
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
                    && other.schema == id.schema
                    && (kind != Kind::Column || other.object == id.object)
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

    fn constraint(&mut self, id: &'a FactId, kind: char, definition: &str) {
        if !self.can_ask(id) {
            return;
        }
        let Some((inner, rest)) = quote::parenthesized(definition) else {
            return;
        };
        match kind {
            'c' => {
                if let Some(source) = self.source(id) {
                    let sql = format!("SELECT count(*) FROM {source} WHERE NOT ({inner})");
                    self.add(id, sql, format!("{{rows}} rows violate {id}"));
                }
            }
            'p' | 'u' => {
                let keys: Vec<String> = quote::split_top(inner, ',')
                    .into_iter()
                    .map(str::to_owned)
                    .collect();
                let nulls_equal = definition.contains("NULLS NOT DISTINCT");
                if let Some(source) = self.source(id) {
                    self.duplicates(id, &source, &keys, None, nulls_equal);
                }
            }
            'x' => self.exclusion(id, inner, rest),
            'f' => self.foreign_key(id, inner, rest),
            _ => {}
        }
    }

    fn unique_index(&mut self, id: &'a FactId, definition: &str, on: &str) {
        let Some(table) = self.existing_table(&id.schema, on) else {
            return;
        };
        if !self.can_ask(id) {
            return;
        }
        let Some(at) = definition.find(" USING ") else {
            return;
        };
        let Some((inner, rest)) = quote::parenthesized(&definition[at..]) else {
            return;
        };
        let keys: Option<Vec<String>> = quote::split_top(inner, ',')
            .into_iter()
            .map(key_expression)
            .collect();
        let predicate = quote::find_top(rest, "WHERE ").map(|at| &rest[at + 6..]);
        let nulls_equal = rest.contains("NULLS NOT DISTINCT");
        if let (Some(keys), Some(source)) = (keys, self.source_of(id, table)) {
            self.duplicates(id, &source, &keys, predicate, nulls_equal);
        }
    }

    fn duplicates(
        &mut self,
        id: &FactId,
        source: &str,
        keys: &[String],
        predicate: Option<&str>,
        nulls_equal: bool,
    ) {
        let mut conditions: Vec<String> = predicate.map(|p| format!("({p})")).into_iter().collect();
        if !nulls_equal {
            conditions.extend(keys.iter().map(|key| format!("{key} IS NOT NULL")));
        }
        let filter = if conditions.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", conditions.join(" AND "))
        };
        let numbers: Vec<String> = (1..=keys.len()).map(|n| n.to_string()).collect();
        let sql = format!(
            "SELECT coalesce(sum(same), 0)::bigint FROM (SELECT {}, count(*) AS same FROM {source}{filter} \
             GROUP BY {} HAVING count(*) > 1) duplicates",
            keys.iter()
                .enumerate()
                .map(|(n, key)| format!("{key} AS k{n}"))
                .collect::<Vec<_>>()
                .join(", "),
            numbers.join(", ")
        );
        self.add(id, sql, format!("{{rows}} rows are not unique in {id}"));
    }

    fn exclusion(&mut self, id: &'a FactId, inner: &str, rest: &str) {
        let Some(source) = self.source(id) else {
            return;
        };
        let (mut keys, mut equal) = (Vec::new(), Vec::new());
        for (n, element) in quote::split_top(inner, ',').into_iter().enumerate() {
            let Some(at) = element.rfind(" WITH ") else {
                return;
            };
            let Some(key) = key_expression(&element[..at]) else {
                return;
            };
            keys.push(format!("{key} AS k{n}"));
            equal.push(format!("a.k{n} {} b.k{n}", &element[at + 6..]));
        }
        let filter = match rest.strip_prefix("WHERE ").and_then(quote::parenthesized) {
            Some((predicate, _)) => format!(" WHERE {predicate}"),
            None => String::new(),
        };
        let sql = format!(
            "WITH kept AS (SELECT row_number() OVER () AS n, {} FROM {source}{filter}) SELECT count(*) FROM kept a \
             WHERE EXISTS (SELECT FROM kept b WHERE a.n <> b.n AND {})",
            keys.join(", "),
            equal.join(" AND ")
        );
        self.add(id, sql, format!("{{rows}} rows exclude each other in {id}"));
    }

    fn foreign_key(&mut self, id: &'a FactId, inner: &str, rest: &str) {
        let Some(source) = self.source(id) else {
            return;
        };
        let Some(reference) = rest.strip_prefix("REFERENCES ") else {
            return;
        };
        let Some((there, after)) = quote::parenthesized(reference) else {
            return;
        };
        let own = quote::split_top(inner, ',');
        let theirs = quote::split_top(there, ',');
        let all_set = own
            .iter()
            .map(|c| format!("o.{c} IS NOT NULL"))
            .collect::<Vec<_>>()
            .join(" AND ");
        let referenced = self
            .to
            .needs(id)
            .iter()
            .copied()
            .find(|need| {
                need.kind == Kind::Table
                    && reference.starts_with(&format!("{}(", quote::object(need)))
            })
            .or_else(|| {
                self.to
                    .container_of(id)
                    .filter(|t| reference.starts_with(&format!("{}(", quote::object(t))))
            })
            .or_else(|| self.referenced_table(reference));
        let missing = match referenced {
            Some(table) if self.existing_table(&table.schema, &table.object).is_some() => {
                let Some(target) = self.source_of(id, table) else {
                    return;
                };
                let same: Vec<_> = own
                    .iter()
                    .zip(&theirs)
                    .map(|(a, b)| format!("o.{a} = r.{b}"))
                    .collect();
                format!(
                    "NOT EXISTS (SELECT FROM (SELECT * FROM {target}) r WHERE {})",
                    same.join(" AND ")
                )
            }
            // A new table has no rows to refer to.
            Some(_) => "true".to_owned(),
            None => return,
        };
        let mut condition = format!("{all_set} AND {missing}");
        if after.starts_with("MATCH FULL") && own.len() > 1 {
            let some_set = own
                .iter()
                .map(|c| format!("o.{c} IS NOT NULL"))
                .collect::<Vec<_>>()
                .join(" OR ");
            condition = format!("{condition} OR ({some_set}) AND NOT ({all_set})");
        }
        let sql = format!("SELECT count(*) FROM (SELECT * FROM {source}) o WHERE {condition}");
        self.add(
            id,
            sql,
            format!("{{rows}} rows refer to nothing through {id}"),
        );
    }

    fn referenced_table(&self, reference: &str) -> Option<&'a FactId> {
        let (first, rest) = quote::leading_ident(reference)?;
        let (second, _) = quote::leading_ident(rest.strip_prefix('.')?)?;
        self.to.container(&first, &second)
    }

    /// Whether everything besides tables and columns that the expression names is there before the script.
    fn can_ask(&self, id: &FactId) -> bool {
        self.to.needs(id).iter().all(|need| match need.kind {
            Kind::Table | Kind::Column | Kind::Schema | Kind::Constraint | Kind::Index => true,
            Kind::Enum | Kind::Composite | Kind::Domain | Kind::Range => {
                self.actions.of(need) == Action::Keep
            }
            _ => self.from.find(need).is_some(),
        })
    }

    fn source(&self, constraint: &'a FactId) -> Option<String> {
        let table = self.existing_table(&constraint.schema, &constraint.object)?;
        self.source_of(constraint, table)
    }

    /// What to select from to see the table's rows as the new definition sees them: the table itself, or, where columns
    /// are renamed or new, its rows with the new names and the new columns' defaults.
    fn source_of(&self, definition: &FactId, table: &FactId) -> Option<String> {
        let name = self.old_name(table);
        let mut columns = Vec::new();
        let mut plain = true;
        for column in self.to.effective_columns(&table.schema, &table.object) {
            let id = FactId::part(Kind::Column, &table.schema, &table.object, &column.id.part);
            let new = quote::ident(&column.id.part).into_owned();
            if let Some(old) =
                self.from
                    .effective_column(&table.schema, &table.object, &column.id.part)
            {
                let needed = self
                    .to
                    .needs(definition)
                    .iter()
                    .any(|n| n.kind == Kind::Column && n.part == column.id.part);
                if needed
                    && matches!(
                        casts::fit(
                            self.from,
                            self.to,
                            "x",
                            &old.column.type_,
                            &column.column.type_
                        ),
                        Fit::Unknown
                    )
                {
                    return None;
                }
                let old_name = self.old_column(&id);
                plain &= old_name == new;
                columns.push(format!("{old_name} AS {new}"));
                continue;
            }
            let needed = self.to.needs(definition).contains(&column.id);
            if !needed {
                continue;
            }
            plain = false;
            let askable = column.column.generated.is_none()
                && column.column.identity.is_none()
                && self.to.needs(column.id).iter().all(|n| {
                    matches!(n.kind, Kind::Table | Kind::Schema)
                        || self.actions.of(n) == Action::Keep
                })
                && !column
                    .column
                    .default
                    .as_ref()
                    .is_some_and(|d| d.contains("nextval("));
            if !askable {
                return None;
            }
            let value = column.column.default.as_deref().unwrap_or("NULL");
            columns.push(format!("({value})::{} AS {new}", column.column.type_));
        }
        if plain {
            return Some(name);
        }
        Some(format!(
            "(SELECT {} FROM {name}) AS {}",
            columns.join(", "),
            quote::ident(&table.object)
        ))
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
        self.probes.push(Probe {
            id: id.clone(),
            sql,
            why,
        });
    }
}

/// A domain's check, asked about a column.
fn with_value(check: &str, column: &str) -> String {
    quote::replace_idents(check, |name, _| {
        (name == "VALUE").then(|| column.to_owned())
    })
}

/// The expression of an index element, without collation, operator class and order.
pub fn key_expression(element: &str) -> Option<String> {
    let element = element.trim();
    if element.starts_with('(') {
        let (inner, _) = quote::parenthesized(element)?;
        return Some(format!("({inner})"));
    }
    let mut rest = element;
    loop {
        let (_, after) = quote::leading_ident(rest)?;
        let Some(next) = after.strip_prefix('.') else {
            rest = after;
            break;
        };
        rest = next;
    }
    if rest.starts_with('(') {
        let (_, after) = quote::parenthesized(rest)?;
        let length = element.len() - after.len();
        return Some(element[..length].trim_end().to_owned());
    }
    Some(element[..element.len() - rest.len()].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_indexes_lose_what_only_an_index_understands() {
        let key = |text: &str| key_expression(text).unwrap();
        assert_eq!(key("lower(a) text_pattern_ops"), "lower(a)");
        assert_eq!(key("b DESC NULLS LAST"), "b");
        assert_eq!(key("public.slug(a) COLLATE \"C\""), "public.slug(a)");
        assert_eq!(key("((c ->> 'k'::text)) DESC"), "((c ->> 'k'::text))");
        assert_eq!(key("\"A b\" int4_ops"), "\"A b\"");
    }

    #[test]
    fn checks_of_domains_are_asked_about_columns() {
        assert_eq!(
            with_value("(VALUE > 0) AND (VALUE <> 'VALUE'::text)", "\"P\""),
            "(\"P\" > 0) AND (\"P\" <> 'VALUE'::text)"
        );
    }
}
