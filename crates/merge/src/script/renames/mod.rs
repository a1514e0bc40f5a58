//! Renames come first: in the script, and in the model of the database that the rest of the script is written for.
//!
//! Postgres follows a rename in all texts that it prints; here they are followed as well as that can be done without
//! it. What comes out wrong is at worst written anew.

mod model;

use self::model::{rename_in, renamed};
use super::{Rename, Statement, kinds, quote};
use crate::catalog::{Catalog, Fact, FactId, Kind, Payload};

/// The catalog after the renames, and their statements.
pub fn apply(from: &Catalog, renames: &[Rename]) -> (Catalog, Vec<Statement>) {
    let mut catalog = from.clone();
    let mut statements = Vec::new();
    let mut pending: Vec<Rename> = renames.to_vec();
    // Parts are named by what holds them, so they go first; schemas, which all names carry, last.
    pending.sort_by_key(|r| (depth(&r.from), r.from.clone()));
    let replayed = |r: &Rename| exists(from, &r.to) && !exists(from, &r.from);
    let mut model: Vec<bool> = pending.iter().map(|r| !replayed(r)).collect();
    let mut temporary = 0;
    while !pending.is_empty() {
        let free = (0..pending.len()).find(|&at| {
            depth(&pending[at].from) == depth(&pending[0].from)
                && !pending.iter().enumerate().any(|(other, r)| {
                    other != at && same_name(&r.from, &step_to(&pending[at], &pending))
                })
        });
        let at = free.unwrap_or(0);
        let to = step_to(&pending[at], &pending);
        let taken = model[at]
            .then(|| occupant(&catalog, &pending[at].from, &to))
            .flatten();
        if free.is_none() || taken.is_some() {
            // Out of the way under a name that nothing has: to come back under its own, or to be dropped.
            let source = taken.clone().unwrap_or_else(|| pending[at].from.clone());
            let aside = loop {
                temporary += 1;
                let name = aside(own_name(&source), temporary);
                let id = with_name(&source, &name);
                if !exists(&catalog, &id) {
                    break id;
                }
            };
            let serves = if taken.is_some() {
                source.clone()
            } else {
                pending[at].from.clone()
            };
            statements.extend(
                rename_sql(&catalog, &source, &aside)
                    .into_iter()
                    .map(|sql| Statement {
                        sql,
                        serves: Some(serves.clone()),
                        makes: None,
                        evaluates: false,
                    }),
            );
            if taken.is_some() || model[at] {
                rename_in(&mut catalog, &source, &aside);
            }
            if taken.is_none() {
                pending[at].from = aside;
            } else if let Some(other) = pending.iter_mut().find(|r| r.from == source) {
                // It has a name of its own to go to.
                other.from = aside;
            }
            continue;
        }
        let rename = pending.remove(at);
        let in_model = model.remove(at);
        let original = renames
            .iter()
            .find(|r| r.to == rename.to)
            .map_or_else(|| rename.from.clone(), |r| r.from.clone());
        let home = FactId::object(Kind::Schema, "", &to.schema);
        if to.schema != rename.from.schema && in_model && !catalog.facts.contains_key(&home) {
            statements.push(Statement {
                sql: format!("CREATE SCHEMA {}", quote::ident(&to.schema)),
                serves: Some(home.clone()),
                makes: None,
                evaluates: false,
            });
            catalog.facts.insert(
                home,
                Fact {
                    payload: Payload::Schema,
                    needs: crate::catalog::Needs::default(),
                    place: crate::catalog::Place::default(),
                },
            );
        }
        statements.extend(
            rename_sql(&catalog, &rename.from, &to)
                .into_iter()
                .map(|sql| Statement {
                    sql,
                    serves: Some(original.clone()),
                    makes: None,
                    evaluates: false,
                }),
        );
        if in_model {
            rename_in(&mut catalog, &rename.from, &to);
        }
        // What is still to be renamed is known by its new container from here on.
        if rename.from.part.is_empty() {
            for other in &mut pending {
                other.from = renamed(&other.from, &rename.from, &to);
            }
        }
    }
    (catalog, statements)
}

/// The name that a fact had before the renames.
pub fn old_id(id: &FactId, renames: &[Rename]) -> FactId {
    let mut old = id.clone();
    // The container's rename may be known by the new schema, the part's by the new container.
    for rename in renames {
        if rename.to.part == old.part && same_name(&rename.to, &old) {
            old = FactId {
                kind: id.kind,
                of: id.of,
                grantee: id.grantee.clone(),
                ..rename.from.clone()
            };
            return old;
        }
    }
    for rename in renames {
        if rename.to.part.is_empty()
            && rename.kind != Kind::Schema
            && rename.to.schema == old.schema
            && rename.to.object == old.object
        {
            old.schema.clone_from(&rename.from.schema);
            old.object.clone_from(&rename.from.object);
        }
    }
    for rename in renames {
        if rename.kind == Kind::Schema && rename.to.object == old.schema {
            old.schema.clone_from(&rename.from.object);
        }
    }
    old
}

/// Parts first, then objects, then schemas.
fn depth(id: &FactId) -> u8 {
    match id {
        _ if id.kind == Kind::Schema => 2,
        _ if id.part.is_empty() => 1,
        _ => 0,
    }
}

/// Where one rename leads while those of its container and schema are still to come.
fn step_to(rename: &Rename, pending: &[Rename]) -> FactId {
    let mut to = rename.to.clone();
    if depth(&rename.from) == 0 {
        to.schema.clone_from(&rename.from.schema);
        to.object.clone_from(&rename.from.object);
    } else if depth(&rename.from) == 1
        && let Some(schema) = pending
            .iter()
            .find(|r| r.kind == Kind::Schema && r.to.object == to.schema)
    {
        to.schema.clone_from(&schema.from.object);
    }
    to
}

fn same_name(a: &FactId, b: &FactId) -> bool {
    a.schema == b.schema
        && a.object == b.object
        && a.part == b.part
        && space(a.kind) == space(b.kind)
}

/// Kinds that share their names.
fn space(kind: Kind) -> u8 {
    match kind {
        Kind::Table
        | Kind::View
        | Kind::MaterializedView
        | Kind::Sequence
        | Kind::Index
        | Kind::Composite
        | Kind::Enum
        | Kind::Domain
        | Kind::Range => 0,
        Kind::Function | Kind::Procedure | Kind::Aggregate => 1,
        other => 2 + other as u8,
    }
}

fn exists(catalog: &Catalog, id: &FactId) -> bool {
    match (id.kind, id.part.is_empty()) {
        (Kind::Enum | Kind::Composite, false) => {
            let whole = FactId {
                part: String::new(),
                ..id.clone()
            };
            match catalog.facts.get(&whole).map(|f| &f.payload) {
                Some(Payload::Enum { labels }) => labels.iter().any(|l| l.name == id.part),
                Some(Payload::Composite { attributes }) => {
                    attributes.iter().any(|a| a.name == id.part)
                }
                _ => false,
            }
        }
        _ => catalog.facts.contains_key(id),
    }
}

/// What has the name now, if it is not the thing itself.
fn occupant(catalog: &Catalog, from: &FactId, to: &FactId) -> Option<FactId> {
    let kinds: &[Kind] = match space(from.kind) {
        0 => &[
            Kind::Table,
            Kind::View,
            Kind::MaterializedView,
            Kind::Sequence,
            Kind::Index,
            Kind::Composite,
            Kind::Enum,
            Kind::Domain,
            Kind::Range,
        ],
        1 => &[Kind::Function, Kind::Procedure, Kind::Aggregate],
        _ => &[from.kind],
    };
    kinds
        .iter()
        .map(|&kind| FactId { kind, ..to.clone() })
        .find(|id| {
            id != from && exists(catalog, id) && (id.part.is_empty() || id.kind == from.kind)
        })
}

fn own_name(id: &FactId) -> &str {
    if id.part.is_empty() {
        quote::split_routine(&id.object).0
    } else {
        &id.part
    }
}

fn with_name(id: &FactId, name: &str) -> FactId {
    let mut id = id.clone();
    if !id.part.is_empty() {
        name.clone_into(&mut id.part);
    } else if space(id.kind) == 1 {
        id.object = format!("{name}({})", quote::split_routine(&id.object).1);
    } else {
        name.clone_into(&mut id.object);
    }
    id
}

/// A name of at most 63 bytes, Postgres's limit.
fn aside(name: &str, number: u32) -> String {
    let suffix = format!("_cp_merge_{number}");
    let mut end = name.len().min(63 - suffix.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &name[..end])
}

fn rename_sql(catalog: &Catalog, from: &FactId, to: &FactId) -> Vec<String> {
    let object = quote::object(from);
    let (part, new_part) = (quote::ident(&from.part), quote::ident(&to.part));
    let table = |kind| FactId::object(kind, &from.schema, &from.object);
    let sql = match from.kind {
        Kind::Enum if !from.part.is_empty() => format!(
            "ALTER TYPE {object} RENAME VALUE {} TO {}",
            quote::literal(&from.part),
            quote::literal(&to.part)
        ),
        Kind::Composite if !from.part.is_empty() => {
            format!("ALTER TYPE {object} RENAME ATTRIBUTE {part} TO {new_part}")
        }
        Kind::Column => {
            let what = [Kind::View, Kind::MaterializedView]
                .into_iter()
                .find(|&kind| catalog.facts.contains_key(&table(kind)))
                .map_or("TABLE", kinds::keyword);
            format!("ALTER {what} {object} RENAME COLUMN {part} TO {new_part}")
        }
        Kind::Constraint => {
            let what = if catalog.facts.contains_key(&table(Kind::Domain)) {
                "DOMAIN"
            } else {
                "TABLE"
            };
            format!("ALTER {what} {object} RENAME CONSTRAINT {part} TO {new_part}")
        }
        Kind::Trigger | Kind::Policy | Kind::Rule => {
            format!(
                "ALTER {} {part} ON {object} RENAME TO {new_part}",
                kinds::keyword(from.kind)
            )
        }
        _ => {
            let mut sql = Vec::new();
            let name = |id: &FactId| {
                if space(id.kind) == 1 {
                    quote::routine(id)
                } else {
                    quote::object(id)
                }
            };
            let word = kinds::keyword(from.kind);
            let mut now = from.clone();
            let new_name = own_name(to);
            if own_name(from) != new_name {
                sql.push(format!(
                    "ALTER {word} {} RENAME TO {}",
                    name(&now),
                    quote::ident(new_name)
                ));
                now = with_name(&now, new_name);
            }
            if from.schema != to.schema {
                sql.push(format!(
                    "ALTER {word} {} SET SCHEMA {}",
                    name(&now),
                    quote::ident(&to.schema)
                ));
            }
            return sql;
        }
    };
    vec![sql]
}
