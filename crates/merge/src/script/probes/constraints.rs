//! Rows that a new constraint or unique index would refuse.

use super::Prober;
use crate::{
    catalog::{FactId, Kind},
    script::{
        casts::{self, Fit},
        quote,
        rebuild::Action,
    },
};

impl<'a> Prober<'a, '_> {
    pub(super) fn constraint(&mut self, id: &'a FactId, kind: char, definition: &str) {
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

    pub(super) fn unique_index(&mut self, id: &'a FactId, definition: &str, on: &str) {
        let Some(table) = self.existing_table(&id.schema, on) else {
            return;
        };
        if !self.can_ask(id) {
            return;
        }
        let Some(at) = quote::find_top(definition, " USING ") else {
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
    pub(super) fn can_ask(&self, id: &FactId) -> bool {
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
}
