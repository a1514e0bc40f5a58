//! Edits that are fine alone and not together: found from what facts need and from the names that they share.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    Action,
    containers::{inherits, parts},
    decide::Decision,
    names::name_takers,
};
use crate::catalog::{Catalog, Fact, FactId, Kind, Payload};

/// Edits of the branch that cannot be made on the parent, each with the reason.
pub fn conflicts(decision: &Decision<'_>, target: &Catalog) -> Vec<(FactId, String)> {
    let mut found = Vec::new();
    needs_what_is_gone(decision, target, &mut found);
    drops_what_is_needed(decision, target, &mut found);
    let added: Vec<&FactId> = decision
        .taken
        .iter()
        .filter(|(_, action)| **action == Action::Add)
        .map(|(id, _)| id)
        .collect();
    takes_a_name(decision, target, &added, &mut found);
    second_primary_key(decision, target, &added, &mut found);
    partitions_collide(decision, target, &mut found);
    inheritance_collides(decision, target, &mut found);
    rows_by_position(decision, target, &mut found);
    found
}

/// What the branch made needs something that the parent dropped or moved.
fn needs_what_is_gone(
    decision: &Decision<'_>,
    target: &Catalog,
    found: &mut Vec<(FactId, String)>,
) {
    let branch = &decision.aligned.branch;
    for (id, action) in &decision.taken {
        if *action == Action::Drop || decision.renamed_only.contains(id) {
            continue;
        }
        let Some(fact) = target.facts.get(id) else {
            continue;
        };
        let gone = fact.needs.iter().find(|need| {
            !target.facts.contains_key(need)
                && branch.facts.contains_key(need)
                && !decision.waiting.contains(need)
                && !branch.is_managed(need)
        });
        if let Some(gone) = gone {
            found.push((
                id.clone(),
                format!(
                    "needs the {} {gone}, which the {target} does not have any more",
                    gone.kind.as_str(),
                    target = decision.aligned.direction.target()
                ),
            ));
        }
    }
}

/// The branch dropped something on which the parent has built since. Nothing is ever dropped with CASCADE.
fn drops_what_is_needed(
    decision: &Decision<'_>,
    target: &Catalog,
    found: &mut Vec<(FactId, String)>,
) {
    if !decision
        .taken
        .values()
        .any(|action| *action == Action::Drop)
    {
        return;
    }
    for (id, fact) in &target.facts {
        if decision.taken.contains_key(id) || decision.waiting.contains(id) {
            continue;
        }
        for need in &fact.needs {
            if decision.taken.get(need) == Some(&Action::Drop) && !target.facts.contains_key(need) {
                found.push((
                    need.clone(),
                    format!(
                        "dropped on the {source}; on the {target} the {} {id} needs it",
                        id.kind.as_str(),
                        source = decision.aligned.direction.source(),
                        target = decision.aligned.direction.target()
                    ),
                ));
            }
        }
    }
}

/// Relations and indexes share their names, so do types with row types, and functions with procedures.
fn takes_a_name(
    decision: &Decision<'_>,
    target: &Catalog,
    added: &[&FactId],
    found: &mut Vec<(FactId, String)>,
) {
    let theirs =
        |taker: &FactId| target.facts.contains_key(taker) && !decision.taken.contains_key(taker);
    // Keys bring an index of their name. Those of the target, and who has them.
    let mut keys: HashMap<(&str, &str), &FactId> = HashMap::new();
    if !added.is_empty() {
        let first = FactId::part(Kind::Constraint, "", "", "");
        let constraints = target
            .facts
            .range(first..)
            .take_while(|(id, _)| id.kind == Kind::Constraint)
            .filter(|(_, fact)| is_key(fact));
        keys.extend(constraints.map(|(id, _)| ((id.schema.as_str(), id.part.as_str()), id)));
    }
    for id in added {
        let key = id.kind == Kind::Constraint && target.facts.get(*id).is_some_and(is_key);
        let takers = if key {
            name_takers(&FactId::object(Kind::Index, &id.schema, &id.part))
        } else if matches!(
            id.kind,
            Kind::Table
                | Kind::View
                | Kind::MaterializedView
                | Kind::Sequence
                | Kind::Index
                | Kind::Composite
                | Kind::Enum
                | Kind::Domain
                | Kind::Range
                | Kind::Function
                | Kind::Procedure
                | Kind::Aggregate
        ) {
            name_takers(id)
        } else {
            continue;
        };
        let relation = takers.iter().any(|taker| taker.kind == Kind::Index);
        let other_key = keys
            .get(&(
                id.schema.as_str(),
                if key {
                    id.part.as_str()
                } else {
                    id.object.as_str()
                },
            ))
            .filter(|other| relation && **other != *id && theirs(other))
            .map(|other| (*other).clone());
        let taker = takers
            .into_iter()
            .find(|taker| taker != *id && theirs(taker))
            .or(other_key);
        if let Some(taker) = taker {
            found.push((
                (*id).clone(),
                format!(
                    "added on the {source}; on the {target} the {} {taker} has that name",
                    taker.kind.as_str(),
                    source = decision.aligned.direction.source(),
                    target = decision.aligned.direction.target()
                ),
            ));
        }
    }
}

fn is_key(fact: &Fact) -> bool {
    matches!(
        fact.payload,
        Payload::Constraint {
            kind: 'p' | 'u' | 'x',
            ..
        }
    )
}

fn second_primary_key(
    decision: &Decision<'_>,
    target: &Catalog,
    added: &[&FactId],
    found: &mut Vec<(FactId, String)>,
) {
    let primary = |id: &FactId| {
        matches!(
            target.facts.get(id).map(|fact| &fact.payload),
            Some(Payload::Constraint { kind: 'p', .. })
        )
    };
    for id in added {
        if id.kind != Kind::Constraint || !primary(id) {
            continue;
        }
        let other = parts(target, Kind::Constraint, id)
            .find(|other| other != id && primary(other) && !decision.taken.contains_key(other));
        if let Some(other) = other {
            found.push((
                (*id).clone(),
                format!(
                    "the {} has the primary key {} on that table",
                    decision.aligned.direction.target(),
                    other.part
                ),
            ));
        }
    }
}

/// Two default partitions of one table, or two whose bounds overlap, one from each side.
fn partitions_collide(
    decision: &Decision<'_>,
    target: &Catalog,
    found: &mut Vec<(FactId, String)>,
) {
    let bound = |id: &FactId| match target.facts.get(id).map(|fact| &fact.payload) {
        Some(Payload::Table(table)) => table.bound.clone().zip(table.parents.first().cloned()),
        _ => None,
    };
    let ours: Vec<(&FactId, String, (String, String))> = decision
        .taken
        .keys()
        .filter(|id| id.kind == Kind::Table)
        .filter_map(|id| bound(id).map(|(bound, of)| (id, bound, of)))
        .collect();
    if ours.is_empty() {
        return;
    }
    let first = FactId::object(Kind::Table, "", "");
    let theirs: Vec<(&FactId, String, (String, String))> = target
        .facts
        .range(first..)
        .map(|(id, _)| id)
        .take_while(|id| id.kind == Kind::Table)
        .filter(|id| !decision.taken.contains_key(*id))
        .filter_map(|id| bound(id).map(|(bound, of)| (id, bound, of)))
        .collect();
    for (id, bound, of) in &ours {
        let other = theirs
            .iter()
            .find(|(_, their_bound, their_of)| their_of == of && overlap(bound, their_bound));
        if let Some((other, their_bound, _)) = other {
            found.push((
                (*id).clone(),
                format!(
                    "its partition bound ({bound}) meets that of {other} on the {} ({their_bound})",
                    decision.aligned.direction.target()
                ),
            ));
        }
    }
}

/// As far as texts tell: numbers and dates of one column. What they do not tell, the rehearsal will.
fn overlap(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    if one == "DEFAULT" || other == "DEFAULT" {
        return false;
    }
    let list = |bound: &str| -> Option<BTreeSet<String>> {
        let values = bound.strip_prefix("FOR VALUES IN (")?.strip_suffix(')')?;
        Some(values.split(", ").map(str::to_owned).collect())
    };
    if let (Some(one), Some(other)) = (list(one), list(other)) {
        return !one.is_disjoint(&other);
    }
    let range = |bound: &str| -> Option<(Vec<Value>, Vec<Value>)> {
        let (from, to) = bound
            .strip_prefix("FOR VALUES FROM (")?
            .strip_suffix(')')?
            .split_once(") TO (")?;
        let values = |text: &str| {
            text.split(", ")
                .map(Value::read)
                .collect::<Option<Vec<_>>>()
        };
        Some((values(from)?, values(to)?))
    };
    if let (Some((from, to)), Some((other_from, other_to))) = (range(one), range(other)) {
        return from < other_to && other_from < to;
    }
    let hash = |bound: &str| -> Option<(u64, u64)> {
        let text = bound
            .strip_prefix("FOR VALUES WITH (modulus ")?
            .strip_suffix(')')?;
        let (modulus, remainder) = text.split_once(", remainder ")?;
        Some((modulus.parse().ok()?, remainder.parse().ok()?))
    };
    if let (Some((modulus, remainder)), Some((other_modulus, other_remainder))) =
        (hash(one), hash(other))
    {
        let smaller = modulus.min(other_modulus).max(1);
        return remainder % smaller == other_remainder % smaller;
    }
    false
}

/// A value of a range bound. Dates and times are printed so that their texts sort as they do, but for years beyond 9999.
#[derive(PartialEq, PartialOrd)]
enum Value {
    Least,
    Number(f64),
    Text(String),
    Greatest,
}

impl Value {
    fn read(text: &str) -> Option<Self> {
        match text {
            "MINVALUE" => return Some(Self::Least),
            "MAXVALUE" => return Some(Self::Greatest),
            _ => {}
        }
        if let Some(quoted) = text
            .strip_prefix('\'')
            .and_then(|text| text.strip_suffix('\''))
        {
            return Some(
                quoted
                    .parse()
                    .map_or_else(|_| Self::Text(quoted.to_owned()), Self::Number),
            );
        }
        text.parse().ok().map(Self::Number)
    }
}

/// A column that a table gets from a parent while it has one of its own with that name and another type; and a table that is to
/// become a part of another one whose columns it has not all.
fn inheritance_collides(
    decision: &Decision<'_>,
    target: &Catalog,
    found: &mut Vec<(FactId, String)>,
) {
    let taken_columns: Vec<&FactId> = decision
        .taken
        .iter()
        .filter(|(id, action)| id.kind == Kind::Column && **action != Action::Drop)
        .map(|(id, _)| id)
        .collect();
    let taken_tables: Vec<&FactId> = decision
        .taken
        .iter()
        .filter(|(id, action)| id.kind == Kind::Table && **action != Action::Drop)
        .map(|(id, _)| id)
        .collect();
    if taken_columns.is_empty() && taken_tables.is_empty() {
        return;
    }
    let first = FactId::object(Kind::Table, "", "");
    let mut heirs: BTreeMap<FactId, Vec<FactId>> = BTreeMap::new();
    for (id, fact) in target
        .facts
        .range(first..)
        .take_while(|(id, _)| id.kind == Kind::Table)
    {
        if matches!(&fact.payload, Payload::Table(table) if !table.parents.is_empty()) {
            for ancestor in inherits(target, id) {
                heirs.entry(ancestor).or_default().push(id.clone());
            }
        }
    }
    let type_of = |id: &FactId| match target.facts.get(id).map(|fact| &fact.payload) {
        Some(Payload::Column(column)) => Some((column.type_.clone(), column.collation.clone())),
        _ => None,
    };
    for id in taken_columns {
        let table = FactId::object(Kind::Table, &id.schema, &id.object);
        let mut related = heirs.get(&table).cloned().unwrap_or_default();
        related.extend(inherits(target, &table));
        for other in related {
            let other = FactId::part(Kind::Column, &other.schema, &other.object, &id.part);
            if !decision.taken.contains_key(&other)
                && type_of(&other).is_some_and(|type_| Some(type_) != type_of(id))
            {
                found.push((id.clone(), format!("the column {other} on the {} has that name and another type, and one table inherits from the other", decision.aligned.direction.target())));
            }
        }
    }
    for id in taken_tables {
        let (Some(Payload::Table(now)), Some(Payload::Table(was))) = (
            target.facts.get(id).map(|fact| &fact.payload),
            decision
                .aligned
                .parent
                .facts
                .get(id)
                .map(|fact| &fact.payload),
        ) else {
            continue;
        };
        for (schema, name) in now
            .parents
            .iter()
            .filter(|parent| !was.parents.contains(parent))
        {
            let of = FactId::object(Kind::Table, schema, name);
            let missing = parts(target, Kind::Column, &of).find(|column| {
                let own = FactId::part(Kind::Column, &id.schema, &id.object, &column.part);
                !decision.aligned.parent.facts.contains_key(&own)
                    && !decision.aligned.branch.facts.contains_key(column)
            });
            if let Some(missing) = missing {
                found.push((
                    id.clone(),
                    format!(
                        "attached to {of} on the {}; it has no column {}, which the {} added there",
                        decision.aligned.direction.source(),
                        missing.part,
                        decision.aligned.direction.target()
                    ),
                ));
            }
        }
    }
}

/// A view over a function that returns rows of a table names the row's columns by position. If the parent has columns in
/// other places than the branch, the names would go to other columns.
fn rows_by_position(decision: &Decision<'_>, target: &Catalog, found: &mut Vec<(FactId, String)>) {
    let branch = &decision.aligned.branch;
    for (id, action) in &decision.taken {
        if *action == Action::Drop || !matches!(id.kind, Kind::View | Kind::MaterializedView) {
            continue;
        }
        let Some(fact) = branch.facts.get(id) else {
            continue;
        };
        for function in fact.needs.iter().filter(|need| need.kind == Kind::Function) {
            let Some(Payload::Function {
                result: Some(result),
                ..
            }) = branch.facts.get(function).map(|fact| &fact.payload)
            else {
                continue;
            };
            let Some(table) = branch
                .facts
                .get(function)
                .into_iter()
                .flat_map(|fact| &fact.needs)
                .find(|need| {
                    need.kind == Kind::Table
                        && result.trim_start_matches("SETOF ").replace('"', "") == need.to_string()
                })
            else {
                continue;
            };
            let (ours, merged) = (in_order(branch, table), in_order(target, table));
            if !merged.starts_with(&ours) {
                found.push((
                    id.clone(),
                    format!("reads rows of {table} by position, and on the {} that table has its columns in another order ({})", decision.aligned.direction.target(), merged.join(", ")),
                ));
            }
        }
    }
}

fn in_order(catalog: &Catalog, table: &FactId) -> Vec<String> {
    let mut columns: Vec<(i16, String)> = parts(catalog, Kind::Column, table)
        .filter_map(|id| Some((catalog.facts.get(id)?.place.number, id.part.clone())))
        .collect();
    columns.sort();
    columns.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn bounds_overlap() {
        let year =
            |from: u32, to: u32| format!("FOR VALUES FROM ('{from}-01-01') TO ('{to}-01-01')");
        assert!(!overlap(&year(2023, 2024), &year(2024, 2025)));
        assert!(overlap(&year(2023, 2025), &year(2024, 2026)));
        assert!(overlap(
            "FOR VALUES FROM (MINVALUE) TO (10)",
            "FOR VALUES FROM (9) TO (100)"
        ));
        assert!(!overlap(
            "FOR VALUES FROM (MINVALUE) TO (10)",
            "FOR VALUES FROM (10) TO (100)"
        ));
        assert!(overlap(
            "FOR VALUES IN ('a', 'b')",
            "FOR VALUES IN ('c', 'b')"
        ));
        assert!(!overlap("FOR VALUES IN ('a')", "FOR VALUES IN ('c', 'b')"));
        assert!(overlap("DEFAULT", "DEFAULT"));
        assert!(!overlap("DEFAULT", &year(2023, 2024)));
        assert!(overlap(
            "FOR VALUES WITH (modulus 4, remainder 1)",
            "FOR VALUES WITH (modulus 8, remainder 5)"
        ));
        assert!(!overlap(
            "FOR VALUES WITH (modulus 4, remainder 1)",
            "FOR VALUES WITH (modulus 4, remainder 2)"
        ));
    }
}
