//! Takes or refuses each edit of the branch.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Action, Aligned, Choice, Conflict, Merge, Resolutions,
    changes::{self, root},
    combine,
    containers::{ancestors, parts},
    edits::{Edits, proves, same, same_fact},
    enums, hints,
    names::member_renames,
};
use crate::{
    catalog::{Catalog, Fact, FactId, Kind, Needs, Payload, Place},
    parallel::both,
};

/// A conflict that nobody has answered.
struct Open {
    hint: String,
    semantic: bool,
}

pub struct Decision<'d> {
    pub aligned: &'d Aligned<'d>,
    pub branch_edits: Edits,
    pub parent_edits: Edits,
    /// Edits of the branch that the merge makes.
    pub taken: BTreeMap<FactId, Action>,
    /// Taken for their names only: the rest stays as the parent has it.
    pub renamed_only: BTreeSet<FactId>,
    /// Labels of enums that both sides changed.
    labels: BTreeMap<FactId, Payload>,
    open: BTreeMap<FactId, Open>,
    /// Edits that wait for the answer to a conflict: what needs them is no conflict of its own.
    pub waiting: BTreeSet<FactId>,
    resolutions: &'d Resolutions,
    used: BTreeSet<String>,
}

pub fn decide(aligned: &Aligned<'_>, resolutions: &Resolutions) -> Merge {
    // The copy, which the target is made of, takes as long as both sides' edits.
    let (parent, (mut parent_edits, mut branch_edits)) = both(
        || Catalog::clone(&aligned.parent),
        || {
            both(
                || Edits::between(&aligned.parent_t0, &aligned.parent),
                || Edits::between(&aligned.branch_t0, &aligned.branch),
            )
        },
    );
    branch_edits.renamed = aligned
        .renames
        .iter()
        .map(|rename| rename.to.clone())
        .collect();
    parent_edits.renamed.clone_from(&aligned.renamed_by_parent);
    let mut decision = Decision {
        aligned,
        branch_edits,
        parent_edits,
        taken: BTreeMap::new(),
        renamed_only: BTreeSet::new(),
        labels: BTreeMap::new(),
        open: BTreeMap::new(),
        waiting: BTreeSet::new(),
        resolutions,
        used: BTreeSet::new(),
    };
    let covered = decision.containers();
    decision.facts(&covered);
    let target = decision.combinations(parent);
    decision.finish(target)
}

impl Decision<'_> {
    /// How a conflict of this name is answered.
    fn answer(&mut self, id: &FactId) -> Option<Choice> {
        let name = self.aligned.t0_name(id).to_string();
        let choice = self.resolutions.get(&name).copied();
        if choice.is_some() {
            self.used.insert(name);
        }
        choice
    }

    /// A container that one side dropped while the other one changed something in it, and tables that both added: one
    /// conflict each. Returns all edits of the branch in them.
    fn containers(&mut self) -> BTreeSet<FactId> {
        let aligned = self.aligned;
        let mut conflicts = opposed(&self.branch_edits, &self.parent_edits, &aligned.parent);
        conflicts.extend(opposed(
            &self.parent_edits,
            &self.branch_edits,
            &aligned.branch,
        ));
        for id in self.branch_edits.made.keys() {
            let both = self.branch_edits.made.get(id) == Some(&Action::Add)
                && self.parent_edits.made.get(id) == Some(&Action::Add);
            if both
                && matches!(id.kind, Kind::Table | Kind::Domain)
                && !same_unit(&aligned.parent, &aligned.branch, id)
            {
                conflicts.insert(id.clone());
            }
        }
        if conflicts.is_empty() {
            return BTreeSet::new();
        }
        let covered: BTreeSet<FactId> = self
            .branch_edits
            .made
            .keys()
            .chain(&self.branch_edits.renamed)
            .filter(|id| {
                let catalog = if aligned.branch.facts.contains_key(id) {
                    &aligned.branch
                } else {
                    &aligned.branch_t0
                };
                conflicts.contains(id)
                    || ancestors(catalog, id)
                        .iter()
                        .any(|holder| conflicts.contains(holder))
            })
            .cloned()
            .collect();
        self.waiting.extend(covered.iter().cloned());
        for id in conflicts {
            match self.answer(&id) {
                Some(Choice::Parent) => {}
                Some(Choice::Branch) => self.take_form(&id),
                None => {
                    let hint =
                        hints::container(aligned, &id, &self.branch_edits, &self.parent_edits);
                    self.open.insert(
                        id,
                        Open {
                            hint,
                            semantic: false,
                        },
                    );
                }
            }
        }
        covered
    }

    /// From what the parent has to what the branch has, with all that it holds.
    fn take_form(&mut self, id: &FactId) {
        let (parent, branch) = (&self.aligned.parent, &self.aligned.branch);
        let under = |catalog: &Catalog| -> Vec<FactId> {
            catalog
                .facts
                .keys()
                .filter(|part| *part == id || ancestors(catalog, part).contains(id))
                .cloned()
                .collect()
        };
        for part in under(parent).into_iter().chain(under(branch)) {
            let action = match (parent.facts.get(&part), branch.facts.get(&part)) {
                (Some(theirs), Some(ours)) if same(&theirs.payload, &ours.payload) => continue,
                (Some(_), Some(_)) => Action::Modify,
                (Some(_), None) => Action::Drop,
                (None, _) => Action::Add,
            };
            self.waiting.remove(&part);
            self.taken.insert(part, action);
        }
    }

    /// The rule, fact by fact.
    fn facts(&mut self, covered: &BTreeSet<FactId>) {
        let aligned = self.aligned;
        let edits: Vec<(FactId, Action)> = self
            .branch_edits
            .made
            .iter()
            .filter(|(id, _)| !covered.contains(id))
            .map(|(id, action)| (id.clone(), *action))
            .collect();
        for (id, action) in edits {
            let theirs = self.parent_edits.made.get(&id).copied();
            let renamed = self.parent_edits.renamed.contains(&id) && action == Action::Drop;
            if theirs.is_none() && !renamed {
                self.taken.insert(id, action);
                continue;
            }
            let (ours, now) = (aligned.branch.facts.get(&id), aligned.parent.facts.get(&id));
            if same_fact(ours, now) || proves(now, ours) {
                continue; // already there
            }
            // Both made it, and only the proof is left to do: as an online merge leaves it.
            if proves(ours, now) {
                self.taken.insert(id, Action::Modify);
                continue;
            }
            let mut why = None;
            if id.kind == Kind::Enum {
                match self.joined_labels(&id) {
                    Some(Ok(payload)) => {
                        let there = now.is_some_and(|fact| fact.payload == payload);
                        if !there {
                            self.labels.insert(id.clone(), payload);
                            self.taken.insert(id, Action::Modify);
                        }
                        continue;
                    }
                    Some(Err(reason)) => why = Some(reason),
                    None => {}
                }
            }
            match self.answer(&id) {
                Some(Choice::Parent) => {}
                Some(Choice::Branch) => {
                    let action = match (now, ours) {
                        (Some(_), None) => Action::Drop,
                        (None, _) => Action::Add,
                        _ => Action::Modify,
                    };
                    self.taken.insert(id, action);
                }
                None => {
                    let hint = why.unwrap_or_else(|| hints::fact(aligned, &id));
                    self.waiting.insert(id.clone());
                    self.open.insert(
                        id,
                        Open {
                            hint,
                            semantic: false,
                        },
                    );
                }
            }
        }
        let renamed: Vec<FactId> = self
            .branch_edits
            .renamed
            .iter()
            .filter(|id| !covered.contains(id) && !self.branch_edits.made.contains_key(id))
            .cloned()
            .collect();
        for id in renamed {
            if self.parent_edits.dropped(&id) {
                if self.answer(&id).is_none() {
                    let (source, target) = (aligned.direction.source(), aligned.direction.target());
                    let hint = format!("renamed on the {source}, dropped on the {target}");
                    self.open.insert(
                        id,
                        Open {
                            hint,
                            semantic: false,
                        },
                    );
                }
                continue;
            }
            self.renamed_only.insert(id.clone());
            self.taken.insert(id, Action::Modify);
        }
    }

    fn joined_labels(&self, id: &FactId) -> Option<Result<Payload, String>> {
        let labels = |catalog: &'_ Catalog| match &catalog.facts.get(id)?.payload {
            Payload::Enum { labels } => Some(labels.clone()),
            _ => None,
        };
        let merged = enums::merge(
            &labels(&self.aligned.parent_t0)?,
            &labels(&self.aligned.parent)?,
            &labels(&self.aligned.branch_t0)?,
            &labels(&self.aligned.branch)?,
            self.aligned.direction,
        );
        Some(merged.map(|labels| Payload::Enum { labels }))
    }

    /// Edits that are fine alone and not together. One that is refused may take others with it, so until nothing changes.
    fn combinations(&mut self, parent: Catalog) -> Catalog {
        let mut parent = Some(parent);
        loop {
            let copy = parent.take();
            let target = self.target(copy.unwrap_or_else(|| Catalog::clone(&self.aligned.parent)));
            let found = combine::conflicts(self, &target);
            if found.is_empty() {
                return target;
            }
            let before = self.taken.len();
            for (id, hint) in found {
                let id = root(self, &id);
                if self.open.contains_key(&id) {
                    continue;
                }
                // Only leaving the change out answers it: there is no form of the branch that would do.
                let answered = self.answer(&id) == Some(Choice::Parent);
                let group: Vec<FactId> = self
                    .taken
                    .keys()
                    .filter(|part| **part == id || root(self, part) == id)
                    .cloned()
                    .collect();
                for part in group {
                    self.taken.remove(&part);
                    if !answered {
                        self.waiting.insert(part);
                    }
                }
                if !answered {
                    self.open.insert(
                        id,
                        Open {
                            hint,
                            semantic: true,
                        },
                    );
                }
            }
            if self.taken.len() == before {
                return target; // all of it is known already
            }
        }
    }

    /// The parent, of which `target` is a copy, with all that was taken.
    fn target(&self, mut target: Catalog) -> Catalog {
        let Aligned {
            parent_t0,
            parent,
            branch_t0,
            branch,
            ..
        } = self.aligned;
        let mut columns: BTreeMap<(String, String), Vec<(i16, FactId)>> = BTreeMap::new();
        for (id, action) in &self.taken {
            if self.renamed_only.contains(id) {
                continue;
            }
            if *action == Action::Drop {
                target.facts.remove(id);
                continue;
            }
            let Some(fact) = branch.facts.get(id) else {
                continue;
            };
            let there = parent.facts.get(id).map(|fact| fact.place);
            if id.kind == Kind::Column && there.is_none() {
                let table = (id.schema.clone(), id.object.clone());
                columns
                    .entry(table)
                    .or_default()
                    .push((fact.place.number, id.clone()));
            }
            let place = there.unwrap_or(Place {
                oid: 0,
                number: fact.place.number,
            });
            target.facts.insert(
                id.clone(),
                Fact {
                    payload: self.payload(id, fact),
                    needs: fact.needs.clone(),
                    place,
                },
            );
        }
        for (table, fact) in &self.branch_edits.consequences {
            if self.taken.contains_key(table) {
                match branch.facts.get(fact) {
                    None => _ = target.facts.remove(fact),
                    Some(ours) => _ = target.facts.insert(fact.clone(), ours.clone()),
                }
            }
        }
        // New columns go to the end, in the branch's order.
        for ((schema, object), mut added) in columns {
            let table = FactId::object(Kind::Table, &schema, &object);
            let last = parts(parent, Kind::Column, &table)
                .filter_map(|id| parent.facts.get(id))
                .map(|fact| fact.place.number)
                .max()
                .unwrap_or_default();
            added.sort();
            for (number, (_, id)) in (last + 1..).zip(added) {
                if let Some(fact) = target.facts.get_mut(&id) {
                    fact.place.number = number;
                }
            }
        }
        for (id, fact) in &mut target.facts {
            // Of all other kinds, two that say the same are equal.
            if !matches!(id.kind, Kind::View | Kind::MaterializedView) {
                continue;
            }
            let Some(ours) = branch.facts.get(id) else {
                continue;
            };
            if self.taken.contains_key(id) || !same(&ours.payload, &fact.payload) {
                continue;
            }
            follow_types(fact, ours, branch_t0.facts.get(id), parent_t0.facts.get(id));
        }
        self.refresh_needs(&mut target);
        target
    }

    fn payload(&self, id: &FactId, ours: &Fact) -> Payload {
        if let Some(labels) = self.labels.get(id) {
            return labels.clone();
        }
        if id.kind == Kind::Enum
            && let Some(Ok(joined)) = self.joined_labels(id)
            && joined == ours.payload
        {
            return joined; // with the parent's ids
        }
        if let (Payload::Composite { attributes }, Some(theirs), Some(t0)) = (
            &ours.payload,
            self.aligned.parent_t0.facts.get(id),
            self.aligned.branch_t0.facts.get(id),
        ) {
            return with_numbers(attributes, &t0.payload, &theirs.payload);
        }
        ours.payload.clone()
    }

    /// A fact that nobody changed may need something else than before, when what it needs was made anew as another kind.
    fn refresh_needs(&self, target: &mut Catalog) {
        if !self.taken.values().any(|action| *action == Action::Drop) {
            return;
        }
        let dropped = |id: &FactId| self.taken.get(id) == Some(&Action::Drop);
        let fresh: Vec<(FactId, Needs)> = target
            .facts
            .iter()
            .filter(|(_, fact)| fact.needs.iter().any(dropped))
            .filter_map(|(id, fact)| {
                let ours = self.aligned.branch.facts.get(id)?;
                let t0 = self.aligned.parent_t0.facts.get(id)?;
                let untouched =
                    same(&fact.payload, &ours.payload) && same(&fact.payload, &t0.payload);
                untouched.then(|| (id.clone(), ours.needs.clone()))
            })
            .collect();
        for (id, needs) in fresh {
            if let Some(fact) = target.facts.get_mut(&id) {
                fact.needs = needs;
            }
        }
    }

    fn finish(mut self, target: Catalog) -> Merge {
        let aligned = self.aligned;
        for refused in &aligned.refused {
            let name = refused.id.to_string();
            if self.resolutions.contains_key(&name) {
                self.used.insert(name);
            }
        }
        let ids: Vec<FactId> = self.open.keys().cloned().collect();
        let mut hashes = hints::hashes(aligned, &ids);
        let mut conflicts: Vec<Conflict> = std::mem::take(&mut self.open)
            .into_iter()
            .map(|(id, open)| {
                let [parent_t0, parent_now, branch_now] = hashes.remove(&id).unwrap_or_default();
                Conflict {
                    id: aligned.t0_name(&id),
                    parent_t0,
                    parent_now,
                    branch_now,
                    hint: open.hint,
                    semantic: open.semantic,
                }
            })
            .collect();
        for refused in &aligned.refused {
            if self.answered_by_parent(&refused.id) {
                continue;
            }
            let id = aligned
                .t0_names
                .iter()
                .find(|(_, was)| **was == refused.id)
                .map_or(&refused.id, |(is, _)| is);
            let [parent_t0, parent_now, branch_now] =
                hints::hashes(aligned, std::slice::from_ref(id))
                    .remove(id)
                    .unwrap_or_default();
            conflicts.push(Conflict {
                id: refused.id.clone(),
                parent_t0,
                parent_now,
                branch_now,
                hint: refused.why.clone(),
                semantic: refused.semantic,
            });
        }
        conflicts.sort_by(|one, other| one.id.cmp(&other.id));
        let mut renames = aligned.renames.clone();
        renames.extend(member_renames(&aligned.parent, &target, |id| {
            aligned.parent_name(id)
        }));
        Merge {
            changes: changes::changes(&self),
            target,
            renames,
            detected: aligned.detected.clone(),
            conflicts,
            blocked: Vec::new(),
            unused_resolutions: self
                .resolutions
                .keys()
                .filter(|name| !self.used.contains(*name))
                .cloned()
                .collect(),
        }
    }

    fn answered_by_parent(&self, id: &FactId) -> bool {
        self.resolutions.get(&id.to_string()) == Some(&Choice::Parent)
    }
}

/// The topmost containers that one side dropped while the other one made edits in them that are still there.
fn opposed(dropper: &Edits, editor: &Edits, editor_now: &Catalog) -> BTreeSet<FactId> {
    let mut found = BTreeSet::new();
    if !dropper.made.values().any(|action| *action == Action::Drop) {
        return found;
    }
    let edits = editor
        .made
        .iter()
        .filter(|(_, action)| **action != Action::Drop)
        .map(|(id, _)| id)
        .chain(&editor.renamed);
    for id in edits {
        let top = ancestors(editor_now, id)
            .into_iter()
            .rfind(|holder| dropper.dropped(holder) && editor_now.facts.contains_key(holder));
        found.extend(top);
    }
    found
}

/// Whether two tables of one name are the same table: the unit, columns, constraints, row security. Or two domains.
fn same_unit(one: &Catalog, other: &Catalog, id: &FactId) -> bool {
    let rls = FactId {
        kind: Kind::Rls,
        ..id.clone()
    };
    let equal = |id: &FactId| {
        let (one, other) = (one.facts.get(id), other.facts.get(id));
        // What is left to prove is a question of its own.
        same_fact(one, other) || proves(one, other) || proves(other, one)
    };
    let all_equal = |kind| parts(one, kind, id).all(equal) && parts(other, kind, id).all(equal);
    equal(id) && equal(&rls) && all_equal(Kind::Column) && all_equal(Kind::Constraint)
}

/// A view's columns changed their types because what it reads did: on the branch, so on the parent.
fn follow_types(fact: &mut Fact, ours: &Fact, branch_t0: Option<&Fact>, parent_t0: Option<&Fact>) {
    let (Some(branch_t0), Some(parent_t0)) = (branch_t0, parent_t0) else {
        return;
    };
    if ours.payload != branch_t0.payload
        && fact.payload == parent_t0.payload
        && ours.payload != fact.payload
    {
        fact.payload = ours.payload.clone();
    }
}

/// The branch's attributes with the numbers that the parent's have, so that they are told from new ones; 0 for those.
fn with_numbers(
    attributes: &[crate::catalog::Attribute],
    branch_t0: &Payload,
    parent_t0: &Payload,
) -> Payload {
    let (Payload::Composite { attributes: ours }, Payload::Composite { attributes: theirs }) =
        (branch_t0, parent_t0)
    else {
        return Payload::Composite {
            attributes: attributes.to_vec(),
        };
    };
    let attributes = attributes
        .iter()
        .map(|attribute| {
            let was = ours
                .iter()
                .find(|old| old.number == attribute.number)
                .or_else(|| ours.iter().find(|old| old.name == attribute.name));
            let number = was
                .and_then(|was| theirs.iter().find(|old| old.name == was.name))
                .map_or(0, |old| old.number);
            crate::catalog::Attribute {
                number,
                ..attribute.clone()
            }
        })
        .collect();
    Payload::Composite { attributes }
}
