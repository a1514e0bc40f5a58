//! Brings the four catalogs into one set of names.
//!
//! An object that has the id of one of that side's T0 and another name was renamed. The names of all four catalogs become
//! the final ones: the branch's where the branch renamed, else the parent's. What is left then differs by edits only.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use super::{Choice, Direction, Resolutions, Sides, containers::container};
use crate::{
    catalog::{Catalog, Fact, FactId, Kind, Payload, Place},
    parallel::both,
    script::{Rename, quote},
};

/// The four catalogs in one set of names, and what was renamed.
#[derive(Clone, Debug, Default)]
pub struct Aligned<'a> {
    pub parent_t0: Cow<'a, Catalog>,
    pub parent: Cow<'a, Catalog>,
    pub branch_t0: Cow<'a, Catalog>,
    pub branch: Cow<'a, Catalog>,
    /// The branch's renames, from the parent's names now to the final ones.
    pub renames: Vec<Rename>,
    /// All renames on the branch, from T0's names to the branch's.
    pub detected: Vec<Rename>,
    /// Final names of what the parent renamed.
    pub renamed_by_parent: BTreeSet<FactId>,
    /// Final names to T0's, where they differ.
    pub t0_names: BTreeMap<FactId, FactId>,
    /// Renames that cannot be: by T0's name, with the reason; semantic or not.
    pub refused: Vec<Refused>,
    /// For each catalog (parent's T0, parent, branch's T0, branch) what has to be renamed in it to come to the final names.
    pub(super) steps: [Vec<Rename>; 4],
    /// For each catalog its names to the final ones, where they differ.
    pub(super) moves: [BTreeMap<FactId, FactId>; 4],
    pub(super) direction: Direction,
}

#[derive(Clone, Debug)]
pub struct Refused {
    pub id: FactId,
    pub why: String,
    pub semantic: bool,
}

/// A label or an attribute that was renamed: its type by T0's name, its old and its new name.
type RenamedMember = (FactId, String, String);

/// A type's labels or attributes, by number.
type Members = Vec<(u32, String)>;

/// One side: what each object was called at T0, and what it is called now.
struct Side<'a> {
    t0: &'a Catalog,
    /// T0's name to the name now, where they differ.
    moved: BTreeMap<FactId, FactId>,
    /// Those that somebody renamed themselves, not by renaming what holds them.
    direct: BTreeMap<FactId, FactId>,
    /// The name now to T0's, of all that has an id.
    origins: HashMap<FactId, FactId>,
}

impl<'a> Side<'a> {
    fn new(t0: &'a Catalog, now: &'a Catalog) -> Self {
        let mut side = Self {
            t0,
            moved: moved(t0, now),
            direct: BTreeMap::new(),
            origins: HashMap::new(),
        };
        if side.moved.is_empty() {
            return side;
        }
        let old: HashMap<(Kind, Place), &FactId> = placed(t0).collect();
        for (place, id) in placed(now) {
            if let Some(was) = old.get(&place) {
                side.origins.insert(id.clone(), (*was).clone());
            } else if t0.facts.contains_key(id) && !side.moved.contains_key(id) {
                side.origins.insert(id.clone(), id.clone());
            }
        }
        side.direct = side
            .moved
            .iter()
            .filter(|(was, is)| side.is_direct(was, is))
            .map(|(was, is)| (was.clone(), is.clone()))
            .collect();
        side
    }

    fn is_direct(&self, was: &FactId, is: &FactId) -> bool {
        if was.kind == Kind::Rls {
            return false;
        }
        if leaf(was) != leaf(is) {
            return true;
        }
        // What goes with its table, and what goes with its schema.
        if !was.part.is_empty() || goes_with_table(self.t0, was) {
            return false;
        }
        let schema = FactId::object(Kind::Schema, "", &was.schema);
        let schema = self.moved.get(&schema).unwrap_or(&schema);
        is.schema != schema.object
    }
}

/// What has another name than at T0. Nearly all facts have the same name and id as they had, so the two catalogs are walked
/// side by side, and only the others are looked up.
fn moved(t0: &Catalog, now: &Catalog) -> BTreeMap<FactId, FactId> {
    let (mut old, mut new) = (HashMap::new(), Vec::new());
    for both in t0.walk(now) {
        let place =
            |fact: Option<&Fact>| fact.map(|fact| fact.place).filter(|place| place.oid != 0);
        let (was, is) = (place(both.old), place(both.new));
        if was == is {
            continue;
        }
        if let Some(was) = was {
            old.insert((both.id.kind, was), both.id);
        }
        if let Some(is) = is {
            new.push(((both.id.kind, is), both.id));
        }
    }
    new.into_iter()
        .filter_map(|(place, is)| Some(((*old.get(&place)?).clone(), is.clone())))
        .collect()
}

/// Facts that Postgres keeps under an id of their own.
fn placed(catalog: &Catalog) -> impl Iterator<Item = ((Kind, Place), &FactId)> {
    catalog
        .facts
        .iter()
        .filter(|(_, fact)| fact.place.oid != 0)
        .map(|(id, fact)| ((id.kind, fact.place), id))
}

/// The name of the thing itself: the part's, or the object's without a function's types.
fn leaf(id: &FactId) -> &str {
    match id.kind {
        _ if !id.part.is_empty() => &id.part,
        Kind::Function | Kind::Procedure | Kind::Aggregate => types_of(&id.object).0,
        _ => &id.object,
    }
}

/// `f(integer)` into `f` and `(integer)`.
fn types_of(object: &str) -> (&str, &str) {
    object.split_at(quote::split_routine(object).0.len())
}

fn goes_with_table(catalog: &Catalog, id: &FactId) -> bool {
    match id.kind {
        Kind::Index => true,
        Kind::Sequence => matches!(
            catalog.facts.get(id).map(|fact| &fact.payload),
            Some(Payload::Sequence(sequence)) if sequence.owned_by.is_some()
        ),
        _ => false,
    }
}

impl<'a> Aligned<'a> {
    /// Names, and what payloads say in names outside of texts. Texts stay as they are.
    pub fn by_name(sides: &Sides<'a>, resolutions: &Resolutions) -> Self {
        let (branch, parent) = both(
            || Side::new(sides.branch_t0, sides.branch),
            || Side::new(sides.parent_t0, sides.parent),
        );
        if branch.moved.is_empty() && parent.moved.is_empty() {
            let mut aligned = Self {
                parent_t0: Cow::Borrowed(sides.parent_t0),
                parent: Cow::Borrowed(sides.parent),
                branch_t0: Cow::Borrowed(sides.branch_t0),
                branch: Cow::Borrowed(sides.branch),
                direction: sides.direction,
                ..Self::default()
            };
            aligned.note_members(sides);
            return aligned;
        }
        let mut refused = Vec::new();
        let wanted = wanted(&branch, &parent, sides, resolutions, &mut refused);
        let finals = Finals::new(&branch, &parent, &wanted, resolutions);
        let branch_now = without_taken_names(
            sides.branch,
            &branch,
            &finals,
            sides.direction,
            &mut refused,
        );
        let moves = [
            moves(sides.parent_t0, |id| finals.of(sides.parent_t0, id)),
            moves(sides.parent, |id| finals.now(sides.parent, &parent, id)),
            moves(sides.branch_t0, |id| finals.of(sides.branch_t0, id)),
            moves(&branch_now, |id| finals.now(&branch_now, &branch, id)),
        ];
        let here = BTreeMap::new();
        let steps = [
            finals.steps(sides.parent_t0, &here),
            finals.steps(sides.parent, &parent.moved),
            finals.steps(sides.branch_t0, &here),
            finals.steps(sides.branch, &branch.moved),
        ];
        let t0_names = [&moves[0], &moves[2]]
            .into_iter()
            .flatten()
            .map(|(was, is)| (is.clone(), was.clone()))
            .collect();
        let mut aligned = Self {
            parent_t0: Cow::Owned(rename(sides.parent_t0, &moves[0])),
            parent: Cow::Owned(rename(sides.parent, &moves[1])),
            branch_t0: Cow::Owned(rename(sides.branch_t0, &moves[2])),
            branch: Cow::Owned(rename(&branch_now, &moves[3])),
            renames: steps[1].clone(),
            detected: branch
                .direct
                .iter()
                .map(|(from, to)| Rename {
                    kind: from.kind,
                    from: from.clone(),
                    to: to.clone(),
                })
                .collect(),
            renamed_by_parent: parent
                .direct
                .keys()
                .map(|was| finals.of(sides.parent_t0, was))
                .collect(),
            t0_names,
            refused,
            steps,
            moves,
            direction: sides.direction,
        };
        aligned.note_members(sides);
        aligned
    }

    /// Renames of labels and attributes. Payloads keep the names that they have (their merge is a matter of [`super::enums`] and of
    /// the unit); texts follow.
    fn note_members(&mut self, sides: &Sides<'_>) {
        let (branch, parent) = (
            renamed_members(sides.branch_t0, sides.branch),
            renamed_members(sides.parent_t0, sides.parent),
        );
        if branch.is_empty() && parent.is_empty() {
            return;
        }
        self.detected
            .extend(branch.iter().map(|(type_, was, is)| Rename {
                kind: type_.kind,
                from: member(type_, was),
                to: member(type_, is),
            }));
        let both: Vec<(&RenamedMember, [usize; 3])> = parent
            .iter()
            .map(|renamed| (renamed, [0, 2, 3]))
            .chain(
                branch
                    .iter()
                    .filter(|(type_, was, _)| {
                        !parent
                            .iter()
                            .any(|(other, theirs, _)| other == type_ && theirs == was)
                    })
                    .map(|renamed| (renamed, [0, 2, 1])),
            )
            .collect();
        let catalogs = [sides.parent_t0, sides.parent, sides.branch_t0, sides.branch];
        for ((type_, was, is), places) in both {
            let last = self.moves[0].get(type_).unwrap_or(type_).clone();
            for place in places {
                let named = self.moves[place]
                    .iter()
                    .find(|(_, to)| **to == last)
                    .map_or_else(|| last.clone(), |(from, _)| from.clone());
                if has_member(catalogs[place], &named, was) {
                    self.steps[place].push(Rename {
                        kind: type_.kind,
                        from: member(&named, was),
                        to: member(&last, is),
                    });
                }
            }
        }
    }

    /// What the parent calls it now.
    pub fn parent_name(&self, id: &FactId) -> FactId {
        self.moves[1]
            .iter()
            .find(|(_, to)| *to == id)
            .map_or_else(|| id.clone(), |(from, _)| from.clone())
    }

    /// The name at T0.
    pub fn t0_name(&self, id: &FactId) -> FactId {
        if self.t0_names.is_empty() {
            return id.clone();
        }
        if let Some(was) = self.t0_names.get(id) {
            return was.clone();
        }
        if let Some(subject) = id.subject() {
            let was = self.t0_name(&subject);
            return FactId {
                kind: id.kind,
                of: id.of,
                grantee: id.grantee.clone(),
                ..was
            };
        }
        // A new part of something renamed.
        let holder = [&self.branch, &self.parent, &self.parent_t0]
            .into_iter()
            .find(|catalog| catalog.facts.contains_key(id))
            .and_then(|catalog| container(catalog, id));
        match holder.and_then(|holder| self.t0_names.get(&holder)) {
            Some(was) if was.kind == Kind::Schema => FactId {
                schema: was.object.clone(),
                ..id.clone()
            },
            Some(was) if !id.part.is_empty() => FactId {
                schema: was.schema.clone(),
                object: was.object.clone(),
                ..id.clone()
            },
            _ => id.clone(),
        }
    }
}

/// T0's names of all that gets another name in the end. Where both sides renamed, the parent's name stays unless a resolution
/// says otherwise; where the name is taken on the parent, the rename is refused.
fn wanted(
    branch: &Side<'_>,
    parent: &Side<'_>,
    sides: &Sides<'_>,
    resolutions: &Resolutions,
    refused: &mut Vec<Refused>,
) -> BTreeSet<FactId> {
    let (target, source) = (sides.direction.target(), sides.direction.source());
    let mut wanted: BTreeSet<FactId> = parent.direct.keys().cloned().collect();
    for (was, is) in &branch.direct {
        let resolution = resolutions.get(&was.to_string());
        if let Some(theirs) = parent.direct.get(was) {
            let agree = leaf(theirs) == leaf(is)
                && (theirs.schema == is.schema
                    || was.schema == is.schema
                    || was.schema == theirs.schema);
            if !agree && resolution.is_none() {
                refused.push(Refused {
                    id: was.clone(),
                    why: format!(
                        "renamed to {} on the {target} and to {} on the {source}",
                        theirs.name(),
                        is.name()
                    ),
                    semantic: false,
                });
            }
            continue;
        }
        let taken = name_takers(is).into_iter().find(|taker| {
            sides.parent.facts.contains_key(taker)
                && parent.moved.get(was) != Some(taker)
                // Somebody who moves out of the way on the branch too.
                && !branch.direct.contains_key(parent.origins.get(taker).unwrap_or(taker))
        });
        if let Some(taker) = taken {
            if resolution != Some(&Choice::Parent) {
                refused.push(Refused {
                    id: was.clone(),
                    why: format!("renamed to {} on the {source}; on the {target} that name is taken by the {} {}", is.name(), taker.kind.as_str(), taker.name()),
                    semantic: true,
                });
            }
            continue;
        }
        if resolution == Some(&Choice::Parent)
            && !sides
                .parent
                .facts
                .contains_key(parent.moved.get(was).unwrap_or(was))
        {
            continue;
        }
        wanted.insert(was.clone());
    }
    wanted
}

/// What could hold a name that somebody wants.
pub fn name_takers(id: &FactId) -> Vec<FactId> {
    const RELATIONS: [Kind; 6] = [
        Kind::Table,
        Kind::View,
        Kind::MaterializedView,
        Kind::Sequence,
        Kind::Index,
        Kind::Composite,
    ];
    const TYPES: [Kind; 7] = [
        Kind::Enum,
        Kind::Domain,
        Kind::Range,
        Kind::Composite,
        Kind::Table,
        Kind::View,
        Kind::MaterializedView,
    ];
    const ROUTINES: [Kind; 3] = [Kind::Function, Kind::Procedure, Kind::Aggregate];
    if !id.part.is_empty() || id.of.is_some() {
        return vec![id.clone()];
    }
    let mut kinds: BTreeSet<Kind> = BTreeSet::from([id.kind]);
    for group in [&RELATIONS[..], &TYPES[..], &ROUTINES[..]] {
        if group.contains(&id.kind) {
            kinds.extend(group);
        }
    }
    kinds
        .into_iter()
        .map(|kind| FactId::object(kind, &id.schema, &id.object))
        .collect()
}

/// Final names by T0's names.
struct Finals<'a> {
    branch: &'a Side<'a>,
    parent: &'a Side<'a>,
    /// New leaf and, for objects in schemas that were put into another one, that schema.
    leaves: HashMap<FactId, (String, Option<String>)>,
}

impl<'a> Finals<'a> {
    fn new(
        branch: &'a Side<'a>,
        parent: &'a Side<'a>,
        wanted: &BTreeSet<FactId>,
        resolutions: &Resolutions,
    ) -> Self {
        let leaves = wanted
            .iter()
            .filter_map(|was| {
                let (ours, theirs) = (branch.direct.get(was), parent.direct.get(was));
                let (first, second) = match resolutions.get(&was.to_string()) {
                    Some(Choice::Branch) => (ours, theirs),
                    _ => (theirs, ours),
                };
                let given = || [first, second].into_iter().flatten();
                let moved = given()
                    .find(|is| is.part.is_empty() && is.schema != was.schema)
                    .map(|is| is.schema.clone());
                let name = given()
                    .find(|is| leaf(is) != leaf(was))
                    .or_else(|| given().next())?;
                Some((was.clone(), (leaf(name).to_owned(), moved)))
            })
            .collect();
        Self {
            branch,
            parent,
            leaves,
        }
    }

    /// What is to be renamed in a catalog in which some things are called otherwise than at T0.
    fn steps(&self, catalog: &Catalog, moved: &BTreeMap<FactId, FactId>) -> Vec<Rename> {
        let t0 = self.parent.t0;
        self.leaves
            .iter()
            .filter_map(|(was, (name, schema))| {
                let from = moved.get(was).unwrap_or(was);
                let differs = leaf(from) != name
                    || schema.as_ref().is_some_and(|schema| *schema != from.schema);
                (differs && catalog.facts.contains_key(from)).then(|| Rename {
                    kind: was.kind,
                    from: from.clone(),
                    to: self.of(t0, was),
                })
            })
            .collect::<BTreeSet<Rename>>()
            .into_iter()
            .collect()
    }

    fn schema(&self, name: &str) -> String {
        self.leaves
            .get(&FactId::object(Kind::Schema, "", name))
            .map_or_else(|| name.to_owned(), |(leaf, _)| leaf.clone())
    }

    /// The final name of something of T0.
    fn of(&self, t0: &Catalog, id: &FactId) -> FactId {
        if let Some(subject) = id.subject() {
            let to = self.of(t0, &subject);
            return FactId {
                kind: id.kind,
                of: id.of,
                grantee: id.grantee.clone(),
                ..to
            };
        }
        if id.kind == Kind::DefaultPrivilege {
            return FactId {
                schema: self.schema(&id.schema),
                ..id.clone()
            };
        }
        let own = self.leaves.get(id);
        if !id.part.is_empty() || id.kind == Kind::Rls {
            let holder = holder(t0, id);
            let holder = holder.map_or_else(
                || FactId {
                    schema: self.schema(&id.schema),
                    ..id.clone()
                },
                |holder| self.of(t0, &holder),
            );
            let part = own.map_or(&id.part, |(leaf, _)| leaf).clone();
            return FactId {
                schema: holder.schema,
                object: holder.object,
                part,
                ..id.clone()
            };
        }
        let schema = if goes_with_table(t0, id) {
            let table = container(t0, id).and_then(|holder| {
                if holder.kind == Kind::Column {
                    container(t0, &holder)
                } else {
                    Some(holder)
                }
            });
            table.map_or_else(
                || self.schema(&id.schema),
                |table| self.of(t0, &table).schema,
            )
        } else {
            own.and_then(|(_, schema)| schema.clone())
                .unwrap_or_else(|| self.schema(&id.schema))
        };
        let object = match id.kind {
            Kind::Function | Kind::Procedure | Kind::Aggregate => {
                let name = own.map_or_else(|| types_of(&id.object).0, |(leaf, _)| leaf.as_str());
                // Types that were renamed: as the side that did it prints them.
                let printed = self
                    .branch
                    .moved
                    .get(id)
                    .or_else(|| self.parent.moved.get(id))
                    .unwrap_or(id);
                format!("{name}{}", types_of(&printed.object).1)
            }
            _ => own.map_or_else(|| id.object.clone(), |(leaf, _)| leaf.clone()),
        };
        FactId {
            schema,
            object,
            ..id.clone()
        }
    }

    /// The final name of something that a side has now.
    fn now(&self, catalog: &Catalog, side: &Side<'_>, id: &FactId) -> FactId {
        if side.moved.is_empty() {
            // Nothing has another name than at T0 here; what is new goes with what holds it.
            return self.of(
                if side.t0.facts.contains_key(id) {
                    side.t0
                } else {
                    catalog
                },
                id,
            );
        }
        if let Some(subject) = id.subject() {
            let to = self.now(catalog, side, &subject);
            return FactId {
                kind: id.kind,
                of: id.of,
                grantee: id.grantee.clone(),
                ..to
            };
        }
        if let Some(was) = side.origins.get(id) {
            return self.of(side.t0, was);
        }
        if id.kind == Kind::DefaultPrivilege {
            return FactId {
                schema: self.now_schema(catalog, side, &id.schema),
                ..id.clone()
            };
        }
        if !id.part.is_empty() || id.kind == Kind::Rls {
            let to = holder(catalog, id).map(|holder| self.now(catalog, side, &holder));
            return to.map_or_else(
                || id.clone(),
                |to| FactId {
                    schema: to.schema,
                    object: to.object,
                    ..id.clone()
                },
            );
        }
        let schema = if goes_with_table(catalog, id) {
            let table = container(catalog, id).and_then(|holder| {
                if holder.kind == Kind::Column {
                    container(catalog, &holder)
                } else {
                    Some(holder)
                }
            });
            table.map_or_else(
                || self.now_schema(catalog, side, &id.schema),
                |table| self.now(catalog, side, &table).schema,
            )
        } else {
            self.now_schema(catalog, side, &id.schema)
        };
        FactId {
            schema,
            ..id.clone()
        }
    }

    fn now_schema(&self, _: &Catalog, side: &Side<'_>, name: &str) -> String {
        let id = FactId::object(Kind::Schema, "", name);
        side.origins
            .get(&id)
            .map_or_else(|| name.to_owned(), |was| self.schema(&was.object))
    }
}

fn holder(catalog: &Catalog, id: &FactId) -> Option<FactId> {
    if id.kind == Kind::Rls {
        return Some(FactId::object(Kind::Table, &id.schema, &id.object));
    }
    [
        Kind::Table,
        Kind::View,
        Kind::MaterializedView,
        Kind::Domain,
        Kind::Composite,
    ]
    .into_iter()
    .map(|kind| FactId::object(kind, &id.schema, &id.object))
    .find(|holder| catalog.facts.contains_key(holder))
}

/// What the branch added under a name that the parent gave to something else in the meantime: refused and left out, with all that it
/// holds.
fn without_taken_names(
    catalog: &Catalog,
    side: &Side<'_>,
    finals: &Finals<'_>,
    direction: Direction,
    refused: &mut Vec<Refused>,
) -> Catalog {
    let given: HashMap<FactId, &FactId> = finals
        .parent
        .direct
        .keys()
        .filter(|was| side.t0.facts.contains_key(was))
        .flat_map(|was| {
            name_takers(&finals.of(side.t0, was))
                .into_iter()
                .map(move |taker| (taker, was))
        })
        .collect();
    let taken: BTreeMap<FactId, FactId> = catalog
        .facts
        .keys()
        .filter(|id| id.of.is_none() && id.kind != Kind::Rls)
        .filter(|id| !side.t0.facts.contains_key(id) && !side.origins.contains_key(id))
        .filter_map(|id| {
            let was = given.get(&finals.now(catalog, side, id))?;
            Some((id.clone(), (*was).clone()))
        })
        .collect();
    if taken.is_empty() {
        return catalog.clone();
    }
    for (id, was) in &taken {
        refused.push(Refused {
            id: id.clone(),
            why: format!(
                "added on the {}; on the {} {} was renamed to that name",
                direction.source(),
                direction.target(),
                was.name()
            ),
            semantic: true,
        });
    }
    let mut left = catalog.clone();
    left.facts.retain(|id, _| {
        !taken.contains_key(id)
            && !super::containers::ancestors(catalog, id)
                .iter()
                .any(|holder| taken.contains_key(holder))
    });
    left
}

fn moves(catalog: &Catalog, to: impl Fn(&FactId) -> FactId) -> BTreeMap<FactId, FactId> {
    catalog
        .facts
        .keys()
        .map(|id| (id, to(id)))
        .filter(|(id, new)| *id != new)
        .map(|(id, new)| (id.clone(), new))
        .collect()
}

/// Labels of enums and attributes of composite types that were renamed: the type's T0 name, old and new name.
fn renamed_members(t0: &Catalog, now: &Catalog) -> Vec<RenamedMember> {
    let mut found = Vec::new();
    for kind in [Kind::Enum, Kind::Composite] {
        let types = |catalog: &Catalog| -> Vec<(Place, FactId, Members)> {
            catalog
                .facts
                .range(FactId::object(kind, "", "")..)
                .take_while(|(id, _)| id.kind == kind)
                .map(|(id, fact)| (fact.place, id.clone(), members(&fact.payload)))
                .collect()
        };
        let new: HashMap<Place, Members> = types(now)
            .into_iter()
            .map(|(place, _, members)| (place, members))
            .collect();
        for (place, id, old) in types(t0) {
            let Some(new) = new.get(&place) else { continue };
            for (number, was) in old {
                if let Some((_, is)) = new.iter().find(|(other, _)| *other == number)
                    && *is != was
                {
                    found.push((id.clone(), was, is.clone()));
                }
            }
        }
    }
    found
}

/// Labels with their oids, attributes with their numbers.
fn members(payload: &Payload) -> Members {
    match payload {
        Payload::Enum { labels } => labels
            .iter()
            .map(|label| (label.oid, label.name.clone()))
            .collect(),
        Payload::Composite { attributes } => attributes
            .iter()
            .map(|attribute| {
                (
                    u32::from(attribute.number.unsigned_abs()),
                    attribute.name.clone(),
                )
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn has_member(catalog: &Catalog, type_: &FactId, name: &str) -> bool {
    catalog.facts.get(type_).is_some_and(|fact| {
        members(&fact.payload)
            .iter()
            .any(|(_, member)| member == name)
    })
}

/// A label or an attribute, named like a part of its type.
fn member(type_: &FactId, name: &str) -> FactId {
    FactId {
        part: name.to_owned(),
        ..type_.clone()
    }
}

/// Renames of labels and attributes that lead from one form of a type to another one, where numbers tell that they are the
/// same.
pub fn member_renames(
    from: &Catalog,
    to: &Catalog,
    name_before: impl Fn(&FactId) -> FactId,
) -> Vec<Rename> {
    let mut found = Vec::new();
    for kind in [Kind::Enum, Kind::Composite] {
        for (id, fact) in to
            .facts
            .range(FactId::object(kind, "", "")..)
            .take_while(|(id, _)| id.kind == kind)
        {
            let Some(before) = from.facts.get(id) else {
                continue;
            };
            let old = members(&before.payload);
            for (number, is) in members(&fact.payload)
                .into_iter()
                .filter(|(number, _)| *number != 0)
            {
                if let Some((_, was)) = old.iter().find(|(other, _)| *other == number)
                    && *was != is
                {
                    found.push(Rename {
                        kind,
                        from: member(&name_before(id), was),
                        to: member(id, &is),
                    });
                }
            }
        }
    }
    found
}

/// The catalog under other names.
pub(super) fn rename(catalog: &Catalog, moves: &BTreeMap<FactId, FactId>) -> Catalog {
    let to = |id: &FactId| moves.get(id).unwrap_or(id).clone();
    let table = |schema: &str, name: &str| to(&FactId::object(Kind::Table, schema, name));
    let facts = catalog
        .facts
        .iter()
        .map(|(id, fact)| {
            let new = to(id);
            let mut payload = fact.payload.clone();
            match &mut payload {
                Payload::Table(unit) => {
                    for parent in &mut unit.parents {
                        let new = table(&parent.0, &parent.1);
                        *parent = (new.schema, new.object);
                    }
                    if let Some(index) = &mut unit.replica_index {
                        let constraint = to(&FactId::part(
                            Kind::Constraint,
                            &id.schema,
                            &id.object,
                            index,
                        ))
                        .part;
                        let renamed = to(&FactId::object(Kind::Index, &id.schema, index)).object;
                        *index = if constraint == *index {
                            renamed
                        } else {
                            constraint
                        };
                    }
                }
                Payload::Sequence(sequence) => {
                    sequence.owned_by = sequence.owned_by.as_ref().map(&to);
                }
                Payload::Index { on, .. } => {
                    let holder = [Kind::Table, Kind::MaterializedView]
                        .into_iter()
                        .map(|kind| FactId::object(kind, &id.schema, on))
                        .find(|holder| catalog.facts.contains_key(holder));
                    if let Some(holder) = holder {
                        *on = to(&holder).object;
                    }
                }
                Payload::Statistics { on, .. } => {
                    if let Some(holder) = fact
                        .needs
                        .iter()
                        .find(|need| need.kind == Kind::Table && need.object == *on)
                    {
                        *on = to(holder).object;
                    }
                }
                Payload::Extension { schema } => {
                    *schema = to(&FactId::object(Kind::Schema, "", schema)).object;
                }
                _ => {}
            }
            let needs = fact.needs.iter().map(&to).collect();
            (
                new,
                Fact {
                    payload,
                    needs,
                    place: fact.place,
                },
            )
        })
        .collect();
    Catalog {
        facts,
        ..catalog.clone()
    }
}
