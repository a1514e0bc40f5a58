//! Collations, enums, domains, composite and range types.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::{
    Rename, Script, Statement,
    graph::Step,
    kinds::order,
    quote,
    rebuild::Action,
    renames,
    side::{Side, base_type},
    writer::Writer,
};
use crate::catalog::{Attribute, FactId, Kind, Label, Payload};

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
                self.make_sequence(id, &name, old.map(AsRef::as_ref), new);
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
                makes: None,
                evaluates: false,
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
