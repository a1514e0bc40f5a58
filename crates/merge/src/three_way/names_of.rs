//! What each side calls a thing, after both may have renamed it.

use std::collections::{BTreeMap, HashMap};

use super::Aligned;
use crate::catalog::FactId;

/// From final names to those of the four catalogs (parent's T0, parent, branch's T0, branch).
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// By the names at T0; the other fields by final and by own names.
    last: BTreeMap<FactId, FactId>,
    own: [HashMap<FactId, FactId>; 4],
    to_final: [BTreeMap<FactId, FactId>; 4],
}

impl Names {
    pub fn new(aligned: &Aligned<'_>) -> Self {
        let t0 = [&aligned.moves[2], &aligned.moves[0]];
        Self {
            last: t0
                .into_iter()
                .flatten()
                .map(|(was, is)| (was.clone(), is.clone()))
                .collect(),
            own: std::array::from_fn(|place| {
                let moves = aligned.moves[place].iter();
                moves
                    .map(|(own, last)| (last.clone(), own.clone()))
                    .collect()
            }),
            to_final: aligned.moves.clone(),
        }
    }

    /// The final name of what was called so at T0.
    pub fn last(&self, t0: &FactId) -> FactId {
        if let Some(last) = self.last.get(t0) {
            return last.clone();
        }
        if self.last.is_empty() || t0.part.is_empty() {
            return t0.clone();
        }
        // A new part of something renamed.
        let holder = self
            .last
            .iter()
            .find(|(was, _)| {
                was.part.is_empty()
                    && was.of.is_none()
                    && (&was.schema, &was.object) == (&t0.schema, &t0.object)
            })
            .map(|(_, last)| last);
        holder.map_or_else(
            || t0.clone(),
            |holder| FactId {
                schema: holder.schema.clone(),
                object: holder.object.clone(),
                ..t0.clone()
            },
        )
    }

    /// What the catalog at this place calls what is finally called so.
    pub fn own(&self, place: usize, last: &FactId) -> FactId {
        let own = self.own[place].get(last);
        own.unwrap_or(last).clone()
    }

    /// The final name of what the catalog at this place calls so.
    pub fn last_of(&self, place: usize, own: &FactId) -> FactId {
        self.to_final[place].get(own).unwrap_or(own).clone()
    }
}
