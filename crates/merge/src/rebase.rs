//! The way back: what the parent changed since T0 comes to the branch, and T0 moves.
//!
//! A rebase is a merge with the roles swapped. What is new is the branch's base afterwards: it must read as if the branch
//! had been made from the parent as it is now, with the branch's own ids, by which renames are told. Then what differs
//! between it and the branch is what the branch itself did.

use std::collections::BTreeSet;

use sqlx::postgres::PgConnectOptions;

use crate::{
    Applied, ApplyOptions, Bases, Choice, DiffResult, Direction, Error, MergePlan, Resolutions,
    Snapshot,
    apply::apply_keeping,
    catalog::{Catalog, Fact, FactId, Payload},
    config::Rows,
    plan::planned,
    three_way::Names,
};

/// What a rebase does to the branch.
#[derive(Clone, Debug)]
pub struct RebasePlan {
    /// With the roles swapped: its `parent_hash` is that of the branch. What people read (names, hints, definitions)
    /// says "parent" and "branch" as they know them.
    pub plan: MergePlan,
    bases: Bases,
    parent: Snapshot,
    names: Names,
    lacks: BTreeSet<FactId>,
}

/// What can go wrong in [`apply_rebase`].
#[derive(Debug, thiserror::Error)]
pub enum RebaseError<E> {
    #[error(transparent)]
    Rebase(#[from] Error),
    /// The caller could not keep the new base. Everything was rolled back.
    #[error("keep the branch's new base: {0}")]
    Keep(E),
}

/// Plans to bring to the branch what the parent has changed from `bases` to the snapshot `parent`, which becomes the parent's
/// new base. The branch is read; nothing is changed, but the branch's server may hold a scratch database meanwhile.
///
/// A resolution means what it means in a merge: `branch` keeps the branch's version, `parent` takes the parent's.
///
/// # Errors
/// [`Error::Database`], [`Error::Unsettled`]. Conflicts are no errors.
pub async fn plan_rebase(
    parent: &Snapshot,
    branch: &PgConnectOptions,
    bases: &Bases,
    resolutions: &Resolutions,
) -> Result<RebasePlan, Error> {
    let swapped = resolutions
        .iter()
        .map(|(name, choice)| {
            let choice = match choice {
                Choice::Parent => Choice::Branch,
                Choice::Branch => Choice::Parent,
            };
            (name.clone(), choice)
        })
        .collect();
    let sides = (&bases.branch, &bases.parent);
    let planned = planned(
        branch,
        async { Ok(parent.clone()) },
        sides,
        &swapped,
        Direction::Rebase,
    )
    .await?;
    Ok(RebasePlan {
        plan: planned.plan,
        bases: bases.clone(),
        parent: planned.source,
        names: planned.names,
        lacks: planned.lacks,
    })
}

impl RebasePlan {
    /// For the platform API. Changes are those of the branch's database.
    pub fn diff(&self) -> DiffResult {
        self.plan.diff()
    }

    /// Nothing stands in the way. (There may be nothing to do, too.)
    pub fn is_clean(&self) -> bool {
        self.plan.is_clean()
    }

    /// What the branch would read as, had it only its old base and the parent's changes. `now` is the branch after them.
    fn base_of_branch(&self, now: &Snapshot) -> Snapshot {
        Snapshot {
            catalog: self.catalog(&now.catalog),
            rows: match (&self.parent.rows, &self.bases.parent.rows) {
                (Some(parent), Some(parent_t0)) => {
                    let (branch_t0, now) = (self.bases.branch.rows.as_ref(), now.rows.as_ref());
                    branch_t0
                        .zip(now)
                        .map(|(branch_t0, now)| Rows::rebased(parent_t0, parent, branch_t0, now))
                }
                _ => self.bases.branch.rows.clone(),
            },
        }
    }

    fn catalog(&self, now: &Catalog) -> Catalog {
        let (parent_t0, branch_t0) = (&self.bases.parent.catalog, &self.bases.branch.catalog);
        let mut base = Catalog {
            facts: branch_t0
                .facts
                .iter()
                // What came with the copy, and is not the parent's business.
                .filter(|(id, _)| {
                    let last = self.names.last_of(BRANCH_T0, id);
                    !parent_t0
                        .facts
                        .contains_key(&self.names.own(PARENT_T0, &last))
                        && !self
                            .parent
                            .catalog
                            .facts
                            .contains_key(&self.names.own(PARENT, &last))
                })
                .map(|(id, fact)| (id.clone(), fact.clone()))
                .collect(),
            server_version: now.server_version,
            managed: now.managed.clone(),
            unmodelled: branch_t0.unmodelled.clone(),
        };
        for (id, fact) in &self.parent.catalog.facts {
            let last = self.names.last_of(PARENT, id);
            let known = Known {
                parent_t0: parent_t0.facts.get(&self.names.own(PARENT_T0, &last)),
                parent: fact,
                branch_t0: branch_t0.facts.get(&self.names.own(BRANCH_T0, &last)),
                now: now.facts.get(&last),
                taken: !self.lacks.contains(&last),
            };
            if let Some(fact) = known.base() {
                base.facts.insert(id.clone(), fact);
            }
        }
        base
    }
}

/// The places of a rebase's catalogs in [`Names`].
const BRANCH_T0: usize = 0;
const PARENT_T0: usize = 2;
const PARENT: usize = 3;

/// One fact of the parent, as the others have it.
struct Known<'a> {
    parent_t0: Option<&'a Fact>,
    parent: &'a Fact,
    branch_t0: Option<&'a Fact>,
    /// The branch after the rebase.
    now: Option<&'a Fact>,
    /// Whether the branch has the parent's version now.
    taken: bool,
}

impl Known<'_> {
    /// The names that it needs are the parent's, as all names in a base.
    fn base(&self) -> Option<Fact> {
        let place = self.now.or(self.branch_t0).map(|fact| fact.place);
        let unchanged = self.parent_t0.map(|fact| &fact.payload) == Some(&self.parent.payload);
        let payload = if unchanged {
            self.branch_t0?.payload.clone()
        } else {
            match self.now {
                // As the branch's own parser prints it, unless that has names of the branch in it.
                Some(now) if self.taken && now.needs == self.parent.needs => now.payload.clone(),
                _ => self.with_ids_of_branch(),
            }
        };
        Some(Fact {
            payload,
            needs: self.parent.needs.clone(),
            place: place.unwrap_or_default(),
        })
    }

    /// Labels and attributes have ids, too: that of the one that was so called at T0, or that has the name now.
    fn with_ids_of_branch(&self) -> Payload {
        let mut payload = self.parent.payload.clone();
        let payload_of = |fact: Option<&'_ Fact>| fact.map(|fact| fact.payload.clone());
        let (parent_t0, branch_t0, now) = (
            payload_of(self.parent_t0),
            payload_of(self.branch_t0),
            payload_of(self.now),
        );
        match &mut payload {
            Payload::Enum { labels } => {
                let known = |payload: &Option<Payload>| match payload {
                    Some(Payload::Enum { labels }) => labels.clone(),
                    _ => Vec::new(),
                };
                let (parent_t0, branch_t0, now) =
                    (known(&parent_t0), known(&branch_t0), known(&now));
                for label in labels {
                    let was = parent_t0.iter().find(|old| old.oid == label.oid);
                    label.oid = was
                        .and_then(|was| branch_t0.iter().find(|old| old.name == was.name))
                        .or_else(|| now.iter().find(|new| new.name == label.name))
                        .map_or(0, |known| known.oid);
                }
            }
            Payload::Composite { attributes } => {
                let known = |payload: &Option<Payload>| match payload {
                    Some(Payload::Composite { attributes }) => attributes.clone(),
                    _ => Vec::new(),
                };
                let (parent_t0, branch_t0, now) =
                    (known(&parent_t0), known(&branch_t0), known(&now));
                for attribute in attributes {
                    let was = parent_t0.iter().find(|old| old.number == attribute.number);
                    attribute.number = was
                        .and_then(|was| branch_t0.iter().find(|old| old.name == was.name))
                        .or_else(|| now.iter().find(|new| new.name == attribute.name))
                        .map_or(0, |known| known.number);
                }
            }
            _ => {}
        }
        payload
    }
}

/// Applies it to the branch, as [`crate::apply`] does a merge to the parent. Inside the transaction, after the proof and
/// before COMMIT, `keep` gets the branch's new base: where it fails, all is rolled back. The parent's new base is the
/// snapshot with [`RebasePlan::parent_hash`].
///
/// With `options.record` a repeat after a commit does nothing and does not call `keep`.
///
/// # Errors
/// Those of [`crate::apply`], of the branch; [`RebaseError::Keep`].
pub async fn apply_rebase<E>(
    branch: &PgConnectOptions,
    plan: &RebasePlan,
    options: &ApplyOptions,
    keep: impl AsyncFnOnce(&Snapshot) -> Result<(), E>,
) -> Result<Applied, RebaseError<E>> {
    let keep = async move |now: Snapshot| keep(&plan.base_of_branch(&now)).await;
    apply_keeping(branch, &plan.plan, options, keep).await
}
