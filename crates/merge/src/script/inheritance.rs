//! Tables that are given to parents or taken from them.
//!
//! What a table has from its parents is no fact of its own, so such a table would seem to lose or gain columns out of
//! nothing. Therefore `from` is read as it is once all of them are taken from their old parents, and `to` as it is
//! before they are given to their new ones; the two moves are statements of their own, first and last.

use std::collections::{BTreeSet, HashSet};

use super::{
    graph::{Rank, Step},
    kinds::order,
    probes::key_expression,
    quote,
    rebuild::Action,
    side::Side,
    writer::Writer,
};
use crate::catalog::{Catalog, Column, Fact, FactId, Kind, Payload, Place};

#[derive(Debug, Default)]
pub struct Moves {
    pub moves: Vec<Move>,
    /// Keys and indexes of old parents that go anyway: before their partitions leave and keep copies of them.
    pub before_detach: HashSet<FactId>,
}

/// One table with what it leaves and where it goes.
#[derive(Debug)]
pub struct Move {
    pub child: FactId,
    pub leaves: Vec<(String, String)>,
    pub was_partition: bool,
    pub joins: Vec<(String, String)>,
    pub bound: Option<String>,
}

/// Both catalogs as they are between the moves; none where no table moves.
pub fn between(from: &Catalog, to: &Catalog) -> Option<(Catalog, Catalog, Moves)> {
    let moves: Vec<Move> = to
        .facts
        .iter()
        .filter_map(|(id, fact)| find_move(from, to, id, fact))
        .collect();
    if moves.is_empty() {
        return None;
    }
    let (old_side, new_side) = (Side::new(from, &|_| false), Side::new(to, &|_| false));
    let (mut detached, mut unattached) = (from.clone(), to.clone());
    let mut all = Moves::default();
    for one in &moves {
        detach(
            one,
            &old_side,
            &new_side,
            &mut detached,
            &mut all.before_detach,
        );
    }
    for one in &moves {
        unattach(one, &old_side, &new_side, &detached, &mut unattached);
    }
    all.moves = moves;
    Some((detached, unattached, all))
}

fn find_move(from: &Catalog, to: &Catalog, id: &FactId, fact: &Fact) -> Option<Move> {
    let (Payload::Table(new), Payload::Table(old)) = (&fact.payload, &from.facts.get(id)?.payload)
    else {
        return None;
    };
    if old.partition_by != new.partition_by {
        return None; // made anew
    }
    let stays = |parent: &&(String, String)| {
        let id = FactId::object(Kind::Table, &parent.0, &parent.1);
        let same = match (
            from.facts.get(&id).map(|f| &f.payload),
            to.facts.get(&id).map(|f| &f.payload),
        ) {
            (Some(Payload::Table(a)), Some(Payload::Table(b))) => a.partition_by == b.partition_by,
            _ => false,
        };
        same && old.bound == new.bound
            && old.parents.contains(parent)
            && new.parents.contains(parent)
    };
    let leaves: Vec<_> = old.parents.iter().filter(|p| !stays(p)).cloned().collect();
    let joins: Vec<_> = new.parents.iter().filter(|p| !stays(p)).cloned().collect();
    (!leaves.is_empty() || !joins.is_empty()).then(|| Move {
        child: id.clone(),
        leaves,
        was_partition: old.bound.is_some(),
        joins,
        bound: new.bound.clone(),
    })
}

fn set_parents(catalog: &mut Catalog, id: &FactId, gone: &[(String, String)]) {
    if let Some(Fact {
        payload: Payload::Table(table),
        ..
    }) = catalog.facts.get_mut(id)
    {
        table.parents.retain(|p| !gone.contains(p));
        if !gone.is_empty() {
            table.bound = None;
        }
    }
}

/// Gives the child what it keeps when it leaves.
fn detach(
    one: &Move,
    old: &Side<'_>,
    new: &Side<'_>,
    catalog: &mut Catalog,
    before: &mut HashSet<FactId>,
) {
    let child = &one.child;
    set_parents(catalog, child, &one.leaves);
    for (schema, parent) in &one.leaves {
        for column in old.effective_columns(schema, parent) {
            add_column(
                catalog,
                child,
                &column.id.part,
                column.column,
                column.id,
                old,
            );
        }
        for constraint in inherited_checks(old, schema, parent) {
            copy_part(catalog, child, constraint, &constraint.part, old);
        }
        if !one.was_partition {
            continue;
        }
        for (id, payload) in keys_and_indexes(old, schema, parent) {
            if new.payload(id) != Some(payload) {
                before.insert(id.clone());
                continue;
            }
            let Some(copy) = copied(payload, id, child) else {
                continue;
            };
            // The other database tells the name if its table left in the same way; else Postgres's way of naming does.
            let same = new.facts.iter().find(|(other, fact)| {
                on_table(other, &fact.payload, child)
                    && renamed_index(&fact.payload, other, id) == renamed_index(&copy, id, id)
                    && !old.facts.contains_key(*other)
            });
            let name = match same {
                Some((other, _)) => own_name(other).to_owned(),
                None => chosen_name(payload, id, child),
            };
            let copy_id = if id.kind == Kind::Index {
                FactId::object(Kind::Index, &child.schema, &name)
            } else {
                FactId::part(Kind::Constraint, &child.schema, &child.object, &name)
            };
            let payload = renamed_index(&copy, id, &copy_id);
            insert(catalog, copy_id, payload, child, old.needs(id));
        }
    }
}

/// Gives the child what it must have before it can join.
fn unattach(one: &Move, old: &Side<'_>, new: &Side<'_>, from: &Catalog, catalog: &mut Catalog) {
    let child = &one.child;
    set_parents(catalog, child, &one.joins);
    for (schema, parent) in &one.joins {
        let parent_stays = old.table(schema, parent).is_some_and(|a| {
            new.table(schema, parent)
                .is_some_and(|b| a.partition_by == b.partition_by)
        });
        for column in new.effective_columns(schema, parent) {
            let has = from.facts.contains_key(&FactId::part(
                Kind::Column,
                &child.schema,
                &child.object,
                &column.id.part,
            ));
            let comes_later = parent_stays
                && old
                    .effective_column(schema, parent, &column.id.part)
                    .is_none();
            // What the parent has yet to get comes through it.
            if has || !comes_later {
                add_column(
                    catalog,
                    child,
                    &column.id.part,
                    column.column,
                    column.id,
                    new,
                );
            }
        }
        for constraint in inherited_checks(new, schema, parent) {
            let own = FactId::part(
                Kind::Constraint,
                &child.schema,
                &child.object,
                &constraint.part,
            );
            if from.facts.contains_key(&own) || !parent_stays || old.find(constraint).is_some() {
                copy_part(catalog, child, constraint, &constraint.part, new);
            }
        }
        if one.bound.is_none() {
            continue;
        }
        // Its keys and indexes that are like the parent's are adopted.
        let wanted: Vec<Payload> = keys_and_indexes(new, schema, parent)
            .into_iter()
            .filter_map(|(id, payload)| {
                Some(renamed_index(&copied(payload, id, child)?, id, child))
            })
            .collect();
        for (id, fact) in &from.facts {
            if on_table(id, &fact.payload, child)
                && !catalog.facts.contains_key(id)
                && wanted.contains(&renamed_index(&fact.payload, id, child))
            {
                catalog.facts.insert(id.clone(), fact.clone());
            }
        }
    }
}

fn add_column(
    catalog: &mut Catalog,
    child: &FactId,
    name: &str,
    column: &Column,
    source: &FactId,
    side: &Side<'_>,
) {
    let id = FactId::part(Kind::Column, &child.schema, &child.object, name);
    if !catalog.facts.contains_key(&id) {
        let payload = Payload::Column(super::columns::without_identity(column));
        insert(catalog, id, payload, child, side.needs(source));
    }
}

fn copy_part(catalog: &mut Catalog, child: &FactId, part: &FactId, name: &str, side: &Side<'_>) {
    let id = FactId::part(part.kind, &child.schema, &child.object, name);
    if let Some(payload) = side.payload(part)
        && !catalog.facts.contains_key(&id)
    {
        insert(catalog, id, payload.clone(), child, side.needs(part));
    }
}

/// A fact like the parent's, with the child in the parent's place.
fn insert(catalog: &mut Catalog, id: FactId, payload: Payload, child: &FactId, needs: &[&FactId]) {
    let mut of_child: BTreeSet<FactId> = BTreeSet::from([child.clone()]);
    for need in needs {
        match need.kind {
            Kind::Table => {}
            Kind::Column => {
                of_child.insert(FactId::part(
                    Kind::Column,
                    &child.schema,
                    &child.object,
                    &need.part,
                ));
            }
            _ => {
                of_child.insert((*need).clone());
            }
        }
    }
    if let Payload::Constraint { kind: 'f', .. } = payload {
        of_child.extend(needs.iter().map(|need| (*need).clone()));
    }
    of_child.remove(&id);
    catalog.facts.insert(
        id,
        Fact {
            payload,
            needs: of_child.into_iter().collect(),
            place: Place {
                oid: 0,
                number: i16::MAX,
            },
        },
    );
}

/// CHECK constraints that children have from the table.
fn inherited_checks<'a>(side: &Side<'a>, schema: &str, table: &str) -> Vec<&'a FactId> {
    let mut checks: Vec<&'a FactId> = side
        .parts(schema, table)
        .iter()
        .copied()
        .filter(|id| match side.payload(id) {
            Some(Payload::Constraint {
                kind: 'c',
                definition,
                ..
            }) => !definition.ends_with("NO INHERIT"),
            _ => false,
        })
        .collect();
    for (s, o) in side.table(schema, table).map_or(&[][..], |t| &t.parents) {
        checks.extend(inherited_checks(side, s, o));
    }
    checks
}

/// What partitions get copies of.
fn keys_and_indexes<'a>(
    side: &Side<'a>,
    schema: &str,
    table: &str,
) -> Vec<(&'a FactId, &'a Payload)> {
    let parent = FactId::object(Kind::Table, schema, table);
    let mut found: Vec<_> = side
        .dependents(&parent)
        .iter()
        .filter_map(|&id| Some((id, side.payload(id)?)))
        .filter(|(id, payload)| on_table(id, payload, &parent))
        .collect();
    found.sort_by_key(|(id, _)| *id);
    found
}

fn on_table(id: &FactId, payload: &Payload, table: &FactId) -> bool {
    id.schema == table.schema
        && match payload {
            Payload::Constraint { kind, .. } => *kind != 'c' && id.object == table.object,
            Payload::Index { on, .. } => *on == table.object,
            _ => false,
        }
}

/// The parent's key or index, on the child.
fn copied(payload: &Payload, id: &FactId, child: &FactId) -> Option<Payload> {
    match payload {
        Payload::Constraint { .. } => Some(payload.clone()),
        Payload::Index { definition, .. } => {
            let unique = if definition.starts_with("CREATE UNIQUE ") {
                "UNIQUE "
            } else {
                ""
            };
            let using = &definition[quote::find_top(definition, " USING ")?..];
            Some(Payload::Index {
                definition: format!(
                    "CREATE {unique}INDEX {} ON {}{using}",
                    quote::ident(&id.object),
                    quote::object(child)
                ),
                on: child.object.clone(),
                clustered: false,
                statistics: std::collections::BTreeMap::new(),
            })
        }
        _ => None,
    }
}

/// The same definition under another name.
fn renamed_index(payload: &Payload, from: &FactId, to: &FactId) -> Payload {
    let mut payload = payload.clone();
    if let Payload::Index { definition, .. } = &mut payload {
        let named = |id: &FactId| format!("INDEX {} ON ", quote::ident(&id.object));
        *definition = definition.replacen(&named(from), &named(to), 1);
    }
    payload
}

fn own_name(id: &FactId) -> &str {
    if id.part.is_empty() {
        &id.object
    } else {
        &id.part
    }
}

/// The name that Postgres chose for the copy (`ChooseIndexName`); foreign keys keep theirs.
fn chosen_name(payload: &Payload, id: &FactId, child: &FactId) -> String {
    let (keys, suffix) = match payload {
        Payload::Constraint { kind: 'p', .. } => return limited(&child.object, "", "pkey"),
        Payload::Constraint { kind: 'f', .. } => return id.part.clone(),
        Payload::Constraint {
            kind, definition, ..
        } => (
            definition.as_str(),
            if *kind == 'x' { "excl" } else { "key" },
        ),
        Payload::Index { definition, .. } => (
            quote::find_top(definition, " USING ").map_or("", |at| &definition[at..]),
            "idx",
        ),
        _ => return id.object.clone(),
    };
    let list = quote::parenthesized(keys).map_or("", |(inner, _)| inner);
    let columns: Vec<String> = quote::split_top(list, ',')
        .into_iter()
        .map(|element| {
            let key = key_expression(element).unwrap_or_default();
            match quote::leading_ident(&key) {
                Some((name, rest)) if !rest.starts_with('.') => name,
                _ => "expr".to_owned(),
            }
        })
        .collect();
    limited(&child.object, &columns.join("_"), suffix)
}

/// `makeObjectName`: the longer of the two names is cut until all fit into 63 bytes.
fn limited(table: &str, columns: &str, suffix: &str) -> String {
    let (mut one, mut two) = (table.to_owned(), columns.to_owned());
    let room = 63 - 1 - suffix.len() - usize::from(!columns.is_empty());
    while one.len() + two.len() > room {
        if one.len() > two.len() {
            one.pop();
        } else {
            two.pop();
        }
    }
    if two.is_empty() {
        format!("{one}_{suffix}")
    } else {
        format!("{one}_{two}_{suffix}")
    }
}

impl<'a> Writer<'a, '_> {
    /// The moves themselves: leaving before anything else about the table, joining after it.
    pub(super) fn move_tables(&mut self) {
        for one in &self.moves.moves {
            let Some(id) = self.to.find(&one.child) else {
                continue;
            };
            let name = quote::object(id);
            let changed = |sql: String| super::Statement {
                sql,
                serves: Some(id.clone()),
                makes: Some(id.clone()),
                evaluates: true,
            };
            let mut detach = Vec::new();
            for (schema, parent) in &one.leaves {
                let parent_name = quote::qualified(schema, parent);
                detach.push(changed(if one.was_partition {
                    format!("ALTER TABLE {parent_name} DETACH PARTITION {name}")
                } else {
                    format!("ALTER TABLE {name} NO INHERIT {parent_name}")
                }));
                self.order_leaving(id, schema, parent);
            }
            if !detach.is_empty() {
                self.graph
                    .add((id, Step::Detach), Rank { phase: 0, order: 0 }, detach);
                self.graph.edge((id, Step::Detach), (id, Step::Attach));
            }
            let mut attach = Vec::new();
            for (schema, parent) in &one.joins {
                let parent_name = quote::qualified(schema, parent);
                attach.push(match &one.bound {
                    Some(bound) => changed(format!(
                        "ALTER TABLE {parent_name} ATTACH PARTITION {name} {bound}"
                    )),
                    None => changed(format!("ALTER TABLE {name} INHERIT {parent_name}")),
                });
                self.order_joining(id, schema, parent);
            }
            if !attach.is_empty() {
                let rank = Rank {
                    phase: 1,
                    order: order::ATTACH,
                };
                self.graph.add((id, Step::Attach), rank, attach);
            }
        }
    }

    fn order_leaving(&mut self, id: &'a FactId, schema: &str, parent: &str) {
        for side in [self.from, self.to] {
            for &part in side
                .parts(&id.schema, &id.object)
                .iter()
                .chain(side.dependents(id))
            {
                self.graph.edge((id, Step::Detach), (part, Step::Drop));
                self.graph.edge((id, Step::Detach), (part, Step::Make));
            }
        }
        let Some(parent) = self.from.container(schema, parent) else {
            return;
        };
        self.graph.edge((id, Step::Detach), (parent, Step::Drop));
        for &part in self
            .from
            .parts(&parent.schema, &parent.object)
            .iter()
            .chain(self.from.dependents(parent))
        {
            if self.moves.before_detach.contains(part) {
                self.graph.edge((part, Step::Drop), (id, Step::Detach));
            } else if matches!(part.kind, Kind::Column | Kind::Constraint) {
                self.graph.edge((id, Step::Detach), (part, Step::Drop));
            }
        }
        for &part in self.to.parts(&parent.schema, &parent.object) {
            self.graph.edge((id, Step::Detach), (part, Step::Make));
        }
    }

    fn order_joining(&mut self, id: &'a FactId, schema: &str, parent: &str) {
        self.graph.edge((id, Step::Make), (id, Step::Attach));
        for side in [self.from, self.to] {
            for &part in side.parts(&id.schema, &id.object) {
                for step in [Step::Drop, Step::Make] {
                    self.graph.edge((part, step), (id, Step::Attach));
                }
            }
        }
        let Some(parent) = self.to.container(schema, parent) else {
            return;
        };
        self.graph.edge((parent, Step::Make), (id, Step::Attach));
        let columns = self.to.effective_columns(&parent.schema, &parent.object);
        let checks = inherited_checks(self.to, &parent.schema, &parent.object);
        for part in columns.into_iter().map(|c| c.id).chain(checks) {
            let own = FactId {
                schema: id.schema.clone(),
                object: id.object.clone(),
                ..part.clone()
            };
            let through_parent =
                self.actions.of(part) == Action::Create && self.to.find(&own).is_none();
            if through_parent {
                self.graph.edge((id, Step::Attach), (part, Step::Make));
            } else {
                self.graph.edge((part, Step::Make), (id, Step::Attach));
            }
        }
        for &part in self.from.parts(&parent.schema, &parent.object) {
            self.graph.edge((part, Step::Drop), (id, Step::Attach));
        }
    }
}
