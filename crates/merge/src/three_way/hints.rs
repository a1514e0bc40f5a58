//! What people are told of a conflict: hints that name both edits, and hashes of the three forms.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::{Action, Aligned, containers::ancestors, edits::Edits};
use crate::catalog::{Catalog, Column, Fact, FactId, Hash, Kind, Payload};

/// Both edits of one fact.
pub fn fact(aligned: &Aligned<'_>, id: &FactId) -> String {
    format!(
        "{}: {}; {}: {}",
        aligned.direction.target(),
        edit(
            aligned.parent_t0.facts.get(id),
            aligned.parent.facts.get(id)
        ),
        aligned.direction.source(),
        edit(
            aligned.branch_t0.facts.get(id),
            aligned.branch.facts.get(id)
        ),
    )
}

/// One side dropped it, the other one changed something in it; or both added it.
pub fn container(aligned: &Aligned<'_>, id: &FactId, branch: &Edits, parent: &Edits) -> String {
    let inside = |edits: &Edits, now: &Catalog| -> String {
        let mut told: Vec<String> = edits
            .made
            .iter()
            .filter(|(part, action)| **action != Action::Drop && ancestors(now, part).contains(id))
            .map(|(part, action)| {
                let done = match action {
                    Action::Add => "added",
                    _ => "changed",
                };
                format!(
                    "{} {} {done}",
                    part.kind.as_str(),
                    aligned.t0_name(part).name()
                )
            })
            .collect();
        told.extend(
            edits
                .renamed
                .iter()
                .filter(|part| ancestors(now, part).contains(id))
                .map(|part| {
                    format!(
                        "{} {} renamed",
                        part.kind.as_str(),
                        aligned.t0_name(part).name()
                    )
                }),
        );
        let rest = told.len().saturating_sub(3);
        told.truncate(3);
        let told = told.join(", ");
        if rest > 0 {
            return format!("{told} and {rest} more");
        }
        told
    };
    let (target, source) = (aligned.direction.target(), aligned.direction.source());
    if branch.dropped(id) {
        format!(
            "{target}: {}; {source}: dropped",
            inside(parent, &aligned.parent)
        )
    } else if parent.dropped(id) {
        format!(
            "{target}: dropped; {source}: {}",
            inside(branch, &aligned.branch)
        )
    } else {
        "added on both sides, differently".to_owned()
    }
}

/// What became of a fact.
fn edit(t0: Option<&Fact>, now: Option<&Fact>) -> String {
    match (t0.map(|fact| &fact.payload), now.map(|fact| &fact.payload)) {
        (_, None) => "dropped".to_owned(),
        (None, Some(payload)) => format!("added as {}", short(payload)),
        (Some(Payload::Column(old)), Some(Payload::Column(new))) => column(old, new),
        (Some(_), Some(payload)) => format!("changed to {}", short(payload)),
    }
}

fn column(old: &Column, new: &Column) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    let mut told = Vec::new();
    if old.type_ != new.type_ {
        told.push(format!("type from {} to {}", old.type_, new.type_));
    }
    if old.default != new.default {
        told.push(format!(
            "default from {} to {}",
            text(&old.default),
            text(&new.default)
        ));
    }
    if old.not_null != new.not_null {
        told.push(
            if new.not_null {
                "NOT NULL set"
            } else {
                "NOT NULL dropped"
            }
            .to_owned(),
        );
    }
    if old.generated != new.generated {
        told.push(format!(
            "generated expression from {} to {}",
            text(&old.generated),
            text(&new.generated)
        ));
    }
    if old.identity != new.identity {
        told.push("identity changed".to_owned());
    }
    if told.is_empty() {
        told.push("storage options changed".to_owned());
    }
    told.join(", ")
}

/// Of a text in a hint, in characters.
const LONGEST: usize = 160;

/// The part of a payload that people know it by, on one line.
fn short(payload: &Payload) -> String {
    let text = match payload {
        Payload::Constraint { definition, .. }
        | Payload::Index { definition, .. }
        | Payload::View { definition, .. }
        | Payload::MaterializedView { definition, .. }
        | Payload::Function { definition, .. }
        | Payload::Aggregate { definition }
        | Payload::Rule { definition, .. }
        | Payload::Statistics { definition, .. }
        | Payload::Trigger { definition, .. }
        | Payload::Publication { definition } => definition.clone(),
        Payload::Column(column) => column.type_.clone(),
        Payload::Owner { role } => role.clone(),
        Payload::Comment { text } => text.clone(),
        Payload::Enum { labels } => labels
            .iter()
            .map(|label| label.name.as_str())
            .collect::<Vec<_>>()
            .join(", "),
        other => serde_json::to_string(other).unwrap_or_default(),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() > LONGEST {
        let cut: String = line.chars().take(LONGEST).collect();
        return format!("{cut}…");
    }
    line
}

/// For each name the hashes of the parent at T0, the parent now and the branch now, with all that they hold; empty where it
/// is absent.
pub fn hashes(aligned: &Aligned<'_>, ids: &[FactId]) -> BTreeMap<FactId, [Hash; 3]> {
    let mut all: BTreeMap<FactId, [Hash; 3]> = BTreeMap::new();
    if ids.is_empty() {
        return all;
    }
    for (place, catalog) in [&aligned.parent_t0, &aligned.parent, &aligned.branch]
        .into_iter()
        .enumerate()
    {
        for (id, hash) in deep_hashes(catalog, ids) {
            all.entry(id).or_default()[place] = hash;
        }
    }
    all
}

/// One walk over the catalog, whatever the number of names.
fn deep_hashes(catalog: &Catalog, ids: &[FactId]) -> Vec<(FactId, Hash)> {
    let containers: BTreeSet<&FactId> = ids.iter().filter(|id| can_hold(id.kind)).collect();
    let mut digests: BTreeMap<&FactId, Sha256> = BTreeMap::new();
    let mut told: Vec<(FactId, Hash)> = ids
        .iter()
        .filter(|id| !can_hold(id.kind))
        .filter_map(|id| Some((id.clone(), catalog.facts.get(id)?.payload.hash())))
        .collect();
    if !containers.is_empty() {
        for (part, fact) in &catalog.facts {
            let mut holders = ancestors(catalog, part);
            holders.push(part.clone());
            for holder in &holders {
                if let Some(id) = containers.get(holder) {
                    let digest = digests.entry(*id).or_default();
                    digest.update(serde_json::to_vec(part).unwrap_or_default());
                    digest.update(fact.payload.hash());
                }
            }
        }
    }
    told.extend(
        digests
            .into_iter()
            .filter(|(id, _)| catalog.facts.contains_key(id))
            .map(|(id, digest)| (id.clone(), hex::encode(digest.finalize()))),
    );
    told
}

const fn can_hold(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Schema
            | Kind::Table
            | Kind::View
            | Kind::MaterializedView
            | Kind::Domain
            | Kind::Column
            | Kind::Composite
    )
}
