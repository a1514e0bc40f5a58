//! What the branch's migrations do to the parent is the branch's own work, not an edit of the parent: both T0s are moved
//! forward by it, so that the three-way decision is about what is left.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use crate::catalog::{Catalog, Fact, FactId, Kind, Payload, Place};

/// Both T0s with what the migrations brought. Facts that the parent had edited itself stay as they were: there the
/// migration ran on top of an edit, and what differs now is a question for people.
///
/// `migrated` is `parent` after the migrations, with its ids ([`crate::apply`] keeps them).
pub(crate) fn onto_migrations<'a>(
    parent_t0: &'a Catalog,
    parent: &Catalog,
    migrated: Option<&Catalog>,
    branch_t0: &'a Catalog,
    branch: &Catalog,
) -> (Cow<'a, Catalog>, Cow<'a, Catalog>) {
    let Some(migrated) = migrated else {
        return (Cow::Borrowed(parent_t0), Cow::Borrowed(branch_t0));
    };
    let payload =
        |catalog: &'_ Catalog, id: &FactId| catalog.facts.get(id).map(|fact| fact.payload.clone());
    let touched = parent.diff(migrated);
    let edited: BTreeSet<&FactId> = touched
        .iter()
        .filter(|id| payload(parent, id) != payload(parent_t0, id))
        .collect();
    // A renamed fact counts under its former name.
    let former: BTreeMap<(Kind, Place), &FactId> = parent
        .facts
        .iter()
        .filter(|(_, fact)| fact.place.oid != 0)
        .map(|(id, fact)| ((id.kind, fact.place), id))
        .collect();
    let (mut new_parent_t0, mut new_branch_t0) = (parent_t0.clone(), branch_t0.clone());
    for id in &touched {
        let now = migrated.facts.get(id);
        let was = now.and_then(|fact| former.get(&(id.kind, fact.place)));
        if edited.contains(id) || was.is_some_and(|was| edited.contains(was)) {
            continue;
        }
        let Some(fact) = now else {
            new_parent_t0.facts.remove(id);
            new_branch_t0.facts.remove(id);
            continue;
        };
        let there = branch.facts.get(id).or_else(|| branch_t0.facts.get(id));
        new_parent_t0.facts.insert(id.clone(), fact.clone());
        let on_branch = with_ids_of(fact, there);
        new_branch_t0.facts.insert(id.clone(), on_branch);
    }
    (Cow::Owned(new_parent_t0), Cow::Owned(new_branch_t0))
}

/// As it would have been read on the branch right after the migration.
fn with_ids_of(fact: &Fact, there: Option<&Fact>) -> Fact {
    let mut fact = fact.clone();
    fact.place = there.map(|there| there.place).unwrap_or_default();
    match (&mut fact.payload, there.map(|there| &there.payload)) {
        (Payload::Enum { labels }, Some(Payload::Enum { labels: known })) => {
            for label in labels {
                let same = known.iter().find(|known| known.name == label.name);
                label.oid = same.map_or(0, |known| known.oid);
            }
        }
        (Payload::Composite { attributes }, Some(Payload::Composite { attributes: known })) => {
            for attribute in attributes {
                let same = known.iter().find(|known| known.name == attribute.name);
                attribute.number = same.map_or(0, |known| known.number);
            }
        }
        _ => {}
    }
    fact
}
