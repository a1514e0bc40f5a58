//! Constraints of tables and domains, indexes, statistics objects.

use super::{
    graph::Step,
    kinds::order,
    quote,
    rebuild::Action,
    writer::{Writer, domain_or_table},
};
use crate::catalog::{FactId, Kind, Payload};

impl<'a> Writer<'a, '_> {
    pub(super) fn make_constraint(&mut self, id: &'a FactId, action: Action) {
        match self.to.payload(id) {
            Some(Payload::Constraint {
                kind, definition, ..
            }) => self.make_one_constraint(id, action, *kind, definition),
            Some(Payload::Index { .. }) => self.make_index(id, action),
            Some(Payload::Statistics {
                definition, target, ..
            }) => {
                let mut sql = Vec::new();
                if action.fresh() {
                    sql.push(definition.clone());
                }
                let old = match self.from.payload(id) {
                    Some(Payload::Statistics { target, .. }) if !action.fresh() => *target,
                    _ => -1,
                };
                if old != *target {
                    sql.push(format!(
                        "ALTER STATISTICS {} SET STATISTICS {target}",
                        quote::object(id)
                    ));
                }
                self.step(id, Step::Make, order::TRIGGER, sql);
            }
            _ => {}
        }
    }

    fn make_one_constraint(
        &mut self,
        id: &'a FactId,
        action: Action,
        kind: char,
        definition: &str,
    ) {
        let what = domain_or_table(self.to, id);
        let (name, constraint) = (quote::object(id), quote::ident(&id.part));
        // `create_table` and `create_domain` ran before (tables and domains sort before constraints) or will; an
        // alias that they leave takes the place of this step.
        if self
            .to
            .container_of(id)
            .is_some_and(|c| self.actions.of(c).fresh())
            && self.is_inline(id)
        {
            return;
        }
        let sql = if action == Action::Alter {
            format!("ALTER {what} {name} VALIDATE CONSTRAINT {constraint}")
        } else {
            format!("ALTER {what} {name} ADD CONSTRAINT {constraint} {definition}")
        };
        let at = match kind {
            'f' => order::FOREIGN_KEY,
            'c' => order::CHECK,
            _ => order::KEY,
        };
        self.step(id, Step::Make, at, vec![sql]);
        if action == Action::Rebuild {
            self.renew_replica_identity(id, id);
        }
    }

    /// Whether the CREATE of its table or domain carries the constraint.
    fn is_inline(&self, id: &FactId) -> bool {
        match self.to.payload(id) {
            Some(Payload::Constraint {
                kind,
                validated: true,
                ..
            }) => {
                *kind != 'f'
                    && !self.cuts.separate.contains(id)
                    && !self
                        .to
                        .needs(id)
                        .iter()
                        .any(|need| need.kind == Kind::Column && self.cuts.separate.contains(need))
            }
            _ => false,
        }
    }

    fn make_index(&mut self, id: &'a FactId, action: Action) {
        let Some(Payload::Index {
            definition,
            on,
            clustered,
            statistics,
        }) = self.to.payload(id)
        else {
            return;
        };
        let old = match self.from.payload(id) {
            Some(Payload::Index {
                clustered,
                statistics,
                ..
            }) if !action.fresh() => Some((*clustered, statistics)),
            _ => None,
        };
        let table = self.to.container(&id.schema, on);
        let table_sql = match table {
            Some(t) if t.kind == Kind::MaterializedView => {
                format!("MATERIALIZED VIEW {}", quote::object(t))
            }
            _ => format!("TABLE {}", quote::qualified(&id.schema, on)),
        };
        let mut sql = Vec::new();
        if old.is_none() {
            sql.push(definition.clone());
        }
        match (old.is_some_and(|(clustered, _)| clustered), *clustered) {
            (false, true) => sql.push(format!(
                "ALTER {table_sql} CLUSTER ON {}",
                quote::ident(&id.object)
            )),
            (true, false) => {
                // Where another index takes over, its CLUSTER ON is enough.
                let taken = self.to.facts.iter().any(|(other, fact)| {
                    other.schema == id.schema
                        && matches!(&fact.payload, Payload::Index { on: o, clustered: true, .. } if o == on)
                });
                if !taken {
                    sql.push(format!("ALTER {table_sql} SET WITHOUT CLUSTER"));
                }
            }
            _ => {}
        }
        let numbers = statistics
            .keys()
            .chain(old.iter().flat_map(|(_, s)| s.keys()));
        for number in numbers.collect::<std::collections::BTreeSet<_>>() {
            let (was, is) = (old.and_then(|(_, s)| s.get(number)), statistics.get(number));
            if was != is {
                let target = is.copied().unwrap_or(-1);
                sql.push(format!(
                    "ALTER INDEX {} ALTER COLUMN {number} SET STATISTICS {target}",
                    quote::object(id)
                ));
            }
        }
        let at = match table {
            Some(t) if t.kind == Kind::MaterializedView => order::MATERIALIZED_VIEW,
            _ => order::INDEX,
        };
        self.step(id, Step::Make, at, sql);
        if action == Action::Rebuild
            && let Some(table) = table
        {
            self.renew_replica_identity(id, table);
        }
    }
}
