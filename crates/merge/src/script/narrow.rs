//! The part of two catalogs that a script between them has to do with: a few edits in a large schema concern a few facts.
//!
//! What differs may move whatever stands on it, at any distance. To write about one of those facts, the rest of its table or
//! view must be known, and all that these need. Nothing else is looked at. (Types and what belongs to the whole database are
//! kept, since they are found by names in texts, too.)

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use super::Rename;
use crate::{
    catalog::{Catalog, Difference, Fact, FactId, Kind, Payload},
    parallel::both,
};

/// Schema and name: a table and its parts, what tells of either, and its indexes.
type Unit<'c> = (&'c str, &'c str);

/// Both catalogs without the facts that matter to no statement. As they are, where that would leave out little.
pub fn narrowed<'c>(
    from: &'c Catalog,
    to: &'c Catalog,
    renames: &[Rename],
) -> (Cow<'c, Catalog>, Cow<'c, Catalog>) {
    let all: Vec<Difference<'c>> = from.walk(to).collect();
    let differing: Vec<usize> = (0..all.len())
        .filter(|&number| all[number].differs())
        .collect();
    if differing.len() > all.len() / 4 {
        return (Cow::Borrowed(from), Cow::Borrowed(to));
    }
    let field = Field::new(all);
    let mut moving = field.moving(differing, renames);
    field.include_surroundings(&mut moving);
    if moving.iter().filter(|kept| **kept).count() > field.all.len() / 4 {
        return (Cow::Borrowed(from), Cow::Borrowed(to));
    }
    let part = |catalog: &Catalog, side: fn(&Difference<'c>) -> Option<&'c Fact>| {
        let facts: BTreeMap<FactId, Fact> = field
            .all
            .iter()
            .zip(&moving)
            .filter(|(both, kept)| **kept || is_global(both.id))
            .filter_map(|(both, _)| Some((both.id.clone(), side(both)?.clone())))
            .collect();
        Cow::Owned(Catalog {
            server_version: catalog.server_version,
            facts,
            managed: catalog.managed.clone(),
            unmodelled: Vec::new(),
        })
    };
    (part(from, |both| both.old), part(to, |both| both.new))
}

/// Few, and found by more than what needs them.
fn is_global(id: &FactId) -> bool {
    matches!(
        id.subject_kind(),
        Kind::Schema
            | Kind::Extension
            | Kind::Collation
            | Kind::Enum
            | Kind::Domain
            | Kind::Composite
            | Kind::Range
            | Kind::DefaultPrivilege
            | Kind::Publication
            | Kind::EventTrigger
    )
}

/// The facts of both catalogs, by number.
struct Field<'c> {
    all: Vec<Difference<'c>>,
    members: HashMap<Unit<'c>, Vec<usize>>,
    /// Those outside of a unit that need something in it.
    needers: HashMap<Unit<'c>, Vec<usize>>,
}

impl<'c> Field<'c> {
    fn new(all: Vec<Difference<'c>>) -> Self {
        let (needers, members) = both(|| needers(&all), || members(&all));
        Self {
            all,
            members,
            needers,
        }
    }

    /// What differs or is renamed, and what stands on it.
    fn moving(&self, differing: Vec<usize>, renames: &[Rename]) -> Vec<bool> {
        let mut open = differing;
        for rename in renames {
            open.extend(self.members_of(unit(&rename.to)));
        }
        let mut moving = vec![false; self.all.len()];
        while let Some(number) = open.pop() {
            if std::mem::replace(&mut moving[number], true) {
                continue;
            }
            let id = self.all[number].id;
            if id.of.is_some() {
                continue;
            }
            let whole = id.part.is_empty();
            if whole {
                open.extend(self.members_of(unit(id)));
            }
            let stands_on_it = |needer: &usize| {
                let needer = &self.all[*needer];
                // Children have their parents' parts without needing them one by one.
                let inherits = needer.id.kind == Kind::Table && needer.id.of.is_none();
                let mut found = needs(needer);
                found.any(|need| need == id || ((whole || inherits) && unit(need) == unit(id)))
            };
            let needers = self.needers.get(&unit(id)).into_iter().flatten();
            open.extend(needers.copied().filter(stands_on_it));
            // Parts of one table need each other, too.
            open.extend(
                self.members_of(unit(id))
                    .iter()
                    .copied()
                    .filter(stands_on_it),
            );
        }
        moving
    }

    /// Adds the rest of each unit, and all that is needed there.
    fn include_surroundings(&self, kept: &mut [bool]) {
        let mut open: Vec<usize> = (0..kept.len()).filter(|&number| kept[number]).collect();
        let mut done = vec![false; kept.len()];
        while let Some(number) = open.pop() {
            if std::mem::replace(&mut done[number], true) {
                continue;
            }
            kept[number] = true;
            let both = &self.all[number];
            open.extend(self.members_of(unit(both.id)));
            if let Some(on) = on(both) {
                open.extend(self.members_of(on));
            }
            for need in needs(both).filter(|need| need.kind != Kind::Schema) {
                open.extend(self.members_of(unit(need)));
            }
        }
    }

    fn members_of<'s>(&'s self, unit: Unit<'s>) -> &'s [usize] {
        self.members.get(&unit).map_or(&[], Vec::as_slice)
    }
}

fn members<'c>(all: &[Difference<'c>]) -> HashMap<Unit<'c>, Vec<usize>> {
    let mut members: HashMap<Unit<'c>, Vec<usize>> = HashMap::new();
    let mut number = 0;
    // Those of one kind come one after the other.
    for run in all.chunk_by(|a, b| unit(a.id) == unit(b.id)) {
        let unit = members.entry(unit(run[0].id)).or_default();
        unit.extend(number..number + run.len());
        number += run.len();
    }
    for (number, both) in all.iter().enumerate() {
        if let Some(on) = on(both)
            && on != unit(both.id)
        {
            members.entry(on).or_default().push(number);
        }
    }
    members
}

fn needers<'c>(all: &[Difference<'c>]) -> HashMap<Unit<'c>, Vec<usize>> {
    let mut needers: HashMap<Unit<'c>, Vec<usize>> = HashMap::new();
    for (number, both) in all.iter().enumerate() {
        let own = unit(both.id);
        let mut last = own;
        for need in needs(both) {
            let there = unit(need);
            if there != last && there != own && need.kind != Kind::Schema {
                needers.entry(there).or_default().push(number);
                last = there;
            }
        }
    }
    needers
}

fn unit(id: &FactId) -> Unit<'_> {
    (&id.schema, &id.object)
}

/// On either side, where sequences are owned by a column as if they needed it.
fn needs<'c>(both: &Difference<'c>) -> impl Iterator<Item = &'c FactId> + use<'c> {
    let same = matches!((both.old, both.new), (Some(old), Some(new)) if old.needs == new.needs);
    let sides = [both.old, both.new.filter(|_| !same)];
    let needs = sides.into_iter().flatten().flat_map(|fact| &fact.needs);
    let owners = [both.old, both.new].into_iter().flatten().filter_map(owner);
    needs.chain(owners)
}

fn owner(fact: &Fact) -> Option<&FactId> {
    match &fact.payload {
        Payload::Sequence(sequence) => sequence.owned_by.as_ref(),
        _ => None,
    }
}

/// The unit of an index's or statistics object's table.
fn on<'c>(both: &Difference<'c>) -> Option<Unit<'c>> {
    match &both.old.or(both.new)?.payload {
        Payload::Index { on, .. } | Payload::Statistics { on, .. } => Some((&both.id.schema, on)),
        _ => None,
    }
}
