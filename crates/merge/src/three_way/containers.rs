//! What holds what: a table its columns, a column its comment, a schema its tables.

use crate::catalog::{Catalog, FactId, Kind, Payload};

/// Kinds whose parts have the container's name and a name of their own.
const HOLDERS: [Kind; 5] = [
    Kind::Table,
    Kind::View,
    Kind::MaterializedView,
    Kind::Domain,
    Kind::Composite,
];

/// What holds a fact next, in this catalog. `None` for what the database itself holds.
pub fn container(catalog: &Catalog, id: &FactId) -> Option<FactId> {
    if let Some(subject) = id.subject() {
        if catalog.facts.contains_key(&subject) {
            return Some(subject);
        }
        // Columns of views, attributes, inherited columns, sequences of identity columns: what they belong to.
        if let Some(first) = catalog.facts.get(id).and_then(|fact| fact.needs.first()) {
            return Some(first.clone());
        }
        return holder(catalog, id).or(Some(subject));
    }
    let payload = catalog.facts.get(id).map(|fact| &fact.payload);
    match (id.kind, payload) {
        (Kind::Index, Some(Payload::Index { on, .. })) => [Kind::Table, Kind::MaterializedView]
            .into_iter()
            .map(|kind| FactId::object(kind, &id.schema, on))
            .find(|on| catalog.facts.contains_key(on)),
        (Kind::Statistics, Some(Payload::Statistics { on, .. })) => catalog
            .facts
            .get(id)
            .and_then(|fact| {
                fact.needs
                    .iter()
                    .find(|need| need.kind == Kind::Table && need.object == *on)
            })
            .cloned(),
        (Kind::Sequence, Some(Payload::Sequence(sequence))) if sequence.owned_by.is_some() => {
            sequence.owned_by.clone()
        }
        (Kind::Rls, _) => Some(FactId::object(Kind::Table, &id.schema, &id.object)),
        _ if !id.part.is_empty() => holder(catalog, id),
        _ if !id.schema.is_empty() => Some(FactId::object(Kind::Schema, "", &id.schema)),
        _ => None,
    }
}

fn holder(catalog: &Catalog, id: &FactId) -> Option<FactId> {
    HOLDERS
        .into_iter()
        .map(|kind| FactId::object(kind, &id.schema, &id.object))
        .find(|holder| catalog.facts.contains_key(holder))
}

/// All that hold a fact, the next one first.
pub fn ancestors(catalog: &Catalog, id: &FactId) -> Vec<FactId> {
    let mut chain = Vec::new();
    let mut next = container(catalog, id);
    while let Some(id) = next {
        next = container(catalog, &id);
        chain.push(id);
    }
    chain
}

/// The parts of one kind that a table, view or domain has.
pub fn parts<'c>(
    catalog: &'c Catalog,
    kind: Kind,
    holder: &FactId,
) -> impl Iterator<Item = &'c FactId> + use<'c> {
    let first = FactId::part(kind, &holder.schema, &holder.object, "");
    let (schema, object) = (holder.schema.clone(), holder.object.clone());
    catalog
        .facts
        .range(first..)
        .map(|(id, _)| id)
        .take_while(move |id| id.kind == kind && id.schema == schema && id.object == object)
}

/// Tables that a table inherits from, directly or not.
pub fn inherits(catalog: &Catalog, table: &FactId) -> Vec<FactId> {
    let mut found: Vec<FactId> = Vec::new();
    let mut open = vec![table.clone()];
    while let Some(id) = open.pop() {
        let Some(Payload::Table(table)) = catalog.facts.get(&id).map(|fact| &fact.payload) else {
            continue;
        };
        for (schema, name) in &table.parents {
            let parent = FactId::object(Kind::Table, schema, name);
            if !found.contains(&parent) {
                found.push(parent.clone());
                open.push(parent);
            }
        }
    }
    found
}
