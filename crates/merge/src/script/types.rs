//! Collations, enums, domains, composite and range types, sequences.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::{
    Rename, Script, Statement,
    graph::Step,
    privileges, quote,
    rebuild::Action,
    renames,
    side::{Side, base_type},
    writer::{Writer, order},
};
use crate::catalog::{Attribute, FactId, Kind, Label, Payload, Sequence, SequenceOptions};

impl<'a> Writer<'a, '_> {
    pub(super) fn make_type(&mut self, id: &'a FactId, action: Action) {
        let Some(payload) = self.to.payload(id) else {
            return;
        };
        let old = self.from.payload(id).filter(|_| action == Action::Alter);
        let name = quote::object(id);
        let sql = match (payload, old) {
            (
                Payload::Collation {
                    provider,
                    deterministic,
                    options,
                },
                _,
            ) => {
                vec![create_collation(&name, *provider, *deterministic, options)]
            }
            (Payload::Enum { labels }, None) => {
                let labels: Vec<_> = labels.iter().map(|l| quote::literal(&l.name)).collect();
                vec![format!(
                    "CREATE TYPE {name} AS ENUM ({})",
                    labels.join(", ")
                )]
            }
            (Payload::Enum { labels }, Some(Payload::Enum { labels: old })) => {
                add_values(&name, old, labels)
            }
            (Payload::Domain { .. }, None) => {
                self.create_domain(id, &name, payload);
                return;
            }
            (Payload::Domain { .. }, Some(old)) => {
                self.alter_domain(id, &name, old, payload);
                return;
            }
            (Payload::Composite { attributes }, None) => {
                let attributes: Vec<_> = attributes.iter().map(attribute_sql).collect();
                vec![format!("CREATE TYPE {name} AS ({})", attributes.join(", "))]
            }
            (Payload::Composite { attributes }, Some(Payload::Composite { attributes: old })) => {
                alter_composite(&name, old, attributes)
            }
            (Payload::Range { options }, _) => {
                vec![format!("CREATE TYPE {name} AS RANGE ({options})")]
            }
            (Payload::Sequence(new), old) => {
                let old = match old {
                    Some(Payload::Sequence(old)) => Some(old),
                    _ => None,
                };
                self.make_sequence(id, &name, old, new);
                return;
            }
            _ => return,
        };
        self.step(id, Step::Make, order::TYPE, sql);
    }

    fn create_domain(&mut self, id: &'a FactId, name: &str, domain: &Payload) {
        let Payload::Domain {
            base,
            collation,
            default,
            not_null,
        } = domain
        else {
            return;
        };
        let mut sql = format!("CREATE DOMAIN {name} AS {base}");
        if let Some(collation) = collation {
            let _ = write!(sql, " COLLATE {}", collation_name(collation));
        }
        let late = self.cuts.late_defaults.contains(id);
        if let Some(default) = default
            && !late
        {
            let _ = write!(sql, " DEFAULT {default}");
        }
        if *not_null {
            sql.push_str(" NOT NULL");
        }
        for &part in self.to.parts(&id.schema, &id.object) {
            if let Some(Payload::Constraint {
                definition,
                validated: true,
                ..
            }) = self.to.payload(part)
                && !self.cuts.separate.contains(part)
            {
                let _ = write!(sql, " CONSTRAINT {} {definition}", quote::ident(&part.part));
                self.graph.alias((part, Step::Make), (id, Step::Make));
            }
        }
        self.step(id, Step::Make, order::TYPE, vec![sql]);
        if late && let Some(default) = default {
            let sql = format!("ALTER DOMAIN {name} SET DEFAULT {default}");
            self.step(id, Step::Complete, order::DEFAULT, vec![sql]);
        }
    }

    fn alter_domain(&mut self, id: &'a FactId, name: &str, old: &Payload, new: &Payload) {
        let (
            Payload::Domain {
                default: old_default,
                not_null: old_not_null,
                ..
            },
            Payload::Domain {
                default, not_null, ..
            },
        ) = (old, new)
        else {
            return;
        };
        let mut sql = Vec::new();
        if old_default != default || self.actions.loosened.contains(id) {
            match default {
                Some(default) => sql.push(format!("ALTER DOMAIN {name} SET DEFAULT {default}")),
                None => sql.push(format!("ALTER DOMAIN {name} DROP DEFAULT")),
            }
        }
        match (old_not_null, not_null) {
            (false, true) => sql.push(format!("ALTER DOMAIN {name} SET NOT NULL")),
            (true, false) => sql.push(format!("ALTER DOMAIN {name} DROP NOT NULL")),
            _ => {}
        }
        self.step(id, Step::Make, order::TYPE, sql);
    }

    fn make_sequence(
        &mut self,
        id: &'a FactId,
        name: &str,
        old: Option<&Sequence>,
        new: &Sequence,
    ) {
        let mut sql = Vec::new();
        match old {
            None => {
                let unlogged = if new.unlogged { "UNLOGGED " } else { "" };
                let options = sequence_options(&new.options);
                sql.push(format!("CREATE {unlogged}SEQUENCE {name}{options}"));
            }
            Some(old) => {
                if old.options != new.options {
                    let options =
                        all_sequence_options(&new.options, old.options.type_ != new.options.type_);
                    sql.push(format!("ALTER SEQUENCE {name} {}", options.join(" ")));
                }
                if old.unlogged != new.unlogged {
                    let logged = if new.unlogged { "UNLOGGED" } else { "LOGGED" };
                    sql.push(format!("ALTER SEQUENCE {name} SET {logged}"));
                }
            }
        }
        self.step(id, Step::Make, order::SEQUENCE, sql);
        if old.is_none() {
            self.start_past_maximum(id, name, new);
        }
    }

    /// OWNED BY of every sequence: let go before an old owner drops, given to the new one once that is there.
    pub(super) fn sequence_owners(&mut self) {
        let sequences: Vec<_> = self
            .to
            .facts
            .iter()
            .filter_map(|(&id, fact)| match &fact.payload {
                Payload::Sequence(sequence) => Some((id, sequence)),
                _ => None,
            })
            .collect();
        for (id, sequence) in sequences {
            let name = quote::object(id);
            let action = self.actions.of(id);
            let old = match self.from.payload(id) {
                Some(Payload::Sequence(old)) if !action.fresh() => old.owned_by.as_ref(),
                _ => None,
            };
            let owner_of = |side: &Side<'a>, column: &FactId| {
                side.find(column)
                    .or_else(|| side.container(&column.schema, &column.object))
            };
            let owner_drops = old
                .and_then(|column| owner_of(self.from, column))
                .filter(|owner| self.actions.of(owner).drops());
            if let Some(owner) = owner_drops {
                let sql = self.statement(id, format!("ALTER SEQUENCE {name} OWNED BY NONE"));
                let rank = super::graph::Rank { phase: 0, order: 0 };
                self.graph.add((id, Step::Loosen), rank, vec![sql]);
                self.graph.edge((id, Step::Loosen), (owner, Step::Drop));
            }
            let new = sequence.owned_by.as_ref();
            if new == old && owner_drops.is_none() {
                continue;
            }
            let Some(column) = new else {
                if owner_drops.is_none() {
                    let sql = format!("ALTER SEQUENCE {name} OWNED BY NONE");
                    self.step(id, Step::Own, order::OWNED_BY, vec![sql]);
                }
                continue;
            };
            let sql = format!(
                "ALTER SEQUENCE {name} OWNED BY {}.{}",
                quote::object(column),
                quote::ident(&column.part)
            );
            // The two must have one owner. Both new: that of this session, so right after they are made.
            // Otherwise after whichever of them changes hands.
            let table = self.to.container(&column.schema, &column.object);
            let both_new = action.fresh() && table.is_some_and(|t| self.actions.of(t).fresh());
            let at = if both_new {
                order::ATTACH
            } else {
                order::OWNED_BY
            };
            let mut statements = Vec::new();
            let owner = table.and_then(|t| privileges::owner_of(self.to, t));
            if !both_new
                && let Some(owner) = owner
                && (action.fresh() || privileges::owner_of(self.from, id) != Some(owner))
            {
                if old.is_some() && owner_drops.is_none() {
                    statements.push(format!("ALTER SEQUENCE {name} OWNED BY NONE"));
                }
                statements.push(format!(
                    "ALTER SEQUENCE {name} OWNER TO {}",
                    quote::ident(owner)
                ));
            }
            statements.push(sql);
            self.step(id, Step::Own, at, statements);
            self.graph.edge((id, Step::Make), (id, Step::Own));
            self.graph.edge((id, Step::Loosen), (id, Step::Own));
            if let Some(owner) = owner_of(self.to, column) {
                self.graph.edge((owner, Step::Make), (id, Step::Own));
            }
            for subject in table.into_iter().chain([id]) {
                for &extra in self.to.extras(subject) {
                    if extra.kind == Kind::Owner {
                        if both_new {
                            self.graph.edge((id, Step::Own), (extra, Step::Make));
                        } else {
                            self.graph.edge((extra, Step::Make), (id, Step::Own));
                        }
                    }
                }
            }
        }
    }

    /// A new sequence that becomes the default of rows that are there already begins past the largest of them.
    fn start_past_maximum(&mut self, id: &'a FactId, name: &str, sequence: &Sequence) {
        for &column in self.to.dependents(id) {
            let Some(new) = self.to.column(column) else {
                continue;
            };
            let draws = new.default.as_ref().is_some_and(|d| d.contains("nextval("));
            let there = self
                .from
                .effective_column(&column.schema, &column.object, &column.part)
                .is_some();
            if !draws || !there || self.actions.of(column).fresh() || !is_integer(&new.type_) {
                continue;
            }
            let sql = past_maximum(&quote::literal(name), column, &sequence.options);
            self.step(id, Step::Late, order::OWNED_BY, vec![sql]);
            self.graph.edge((column, Step::Make), (id, Step::Late));
        }
    }
}

pub fn is_integer(type_: &str) -> bool {
    matches!(type_, "smallint" | "integer" | "bigint")
}

/// Sets `sequence` (SQL for a regclass) past what the column holds; does nothing on an empty table, or where the
/// sequence's start is beyond it already.
pub fn past_maximum(sequence: &str, column: &FactId, options: &SequenceOptions) -> String {
    let (aggregate, beyond) = if options.increment > 0 {
        ("max", ">=")
    } else {
        ("min", "<=")
    };
    format!(
        "SELECT pg_catalog.setval({sequence}, rows.last) FROM (SELECT {aggregate}({}) AS last FROM {}) rows \
         WHERE rows.last {beyond} {} AND rows.last BETWEEN {} AND {}",
        quote::ident(&column.part),
        quote::object(column),
        options.start,
        options.minimum,
        options.maximum,
    )
}

fn create_collation(name: &str, provider: char, deterministic: bool, options: &str) -> String {
    let provider = match provider {
        'i' => "icu",
        'b' => "builtin",
        _ => "libc",
    };
    let mut list = vec![format!("provider = {provider}")];
    if !options.is_empty() {
        list.push(options.to_owned());
    }
    if !deterministic {
        list.push("deterministic = false".to_owned());
    }
    format!("CREATE COLLATION {name} ({})", list.join(", "))
}

/// A collation as facts carry it: qualified and quoted, or a bare name.
pub fn collation_name(collation: &str) -> String {
    if collation.contains(['"', '.']) {
        collation.to_owned()
    } else {
        quote::ident(collation).into_owned()
    }
}

/// Why the new list of labels cannot be reached by adding labels.
pub fn labels_lost(old: &[Label], new: &[Label]) -> Option<String> {
    if let Some(lost) = old.iter().find(|label| !new.contains(label)) {
        return Some(format!(
            "the label {} is removed, but rows may hold it",
            quote::literal(&lost.name)
        ));
    }
    let kept: Vec<_> = new.iter().filter(|label| old.contains(label)).collect();
    (!kept.iter().copied().eq(old.iter()))
        .then(|| "labels change their order, which rows are sorted by".to_owned())
}

/// Each new label before the first old one that follows it, or last.
fn add_values(name: &str, old: &[Label], new: &[Label]) -> Vec<String> {
    added_labels(old, new)
        .map(|(label, before)| add_value(name, label, before))
        .collect()
}

fn add_value(name: &str, label: &str, before: Option<&str>) -> String {
    let label = quote::literal(label);
    match before {
        Some(next) => format!(
            "ALTER TYPE {name} ADD VALUE IF NOT EXISTS {label} BEFORE {}",
            quote::literal(next)
        ),
        None => format!("ALTER TYPE {name} ADD VALUE IF NOT EXISTS {label}"),
    }
}

fn added_labels<'l>(
    old: &'l [Label],
    new: &'l [Label],
) -> impl Iterator<Item = (&'l str, Option<&'l str>)> {
    new.iter()
        .enumerate()
        .filter(|(_, label)| !old.contains(label))
        .map(|(at, label)| {
            let next = new[at + 1..].iter().find(|l| old.contains(l));
            (label.name.as_str(), next.map(|l| l.name.as_str()))
        })
}

/// A label cannot be used in the transaction that adds it: where a statement may use one, the type's ADD VALUE
/// statements are committed first.
pub fn move_labels_ahead(script: &mut Script, from: &Side<'_>, to: &Side<'_>, renames: &[Rename]) {
    for (&id, fact) in &to.facts {
        let (Payload::Enum { labels: new }, Some(Payload::Enum { labels: old })) =
            (&fact.payload, from.payload(id))
        else {
            continue;
        };
        let added: Vec<_> = added_labels(old, new).collect();
        if added.is_empty() {
            continue;
        }
        let name = quote::object(id);
        let adds = |s: &Statement| {
            s.serves.as_ref() == Some(id)
                && s.sql.starts_with("ALTER TYPE ")
                && s.sql.contains(" ADD VALUE ")
        };
        let used = script.statements.iter().filter(|s| !adds(s)).any(|s| {
            let of_type = s.sql.contains(&name);
            added.iter().any(|(label, _)| {
                s.sql.contains(&quote::literal(label)) || (of_type && s.sql.contains(label))
            })
        });
        if !used {
            continue;
        }
        script.statements.retain(|s| !adds(s));
        // These run before any rename does.
        let type_name = quote::object(&renames::old_id(id, renames));
        for (label, before) in added {
            let before = before.map(|label| {
                let part = FactId {
                    part: label.to_owned(),
                    ..id.clone()
                };
                renames::old_id(&part, renames).part
            });
            script.pre_steps.push(Statement {
                sql: add_value(&type_name, label, before.as_deref()),
                serves: Some(id.clone()),
            });
        }
    }
}

fn attribute_sql(attribute: &Attribute) -> String {
    let mut sql = format!("{} {}", quote::ident(&attribute.name), attribute.type_);
    if let Some(collation) = &attribute.collation {
        let _ = write!(sql, " COLLATE {}", collation_name(collation));
    }
    sql
}

/// Attributes are only ever appended, so the kept ones must come first and in their order.
pub fn attributes_alterable(old: &[Attribute], new: &[Attribute]) -> bool {
    let kept: Vec<&str> = old
        .iter()
        .map(|a| a.name.as_str())
        .filter(|name| new.iter().any(|n| n.name == *name))
        .collect();
    new.iter()
        .map(|a| a.name.as_str())
        .take(kept.len())
        .eq(kept.iter().copied())
}

fn alter_composite(name: &str, old: &[Attribute], new: &[Attribute]) -> Vec<String> {
    let mut parts = Vec::new();
    for attribute in old {
        if !new.iter().any(|n| n.name == attribute.name) {
            parts.push(format!("DROP ATTRIBUTE {}", quote::ident(&attribute.name)));
        }
    }
    for attribute in new {
        match old.iter().find(|o| o.name == attribute.name) {
            Some(o) if o == attribute => {}
            Some(_) => {
                let sql = attribute_sql(attribute);
                let quoted = quote::ident(&attribute.name);
                let type_ = sql[quoted.len()..].trim_start();
                parts.push(format!("ALTER ATTRIBUTE {quoted} TYPE {type_}"));
            }
            None => parts.push(format!("ADD ATTRIBUTE {}", attribute_sql(attribute))),
        }
    }
    if parts.is_empty() {
        return Vec::new();
    }
    vec![format!("ALTER TYPE {name} {}", parts.join(", "))]
}

/// The options that are not what CREATE SEQUENCE would choose, each with a space before it.
fn sequence_options(options: &SequenceOptions) -> String {
    let mut sql = String::new();
    if options.type_ != "bigint" {
        let _ = write!(sql, " AS {}", options.type_);
    }
    let list = identity_options(options);
    if !list.is_empty() {
        sql.push(' ');
        sql.push_str(&list.join(" "));
    }
    sql
}

/// Options of an identity column (its type is the column's) that are not the default.
pub fn identity_options(options: &SequenceOptions) -> Vec<String> {
    let (minimum, maximum) = default_bounds(options);
    let start = if options.increment > 0 {
        options.minimum
    } else {
        options.maximum
    };
    let mut list = Vec::new();
    if options.start != start {
        list.push(format!("START WITH {}", options.start));
    }
    if options.increment != 1 {
        list.push(format!("INCREMENT BY {}", options.increment));
    }
    if options.minimum != minimum {
        list.push(format!("MINVALUE {}", options.minimum));
    }
    if options.maximum != maximum {
        list.push(format!("MAXVALUE {}", options.maximum));
    }
    if options.cache != 1 {
        list.push(format!("CACHE {}", options.cache));
    }
    if options.cycle {
        list.push("CYCLE".to_owned());
    }
    list
}

/// All options at once: given one by one, each would be checked against the old others. Never RESTART.
pub fn all_sequence_options(options: &SequenceOptions, with_type: bool) -> Vec<String> {
    let mut list = Vec::new();
    if with_type {
        list.push(format!("AS {}", options.type_));
    }
    list.extend([
        format!("INCREMENT BY {}", options.increment),
        format!("MINVALUE {}", options.minimum),
        format!("MAXVALUE {}", options.maximum),
        format!("START WITH {}", options.start),
        format!("CACHE {}", options.cache),
        (if options.cycle { "CYCLE" } else { "NO CYCLE" }).to_owned(),
    ]);
    list
}

fn default_bounds(options: &SequenceOptions) -> (i64, i64) {
    let (low, high) = type_bounds(&options.type_);
    if options.increment > 0 {
        (1, high)
    } else {
        (low, -1)
    }
}

pub fn type_bounds(type_: &str) -> (i64, i64) {
    match type_ {
        "smallint" => (i64::from(i16::MIN), i64::from(i16::MAX)),
        "integer" => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    }
}

/// A column whose rows hold values of the type (or collation), directly or within another type.
pub fn column_that_uses<'a>(side: &Side<'a>, id: &FactId) -> Option<&'a FactId> {
    if id.kind == Kind::Collation {
        let name = quote::object(id);
        return side
            .facts
            .iter()
            .find_map(|(&column, fact)| match &fact.payload {
                Payload::Column(c)
                    if c.collation
                        .as_ref()
                        .is_some_and(|c| collation_name(c) == name) =>
                {
                    Some(column)
                }
                _ => None,
            });
    }
    let mut names: HashSet<String> = HashSet::from([quote::object(id)]);
    loop {
        let before = names.len();
        for (&other, fact) in &side.facts {
            let holds = match &fact.payload {
                Payload::Column(column) if names.contains(base_type(&column.type_)) => {
                    return Some(other);
                }
                Payload::Composite { attributes } => attributes
                    .iter()
                    .any(|a| names.contains(base_type(&a.type_))),
                Payload::Domain { base, .. } => names.contains(base_type(base)),
                Payload::Range { options } => names.iter().any(|n| options.contains(n.as_str())),
                _ => false,
            };
            if holds {
                names.insert(quote::object(other));
            }
        }
        if names.len() == before {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str]) -> Vec<Label> {
        names
            .iter()
            .map(|name| Label {
                name: (*name).to_owned(),
                oid: 0,
            })
            .collect()
    }

    #[test]
    fn labels_are_added_before_their_successor_or_last() {
        let sql = add_values(
            "public.color",
            &labels(&["red", "blue", "green"]),
            &labels(&["black", "gray", "red", "blue", "green", "white"]),
        );
        assert_eq!(
            sql,
            [
                "ALTER TYPE public.color ADD VALUE IF NOT EXISTS 'black' BEFORE 'red'",
                "ALTER TYPE public.color ADD VALUE IF NOT EXISTS 'gray' BEFORE 'red'",
                "ALTER TYPE public.color ADD VALUE IF NOT EXISTS 'white'",
            ]
        );
        assert!(labels_lost(&labels(&["a", "b"]), &labels(&["b", "x", "a"])).is_some());
        assert!(labels_lost(&labels(&["a", "b"]), &labels(&["a"])).is_some());
        assert!(labels_lost(&labels(&["a", "b"]), &labels(&["x", "a", "y", "b"])).is_none());
    }
}
