//! Enums to which both sides added labels.

use super::Direction;
use crate::catalog::Label;

/// The labels of the merged enum, with the oids that the parent's have (0 for new ones), or why the sides cannot be joined.
///
/// A label of the branch goes before its successor, or last. Labels are the same by oid on each side, else by name. What the
/// branch removed or put elsewhere is so in the result: that needs a migration, which is for others to say.
pub fn merge(
    parent_t0: &[Label],
    parent: &[Label],
    branch_t0: &[Label],
    branch: &[Label],
    direction: Direction,
) -> Result<Vec<Label>, String> {
    if direction == Direction::Rebase {
        // The order in which a merge would bring them together, so that it does not depend on who comes first.
        let merged = merge(branch_t0, branch, parent_t0, parent, Direction::Merge)?;
        return Ok(with_ids_of(parent_t0, parent, branch_t0, branch, merged));
    }
    let (target, source) = (direction.target(), direction.source());
    let ours = origins(branch_t0, branch);
    let theirs = origins(parent_t0, parent);
    let kept =
        |origins: &[Option<String>]| -> Vec<String> { origins.iter().flatten().cloned().collect() };
    let all: Vec<String> = branch_t0.iter().map(|label| label.name.clone()).collect();
    if kept(&ours) != all {
        if names(parent) != names(parent_t0) {
            return Err(format!(
                "the {source} removed or reordered labels, the {target} changed others"
            ));
        }
        return Ok(branch
            .iter()
            .zip(&ours)
            .map(|(label, origin)| Label {
                name: label.name.clone(),
                oid: oid_of(parent, &theirs, origin.as_ref()),
            })
            .collect());
    }
    // The parent may have dropped labels by making the type anew; the branch's additions join what there is.
    if kept(&theirs) != all && names(branch) != names(branch_t0) {
        return Err(format!(
            "the {target} removed or reordered labels, the {source} changed others"
        ));
    }
    let mut merged = parent.to_vec();
    let mut origins = theirs.clone();
    for (label, origin) in branch.iter().zip(&ours) {
        let Some(origin) = origin else { continue };
        let renamed = label.name != *origin;
        let there = origins
            .iter()
            .position(|theirs| theirs.as_ref() == Some(origin));
        if let (true, Some(place)) = (renamed, there) {
            if merged[place].name != *origin && merged[place].name != label.name {
                return Err(format!(
                    "label {origin} was renamed to {} on the {target} and to {} on the {source}",
                    merged[place].name, label.name
                ));
            }
            merged[place].name.clone_from(&label.name);
        }
    }
    // From the last to the first, so that the successor is always there.
    let mut successor: Option<String> = None;
    for (index, (label, origin)) in branch.iter().zip(&ours).enumerate().rev() {
        if origin.is_none() {
            if let Some(there) = merged.iter().position(|theirs| theirs.name == label.name) {
                let before = |labels: &[Label], origins: &[Option<String>], end: usize| {
                    labels[..end]
                        .iter()
                        .zip(origins)
                        .filter(|(_, origin)| origin.is_some())
                        .count()
                };
                if origins[there].is_some()
                    || before(&merged, &origins, there) != before(branch, &ours, index)
                {
                    return Err(format!(
                        "label {} was added in different places",
                        label.name
                    ));
                }
            } else {
                let place = successor
                    .as_ref()
                    .and_then(|name| merged.iter().position(|label| label.name == *name))
                    .unwrap_or(merged.len());
                merged.insert(
                    place,
                    Label {
                        name: label.name.clone(),
                        oid: 0,
                    },
                );
                origins.insert(place, None);
            }
        }
        successor = Some(
            origin
                .as_ref()
                .and_then(|origin| {
                    origins
                        .iter()
                        .position(|theirs| theirs.as_ref() == Some(origin))
                })
                .map_or_else(|| label.name.clone(), |place| merged[place].name.clone()),
        );
    }
    let told = names(&merged);
    if let Some(twice) = told
        .iter()
        .find(|name| told.iter().filter(|other| other == name).count() > 1)
    {
        return Err(format!("label {twice} would be there twice"));
    }
    Ok(merged)
}

/// `merged` has the branch's ids, and gets the parent's.
fn with_ids_of(
    parent_t0: &[Label],
    parent: &[Label],
    branch_t0: &[Label],
    branch: &[Label],
    merged: Vec<Label>,
) -> Vec<Label> {
    let (ours, theirs) = (origins(branch_t0, branch), origins(parent_t0, parent));
    let own = |label: &Label| {
        let known = branch
            .iter()
            .zip(&ours)
            .find(|(known, _)| known.oid == label.oid && label.oid != 0);
        if let Some((_, origin @ Some(_))) = known {
            oid_of(parent, &theirs, origin.as_ref())
        } else {
            let named = parent.iter().find(|known| known.name == label.name);
            named.map_or(0, |known| known.oid)
        }
    };
    merged
        .into_iter()
        .map(|label| Label {
            oid: own(&label),
            name: label.name,
        })
        .collect()
}

/// The T0 name of each label now; none for an added one.
fn origins(t0: &[Label], now: &[Label]) -> Vec<Option<String>> {
    now.iter()
        .map(|label| {
            t0.iter()
                .find(|old| old.oid == label.oid && old.oid != 0)
                .or_else(|| {
                    // By name only where the old one is not somebody else now.
                    t0.iter().find(|old| {
                        old.name == label.name
                            && !now.iter().any(|other| other.oid == old.oid && old.oid != 0)
                    })
                })
                .map(|old| old.name.clone())
        })
        .collect()
}

fn names(labels: &[Label]) -> Vec<&str> {
    labels.iter().map(|label| label.name.as_str()).collect()
}

fn oid_of(labels: &[Label], origins: &[Option<String>], origin: Option<&String>) -> u32 {
    let place = origin.and_then(|origin| {
        origins
            .iter()
            .position(|theirs| theirs.as_ref() == Some(origin))
    });
    place.map_or(0, |place| labels[place].oid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Vec<Label> {
        text.split_whitespace()
            .map(|label| {
                let (name, oid) = label.split_once(':').unwrap();
                Label {
                    name: name.to_owned(),
                    oid: oid.parse().unwrap(),
                }
            })
            .collect()
    }

    fn merged(
        parent_t0: &str,
        parent: &str,
        branch_t0: &str,
        branch: &str,
    ) -> Result<String, String> {
        let merged = merge(
            &labels(parent_t0),
            &labels(parent),
            &labels(branch_t0),
            &labels(branch),
            Direction::Merge,
        )?;
        Ok(merged
            .iter()
            .map(|label| format!("{}:{}", label.name, label.oid))
            .collect::<Vec<_>>()
            .join(" "))
    }

    #[test]
    fn labels_from_both_sides_join() {
        assert_eq!(
            merged(
                "red:1 blue:2",
                "red:1 blue:2 green:3",
                "red:11 blue:12",
                "black:13 red:11 blue:12 white:14"
            )
            .unwrap(),
            "black:0 red:1 blue:2 green:3 white:0"
        );
    }

    #[test]
    fn several_new_labels_keep_their_order() {
        assert_eq!(
            merged("a:1 b:2", "a:1 b:2", "a:1 b:2", "a:1 x:5 y:6 b:2 z:7 w:8").unwrap(),
            "a:1 x:0 y:0 b:2 z:0 w:0"
        );
    }

    #[test]
    fn the_same_label_in_the_same_place_is_there_already() {
        assert_eq!(
            merged("a:1 b:2", "a:1 x:3 b:2", "a:1 b:2", "a:1 x:9 b:2").unwrap(),
            "a:1 x:3 b:2"
        );
        assert!(merged("a:1 b:2", "a:1 b:2 x:3", "a:1 b:2", "a:1 x:9 b:2").is_err());
    }

    #[test]
    fn a_renamed_label_stays_the_same_label() {
        assert_eq!(
            merged("a:1 b:2", "a:1 b:2 c:3", "a:11 b:12", "z:11 b:12 d:13").unwrap(),
            "z:1 b:2 c:3 d:0"
        );
        assert!(merged("a:1 b:2", "x:1 b:2", "a:11 b:12", "z:11 b:12").is_err());
    }

    #[test]
    fn removed_labels_are_gone_unless_the_parent_changed_too() {
        assert_eq!(
            merged("a:1 b:2 c:3", "a:1 b:2 c:3", "a:1 b:2 c:3", "a:7 c:8").unwrap(),
            "a:1 c:3"
        );
        assert!(merged("a:1 b:2 c:3", "a:1 b:2 c:3 d:4", "a:1 b:2 c:3", "a:7 c:8").is_err());
    }
}
