//! Brings texts into one form: Postgres itself follows renames in them, in scratch databases.
//!
//! A text that mentions something renamed changes with it, and that is no edit. So the renames are replayed on each of the
//! four catalogs, and where a text followed one, all four are taken as that scratch database prints them. All other texts
//! stay as they are.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use sqlx::postgres::PgConnectOptions;

use super::{
    Action, Aligned, Resolutions, Sides,
    containers::{container, parts},
    edits::{Edits, same_fact},
    names::rename,
};
use crate::{
    catalog::{Catalog, FactId, Kind, Payload},
    error::Error,
    plan::with_scratch,
    script::{Rename, renames},
};

/// The sides in one set of names and texts. Makes scratch databases beside the parent's database `on`, but only where somebody
/// renamed something, or where both sides changed one thing into forms that may differ by another parse only.
///
/// What cannot be made in a scratch database is compared as it is: then texts that merely followed a rename count as edits.
///
/// # Errors
/// [`Error::Database`] when a scratch database cannot be made.
pub async fn align<'a>(
    sides: &Sides<'a>,
    resolutions: &Resolutions,
    on: &PgConnectOptions,
) -> Result<Aligned<'a>, Error> {
    let mut aligned = Aligned::by_name(sides, resolutions);
    if aligned.steps.iter().any(|steps| !steps.is_empty()) {
        follow_renames(&mut aligned, sides, on).await?;
    }
    settle_texts(&mut aligned, on).await?;
    Ok(aligned)
}

/// One catalog's texts before and after the renames, both under the final names.
struct Replayed {
    before: Catalog,
    after: Catalog,
}

async fn follow_renames(
    aligned: &mut Aligned<'_>,
    sides: &Sides<'_>,
    on: &PgConnectOptions,
) -> Result<(), Error> {
    let originals = [sides.parent_t0, sides.parent, sides.branch_t0, sides.branch];
    // By final names: what mentions anything that gets another name anywhere.
    let mut mentions: BTreeSet<FactId> = BTreeSet::new();
    for (place, catalog) in originals.into_iter().enumerate() {
        let last = |id: &FactId| aligned.moves[place].get(id).unwrap_or(id).clone();
        let steps = &aligned.steps[place];
        mentions.extend(dependents(catalog, steps).iter().map(last));
    }
    let mut replayed = Vec::new();
    for (place, catalog) in originals.into_iter().enumerate() {
        let moves = &aligned.moves[place];
        let wanted = catalog
            .facts
            .keys()
            .filter(|id| mentions.contains(moves.get(id).unwrap_or(id)))
            .chain(aligned.steps[place].iter().map(|step| &step.from));
        let part = closure(catalog, wanted);
        match replay(&part, &aligned.steps[place], moves, on).await {
            Ok(done) => replayed.push(done),
            Err(error) => {
                tracing::warn!(sqlstate = ?error.sqlstate(), "texts are compared without following renames");
                return Ok(());
            }
        }
    }
    let members: BTreeSet<FactId> = aligned
        .steps
        .iter()
        .flatten()
        .filter(|step| {
            matches!(step.kind, Kind::Enum | Kind::Composite) && !step.to.part.is_empty()
        })
        .map(|step| FactId {
            part: String::new(),
            ..step.to.clone()
        })
        .collect();
    let followed: BTreeSet<FactId> = replayed
        .iter()
        .flat_map(|replayed| {
            replayed
                .before
                .facts
                .iter()
                .filter(|(id, fact)| {
                    replayed
                        .after
                        .facts
                        .get(id)
                        .is_some_and(|after| after.payload != fact.payload)
                })
                .map(|(id, _)| id.clone())
        })
        .filter(|id| !members.contains(id))
        .collect();
    let catalogs = [
        &mut aligned.parent_t0,
        &mut aligned.parent,
        &mut aligned.branch_t0,
        &mut aligned.branch,
    ];
    for (catalog, replayed) in catalogs.into_iter().zip(&replayed) {
        take_texts(catalog, &replayed.after, &followed);
    }
    Ok(())
}

/// Facts whose texts may mention what is renamed: those that need it, its parts or what is in it, and its own parts.
fn dependents(catalog: &Catalog, steps: &[Rename]) -> Vec<FactId> {
    let renamed: BTreeSet<FactId> = steps
        .iter()
        .map(|step| match step.kind {
            Kind::Enum | Kind::Composite => FactId {
                part: String::new(),
                ..step.from.clone()
            },
            _ => step.from.clone(),
        })
        .collect();
    if renamed.is_empty() {
        return Vec::new();
    }
    let is_renamed = |id: &FactId| {
        let mut next = Some(id.clone());
        while let Some(id) = next {
            if renamed.contains(&id) {
                return true;
            }
            next = container(catalog, &id);
        }
        false
    };
    catalog
        .facts
        .iter()
        .filter(|(id, _)| has_text(id.kind))
        .filter(|(id, fact)| is_renamed(id) || fact.needs.iter().any(is_renamed))
        .map(|(id, _)| id.clone())
        .collect()
}

const fn has_text(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Schema
            | Kind::Extension
            | Kind::Owner
            | Kind::Grant
            | Kind::DefaultPrivilege
            | Kind::Comment
            | Kind::Rls
            | Kind::Enum
    )
}

/// The part of a catalog that can be made on its own: the facts wanted, all that they need, and tables with all their columns
/// (rows are read by position, too).
fn closure<'c>(catalog: &'c Catalog, wanted: impl Iterator<Item = &'c FactId>) -> Catalog {
    let mut open: Vec<FactId> = wanted.cloned().collect();
    let mut closed: BTreeSet<FactId> = BTreeSet::new();
    while let Some(id) = open.pop() {
        let id = match id.kind {
            // Labels and attributes.
            Kind::Enum | Kind::Composite => FactId {
                part: String::new(),
                ..id
            },
            _ => id,
        };
        let Some(fact) = catalog.facts.get(&id) else {
            continue;
        };
        if !closed.insert(id.clone()) {
            continue;
        }
        open.extend(fact.needs.iter().cloned());
        if id.kind == Kind::Table {
            open.extend(parts(catalog, Kind::Column, &id).cloned());
        }
        if let Payload::Sequence(sequence) = &fact.payload {
            open.extend(sequence.owned_by.clone());
        }
    }
    Catalog {
        facts: catalog
            .facts
            .iter()
            .filter(|(id, _)| closed.contains(id))
            .map(|(id, fact)| (id.clone(), fact.clone()))
            .collect(),
        server_version: catalog.server_version,
        managed: catalog.managed.clone(),
        unmodelled: Vec::new(),
    }
}

/// The facts as they read after one more parse, made in a scratch database beside `on` with all that they need.
pub(crate) async fn reparsed(
    catalog: &Catalog,
    ids: &[&FactId],
    on: &PgConnectOptions,
) -> Result<Catalog, Error> {
    let part = closure(catalog, ids.iter().copied());
    Ok(replay(&part, &[], &BTreeMap::new(), on).await?.after)
}

async fn replay(
    catalog: &Catalog,
    steps: &[Rename],
    moves: &BTreeMap<FactId, FactId>,
    on: &PgConnectOptions,
) -> Result<Replayed, Error> {
    with_scratch(on, async |scratch| {
        scratch.load(catalog).await?;
        let before = scratch.read().await?;
        if steps.is_empty() {
            let before = rename(&before, moves);
            return Ok(Replayed {
                after: before.clone(),
                before,
            });
        }
        let (_, statements) = renames::apply(catalog, steps);
        for statement in &statements {
            scratch.run(&statement.sql).await?;
        }
        let after = scratch.read().await?;
        Ok(Replayed {
            before: rename(&before, moves),
            after,
        })
    })
    .await
}

/// Attributes keep their numbers, by which they are known.
fn take_texts(catalog: &mut Cow<'_, Catalog>, from: &Catalog, ids: &BTreeSet<FactId>) {
    for id in ids {
        let (Some(fact), Some(text)) = (catalog.facts.get(id), from.facts.get(id)) else {
            continue;
        };
        let mut payload = text.payload.clone();
        if let (Payload::Composite { attributes: new }, Payload::Composite { attributes: old }) =
            (&mut payload, &fact.payload)
        {
            for (new, old) in new.iter_mut().zip(old) {
                new.number = old.number;
            }
        }
        if let Some(fact) = catalog.to_mut().facts.get_mut(id) {
            fact.payload = payload;
        }
    }
}

/// What both sides changed into texts that differ may be the same after one more parse.
async fn settle_texts(aligned: &mut Aligned<'_>, on: &PgConnectOptions) -> Result<(), Error> {
    let branch = Edits::between(&aligned.branch_t0, &aligned.branch);
    let touched = |id: &FactId| {
        let (was, is) = (&aligned.parent_t0.facts, &aligned.parent.facts);
        !same_fact(was.get(id), is.get(id))
    };
    // Mostly so, and known without looking through the parent.
    if !branch.made.keys().any(touched) {
        return Ok(());
    }
    let parent = Edits::between(&aligned.parent_t0, &aligned.parent);
    let doubtful: BTreeSet<FactId> = branch
        .made
        .iter()
        .filter(|(id, action)| {
            **action != Action::Drop
                && parent
                    .made
                    .get(id)
                    .is_some_and(|theirs| *theirs != Action::Drop)
        })
        .map(|(id, _)| id)
        .filter(|id| is_parsed(id, &aligned.branch))
        .filter(|id| !same_fact(aligned.parent.facts.get(id), aligned.branch.facts.get(id)))
        .cloned()
        .collect();
    if doubtful.is_empty() {
        return Ok(());
    }
    let mut parsed = Vec::new();
    for catalog in [&aligned.parent, &aligned.branch] {
        let part = closure(catalog, doubtful.iter());
        match replay(&part, &[], &BTreeMap::new(), on).await {
            Ok(done) => parsed.push(done.after),
            Err(error) => {
                tracing::warn!(sqlstate = ?error.sqlstate(), "texts are compared as they are");
                return Ok(());
            }
        }
    }
    let equal: BTreeSet<FactId> = doubtful
        .into_iter()
        .filter(|id| {
            let (theirs, ours) = (parsed[0].facts.get(id), parsed[1].facts.get(id));
            theirs.is_some() && same_fact(theirs, ours)
        })
        .collect();
    let parent = aligned.parent.clone();
    take_texts(&mut aligned.branch, &parent, &equal);
    Ok(())
}

/// Kinds whose payload Postgres prints from a parsed form.
fn is_parsed(id: &FactId, catalog: &Catalog) -> bool {
    match catalog.facts.get(id).map(|fact| &fact.payload) {
        Some(Payload::Function { atomic, .. }) => *atomic,
        Some(Payload::Column(column)) => column.default.is_some() || column.generated.is_some(),
        Some(Payload::Domain { default, .. }) => default.is_some(),
        Some(
            Payload::Constraint { .. }
            | Payload::Index { .. }
            | Payload::View { .. }
            | Payload::MaterializedView { .. }
            | Payload::Rule { .. }
            | Payload::Statistics { .. }
            | Payload::Trigger { .. }
            | Payload::Policy { .. }
            | Payload::Table(_),
        ) => true,
        _ => false,
    }
}
