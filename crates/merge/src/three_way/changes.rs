//! Names what a merge does as merge-cases' "Names and grain of changes" says.

use std::collections::BTreeMap;

use super::{Action, Change, containers::container, decide::Decision};
use crate::catalog::{Catalog, FactId, Kind};

/// The change that an edit of the branch is listed under: itself, or that of what holds it.
pub fn root(decision: &Decision<'_>, id: &FactId) -> FactId {
    let Some(action) = decision.taken.get(id) else {
        return id.clone();
    };
    let catalog: &Catalog = match action {
        Action::Drop => &decision.aligned.parent,
        _ => &decision.aligned.branch,
    };
    let mut root = id.clone();
    while let Some(holder) = container(catalog, &root) {
        if decision.taken.get(&holder) != Some(action) || !holds(&holder, &root, *action) {
            break;
        }
        root = holder;
    }
    root
}

/// Whether an added or dropped container stands for the part.
fn holds(holder: &FactId, part: &FactId, action: Action) -> bool {
    let about = matches!(part.kind, Kind::Owner | Kind::Grant | Kind::Comment);
    match action {
        Action::Modify => false,
        Action::Add => {
            holder.kind != Kind::Schema
                && !matches!(
                    part.kind,
                    Kind::Index | Kind::Trigger | Kind::Policy | Kind::Rule | Kind::Statistics
                )
                || about
        }
        Action::Drop => holder.kind != Kind::Schema || about || part.kind == Kind::DefaultPrivilege,
    }
}

/// All changes, sorted by kind and name.
pub fn changes(decision: &Decision<'_>) -> Vec<Change> {
    let mut groups: BTreeMap<FactId, Vec<FactId>> = BTreeMap::new();
    for id in decision.taken.keys() {
        let root = root(decision, id);
        if follows(decision, &root) {
            continue;
        }
        groups.entry(root).or_default().push(id.clone());
    }
    let mut changes: Vec<Change> = groups
        .into_iter()
        .map(|(root, parts)| {
            let action = decision.taken.get(&root).copied().unwrap_or(Action::Modify);
            let mut facts = vec![root.clone()];
            facts.extend(parts.into_iter().filter(|part| *part != root));
            Change {
                id: decision.aligned.t0_name(&root),
                action,
                facts,
            }
        })
        .collect();
    changes.sort_by(|one, other| one.id.cmp(&other.id));
    changes
}

/// A sequence that a column comes to own has its table's owner from then on, not one of its own.
fn follows(decision: &Decision<'_>, id: &FactId) -> bool {
    let action = decision.taken.get(id);
    id.kind == Kind::Owner
        && action != Some(&Action::Modify)
        && id
            .subject()
            .is_some_and(|subject| decision.taken.get(&subject) != action)
}
