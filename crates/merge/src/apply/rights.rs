//! With whose rights a statement of the script runs.
//!
//! A script runs as a superuser, and what a branch wrote into it must not. Postgres itself runs index expressions, the
//! queries of `REFRESH MATERIALIZED VIEW`, triggers and policies with the rights of an owner or of whoever caused them.
//! Defaults of new columns, generated expressions and checks it runs with those of the session, over the rows that are
//! there (and, where they are constant, over none at all): such statements are given to the table's owner here.
//!
//! What is left to the session: what is unchanged and only made again; checks inside of `CREATE TABLE`, which runs none
//! of them; casts, which the product's databases cannot have without a superuser.

use crate::{
    catalog::{Catalog, FactId, Kind, Payload},
    script::{Probe, Statement},
};

/// The owner whose rights suffice for a statement of the script between the two; none for the session's own.
pub(crate) fn of_statement(
    from: &Catalog,
    target: &Catalog,
    statement: &Statement,
) -> Option<String> {
    let id = statement.serves.as_ref()?;
    if !evaluates(target, id, &statement.sql) {
        return None;
    }
    let holder = holder(target, id)?;
    // Of something new the script makes the owner first.
    owner_before(from, target, &holder).or_else(|| owner(target, &holder))
}

/// Who owns it when the script begins. It may have another name then.
fn owner_before(from: &Catalog, target: &Catalog, holder: &FactId) -> Option<String> {
    if from.facts.contains_key(holder) {
        return owner(from, holder);
    }
    let place = target.facts.get(holder)?.place;
    let (was, _) = from
        .facts
        .iter()
        .find(|(was, fact)| was.kind == holder.kind && fact.place == place && place.oid != 0)?;
    owner(from, was)
}

/// A probe reads what its statement will; where it evaluates an expression of users, with the same rights.
pub(crate) fn of_probe(from: &Catalog, target: &Catalog, probe: &Probe) -> Option<String> {
    let evaluates = match target.facts.get(&probe.id).map(|fact| &fact.payload) {
        Some(Payload::Constraint { kind, .. }) => *kind != 'f',
        Some(Payload::Index { .. }) => true,
        _ => false,
    };
    if !evaluates {
        return None;
    }
    let on = match target.facts.get(&probe.id).map(|fact| &fact.payload) {
        Some(Payload::Index { on, .. }) => FactId::object(Kind::Table, &probe.id.schema, on),
        _ => holder(target, &probe.id)?,
    };
    owner_before(from, target, &on)
}

fn evaluates(target: &Catalog, id: &FactId, sql: &str) -> bool {
    let Some(fact) = target.facts.get(id) else {
        return false;
    };
    match &fact.payload {
        Payload::Constraint { kind: 'c', .. } => !sql.contains(" DROP CONSTRAINT "),
        Payload::Column(column) if id.of.is_none() => {
            let of_domain = fact.needs.iter().any(|need| need.kind == Kind::Domain);
            // Sequences are still the session's when a column begins to draw from them.
            let computed =
                |default: &String| default.contains('(') && !default.starts_with("nextval(");
            let new = sql.contains(" ADD COLUMN ");
            new && (column.generated.is_some() || column.default.as_ref().is_some_and(computed))
                || of_domain && (new || sql.contains(" TYPE "))
        }
        _ => false,
    }
}

fn holder(catalog: &Catalog, id: &FactId) -> Option<FactId> {
    [Kind::Table, Kind::Domain]
        .into_iter()
        .map(|kind| FactId::object(kind, &id.schema, &id.object))
        .find(|holder| catalog.facts.contains_key(holder))
}

fn owner(catalog: &Catalog, of: &FactId) -> Option<String> {
    match &catalog.facts.get(&FactId::about(Kind::Owner, of))?.payload {
        Payload::Owner { role } => Some(role.clone()),
        _ => None,
    }
}
