//! What one side did since its T0.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Action,
    containers::{inherits, parts},
};
use crate::catalog::{Catalog, Fact, FactId, Kind, Payload};

/// The edits of one side, and what merely followed from them.
#[derive(Debug, Default)]
pub struct Edits {
    pub made: BTreeMap<FactId, Action>,
    /// Things that the side renamed, under their new names. They may have other edits too.
    pub renamed: BTreeSet<FactId>,
    /// Facts that came or went because a table was attached to another one or detached from it, with that table.
    pub consequences: Vec<(FactId, FactId)>,
}

impl Edits {
    pub fn between(t0: &Catalog, now: &Catalog) -> Self {
        let mut edits = Self::default();
        for (id, action) in differences(t0, now) {
            if let Some(table) = follows_from_attaching(t0, now, id, action) {
                edits.consequences.push((table, id.clone()));
            } else {
                edits.made.insert(id.clone(), action);
            }
        }
        edits
    }

    pub fn dropped(&self, id: &FactId) -> bool {
        self.made.get(id) == Some(&Action::Drop)
    }
}

fn differences<'c>(t0: &'c Catalog, now: &'c Catalog) -> Vec<(&'c FactId, Action)> {
    t0.walk(now)
        .filter_map(|both| match (both.old, both.new) {
            (Some(old), Some(new)) => {
                (!same(&old.payload, &new.payload)).then_some((both.id, Action::Modify))
            }
            (Some(_), None) => Some((both.id, Action::Drop)),
            (None, _) => Some((both.id, Action::Add)),
        })
        .filter(|(id, _)| !t0.is_managed(id) && !now.is_managed(id))
        .collect()
}

/// Whether two payloads say the same. The types of a view's columns follow from what it reads.
pub fn same(one: &Payload, other: &Payload) -> bool {
    match (one, other) {
        (
            Payload::View {
                definition,
                options,
                columns,
            },
            Payload::View {
                definition: other_definition,
                options: other_options,
                columns: other_columns,
            },
        )
        | (
            Payload::MaterializedView {
                definition,
                options,
                columns,
            },
            Payload::MaterializedView {
                definition: other_definition,
                options: other_options,
                columns: other_columns,
            },
        ) => {
            let told = |columns: &[crate::catalog::ViewColumn]| -> Vec<(String, Option<String>)> {
                columns
                    .iter()
                    .map(|column| (column.name.clone(), column.default.clone()))
                    .collect()
            };
            definition == other_definition
                && options == other_options
                && told(columns) == told(other_columns)
        }
        _ => one == other,
    }
}

pub fn same_fact(one: Option<&Fact>, other: Option<&Fact>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => same(&one.payload, &other.payload),
        _ => false,
    }
}

/// Whether both are one constraint, of which the first is proved for all rows and the second is `NOT VALID`.
pub fn proves(one: Option<&Fact>, other: Option<&Fact>) -> bool {
    match (one.map(|f| &f.payload), other.map(|f| &f.payload)) {
        (
            Some(Payload::Constraint {
                kind,
                definition,
                validated: true,
            }),
            Some(Payload::Constraint {
                kind: other_kind,
                definition: other_definition,
                validated: false,
            }),
        ) => {
            kind == other_kind
                && other_definition.strip_suffix(" NOT VALID") == Some(definition.as_str())
        }
        _ => false,
    }
}

/// A partition that is attached has its columns, keys and indexes from its parent from then on: they are no facts any more.
/// When it is detached they are again. The table is returned if that is what happened.
fn follows_from_attaching(
    t0: &Catalog,
    now: &Catalog,
    id: &FactId,
    action: Action,
) -> Option<FactId> {
    let (with, without) = match action {
        Action::Drop => (t0, now),
        Action::Add => (now, t0),
        Action::Modify => return None,
    };
    let payload = &with.facts.get(id)?.payload;
    let table = match (id.kind, payload) {
        (Kind::Column | Kind::Constraint | Kind::Trigger, _) => {
            FactId::object(Kind::Table, &id.schema, &id.object)
        }
        (Kind::Index, Payload::Index { on, .. }) => FactId::object(Kind::Table, &id.schema, on),
        _ => return None,
    };
    let parents = |catalog: &Catalog| match catalog.facts.get(&table).map(|fact| &fact.payload) {
        Some(Payload::Table(table)) => Some(table.parents.clone()),
        _ => None,
    };
    if parents(with)? == parents(without)? {
        return None;
    }
    let from = inherits(without, &table);
    let inherited = from.iter().any(|ancestor| match (id.kind, payload) {
        (Kind::Column | Kind::Trigger, _) => without.facts.contains_key(&FactId::part(
            id.kind,
            &ancestor.schema,
            &ancestor.object,
            &id.part,
        )),
        (Kind::Constraint, payload) => {
            parts(without, Kind::Constraint, ancestor).any(|constraint| {
                without
                    .facts
                    .get(constraint)
                    .is_some_and(|fact| fact.payload == *payload)
            })
        }
        (_, Payload::Index { definition, .. }) => without
            .facts
            .values()
            .filter(|fact| fact.needs.contains(ancestor))
            .any(|fact| match &fact.payload {
                Payload::Index {
                    definition: theirs, ..
                } => shape(theirs) == shape(definition),
                _ => false,
            }),
        _ => false,
    });
    inherited.then_some(table)
}

/// An index's definition without its name and table.
fn shape(definition: &str) -> &str {
    definition
        .split_once(" USING ")
        .map_or(definition, |(_, shape)| shape)
}
