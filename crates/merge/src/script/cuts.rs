//! Taking a cycle apart: what is written in two steps so that something else fits in between.

use std::collections::HashSet;

use super::{
    graph::{Cycles, Key, Step},
    rebuild::{Action, Actions},
    side::Side,
};
use crate::catalog::{FactId, Kind, Payload};

#[derive(Debug, Default)]
pub struct Cuts {
    /// Columns (or their defaults) and constraints that do not go with their new table's CREATE.
    pub separate: HashSet<FactId>,
    /// New columns whose default follows later.
    pub late_defaults: HashSet<FactId>,
    /// Parts that are dropped before their table is.
    pub explicit: HashSet<FactId>,
    /// Views and functions that begin as a stub with the right columns or signature.
    pub stubs: HashSet<FactId>,
    /// Views that become stubs before they are dropped.
    pub emptied: HashSet<FactId>,
    /// Columns and domains whose default is dropped early.
    pub loosened: HashSet<FactId>,
    /// What could be altered in place but is dropped and made again.
    pub rebuild: HashSet<FactId>,
}

impl Cuts {
    /// Takes each of the cycles apart at its weakest place. False if there was nothing (more) to take apart.
    pub fn cut(
        &mut self,
        cycles: &Cycles<'_>,
        from: &Side<'_>,
        to: &Side<'_>,
        actions: &Actions<'_>,
    ) -> bool {
        let mut cut = false;
        for cycle in cycles {
            let members: HashSet<&FactId> = cycle.iter().map(|(id, _)| *id).collect();
            cut |= self.cut_tables(cycle, &members, from, to)
                || self.cut_one(cycle, from, to, actions);
        }
        cut
    }

    /// Defaults, generated columns and constraints out of their tables.
    fn cut_tables(
        &mut self,
        cycle: &[Key<'_>],
        members: &HashSet<&FactId>,
        from: &Side<'_>,
        to: &Side<'_>,
    ) -> bool {
        let mut cut = false;
        for &(table, step) in cycle {
            let making = step == Step::Make;
            if !(making || step == Step::Drop)
                || !matches!(table.kind, Kind::Table | Kind::Domain | Kind::Column)
            {
                continue;
            }
            let side = if making { to } else { from };
            let parts: Vec<&FactId> = if table.kind == Kind::Column {
                vec![table]
            } else {
                std::iter::once(table)
                    .chain(side.parts(&table.schema, &table.object).iter().copied())
                    .collect()
            };
            for part in parts {
                let in_cycle = side.needs(part).iter().any(|need| {
                    members.contains(need)
                        && !(need.schema == table.schema
                            && need.object == table.object
                            && need.kind == table.kind)
                });
                if !in_cycle {
                    continue;
                }
                let is_new = match side.payload(part) {
                    Some(Payload::Column(column)) if column.default.is_some() => {
                        if making {
                            self.late_defaults.insert(part.clone())
                        } else {
                            self.loosened.insert(part.clone())
                        }
                    }
                    Some(Payload::Column(_) | Payload::Constraint { .. }) if making => {
                        part != table && self.separate.insert(part.clone())
                    }
                    Some(Payload::Column(_) | Payload::Constraint { .. }) => {
                        part != table && self.explicit.insert(part.clone())
                    }
                    Some(Payload::Domain {
                        default: Some(_), ..
                    }) if making => self.late_defaults.insert(part.clone()),
                    Some(Payload::Domain {
                        default: Some(_), ..
                    }) => self.loosened.insert(part.clone()),
                    _ => false,
                };
                // A column with a default that is itself in the way (of a row type) goes separately in a second round.
                let second = !is_new
                    && part.kind == Kind::Column
                    && part != table
                    && if making {
                        self.separate.insert(part.clone())
                    } else {
                        self.explicit.insert(part.clone())
                    };
                cut |= is_new || second;
            }
        }
        cut
    }

    /// One view or function in two, or something that is altered in place made anew.
    fn cut_one(
        &mut self,
        cycle: &[Key<'_>],
        from: &Side<'_>,
        to: &Side<'_>,
        actions: &Actions<'_>,
    ) -> bool {
        for &(id, step) in cycle {
            let new = match (step, id.kind) {
                (Step::Make, Kind::View) if actions.of(id).fresh() => self.stubs.insert(id.clone()),
                (Step::Drop, Kind::View) if from.find(id).is_some() => {
                    self.emptied.insert(id.clone())
                }
                _ => false,
            };
            if new {
                return true;
            }
        }
        for &(id, step) in cycle {
            let alters = step == Step::Make && actions.of(id) == Action::Alter;
            let remakable = matches!(
                id.kind,
                Kind::View
                    | Kind::Function
                    | Kind::Procedure
                    | Kind::Policy
                    | Kind::Trigger
                    | Kind::Rule
            );
            if alters && remakable && self.rebuild.insert(id.clone()) {
                return true;
            }
        }
        for &(id, step) in cycle {
            let atomic = matches!(to.payload(id), Some(Payload::Function { atomic: true, .. }));
            if step == Step::Make && atomic && self.stubs.insert(id.clone()) {
                return true;
            }
        }
        false
    }
}
