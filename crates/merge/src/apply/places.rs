//! Ids of a parent that was changed in a scratch database: renames are told by ids, and a copy has others.

use std::collections::BTreeMap;

use crate::catalog::{Catalog, Fact, FactId, Kind, Payload, Place};

/// Above all that Postgres gave so far to anything of users, and far above the columns of real tables.
const NEW_OIDS: u32 = u32::MAX / 2;
const NEW_NUMBERS: i16 = 1_600;

/// `original` with the edits that lead from `before` to `after`, where `before` is `original` read from a copy. What
/// is in the copy under the id of something in `before` keeps the id that this has in `original`.
pub(super) fn carry(original: &Catalog, before: &Catalog, after: &Catalog) -> Catalog {
    let ids = Ids::new(original, before);
    let mut result = original.clone();
    result.unmodelled.clone_from(&after.unmodelled);
    result.managed.clone_from(&after.managed);
    for id in before.diff(after) {
        match after.facts.get(&id) {
            None => {
                result.facts.remove(&id);
            }
            Some(fact) => {
                result.facts.insert(id.clone(), ids.translate(&id, fact));
            }
        }
    }
    result
}

/// From ids of the copy to those of the original.
struct Ids {
    /// By kind, since only with it an id is unique.
    places: BTreeMap<(Kind, Place), Place>,
    /// Labels of enums and attributes of composite types, by the type's place in the copy and their own number there.
    members: BTreeMap<(Place, u32), u32>,
}

impl Ids {
    fn new(original: &Catalog, copy: &Catalog) -> Self {
        let mut ids = Self {
            places: BTreeMap::new(),
            members: BTreeMap::new(),
        };
        for (id, there) in &copy.facts {
            let Some(here) = original.facts.get(id) else {
                continue;
            };
            ids.places.insert((id.kind, there.place), here.place);
            for (name, number) in members(&there.payload) {
                if let Some((_, own)) = members(&here.payload).find(|(other, _)| *other == name) {
                    ids.members.insert((there.place, number), own);
                }
            }
        }
        ids
    }

    fn translate(&self, id: &FactId, fact: &Fact) -> Fact {
        let mut translated = fact.clone();
        translated.place = self.place(id.kind, fact.place);
        match &mut translated.payload {
            Payload::Enum { labels } => {
                for label in labels {
                    label.oid = self.member(fact.place, label.oid, NEW_OIDS);
                }
            }
            Payload::Composite { attributes } => {
                for attribute in attributes {
                    let number = u32::try_from(attribute.number).unwrap_or_default();
                    let number =
                        self.member(fact.place, number, u32::from(NEW_NUMBERS.unsigned_abs()));
                    attribute.number = i16::try_from(number).unwrap_or(i16::MAX);
                }
            }
            _ => {}
        }
        translated
    }

    fn place(&self, kind: Kind, place: Place) -> Place {
        if let Some(place) = self.places.get(&(kind, place)) {
            return *place;
        }
        // New. A column of a table that was there before belongs to that table's id.
        let whole = Place { number: 0, ..place };
        let table = self.places.get(&(Kind::Table, whole));
        Place {
            oid: table.map_or(NEW_OIDS | place.oid, |table| table.oid),
            number: match place.number {
                0 => 0,
                number => number.saturating_add(NEW_NUMBERS),
            },
        }
    }

    fn member(&self, of: Place, number: u32, new: u32) -> u32 {
        let known = self.members.get(&(of, number));
        known.copied().unwrap_or(number.saturating_add(new))
    }
}

/// Names and ids of an enum's labels or a composite type's attributes.
fn members(payload: &Payload) -> Box<dyn Iterator<Item = (&str, u32)> + '_> {
    match payload {
        Payload::Enum { labels } => {
            Box::new(labels.iter().map(|label| (label.name.as_str(), label.oid)))
        }
        Payload::Composite { attributes } => Box::new(attributes.iter().map(|attribute| {
            let number = u32::try_from(attribute.number).unwrap_or_default();
            (attribute.name.as_str(), number)
        })),
        _ => Box::new(std::iter::empty()),
    }
}
