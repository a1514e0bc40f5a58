//! What watches over rows: triggers, policies, the flags of row security.

use std::fmt::Write as _;

use super::{graph::Step, kinds::order, quote, rebuild::Action, views::firing, writer::Writer};
use crate::catalog::{FactId, Payload};

impl<'a> Writer<'a, '_> {
    pub(super) fn make_guard(&mut self, id: &'a FactId, action: Action) {
        let old = self.from.payload(id).filter(|_| action == Action::Alter);
        let (table, name) = (quote::object(id), quote::ident(&id.part));
        match self.to.payload(id) {
            Some(Payload::Trigger {
                definition,
                enabled,
                ..
            }) => {
                let mut sql = Vec::new();
                let mut state = 'O';
                match old {
                    Some(Payload::Trigger {
                        definition: old,
                        enabled,
                        ..
                    }) if old == definition => state = *enabled,
                    // A replaced trigger is enabled again.
                    Some(_) => sql.push(definition.replacen(
                        "CREATE TRIGGER",
                        "CREATE OR REPLACE TRIGGER",
                        1,
                    )),
                    None => sql.push(definition.clone()),
                }
                if state != *enabled {
                    sql.push(format!(
                        "ALTER TABLE {table} {} TRIGGER {name}",
                        firing(*enabled)
                    ));
                }
                self.step(id, Step::Make, order::TRIGGER, sql);
            }
            Some(Payload::Policy {
                command,
                permissive,
                roles,
                using,
                check,
            }) => {
                let roles: Vec<_> = roles
                    .iter()
                    .map(|role| {
                        if role == "public" {
                            "PUBLIC".into()
                        } else {
                            quote::ident(role)
                        }
                    })
                    .collect();
                let mut sql = format!(
                    "{} POLICY {name} ON {table}",
                    if old.is_some() { "ALTER" } else { "CREATE" }
                );
                if old.is_none() {
                    if !permissive {
                        sql.push_str(" AS RESTRICTIVE");
                    }
                    sql.push_str(match command {
                        'r' => " FOR SELECT",
                        'a' => " FOR INSERT",
                        'w' => " FOR UPDATE",
                        'd' => " FOR DELETE",
                        _ => "",
                    });
                }
                let _ = write!(sql, " TO {}", roles.join(", "));
                for (word, expression) in [("USING", using), ("WITH CHECK", check)] {
                    if let Some(expression) = expression {
                        let _ = write!(sql, " {word} ({expression})");
                    }
                }
                self.step(id, Step::Make, order::POLICY, vec![sql]);
            }
            Some(Payload::Rls { enabled, forced }) => {
                let (was_enabled, was_forced) = match old {
                    Some(Payload::Rls { enabled, forced }) => (*enabled, *forced),
                    _ => (false, false),
                };
                let sql = rls_changes(&table, (was_enabled, was_forced), (*enabled, *forced));
                self.step(id, Step::Make, order::RLS, sql);
            }
            _ => {}
        }
    }

    /// A table that stays, without its flags.
    pub(super) fn drop_rls(&mut self, id: &'a FactId) {
        if let Some(Payload::Rls { enabled, forced }) = self.from.payload(id) {
            let sql = rls_changes(&quote::object(id), (*enabled, *forced), (false, false));
            self.step(id, Step::Make, order::RLS, sql);
        }
    }
}

fn rls_changes(table: &str, old: (bool, bool), new: (bool, bool)) -> Vec<String> {
    let mut actions = Vec::new();
    if old.0 != new.0 {
        actions.push(if new.0 {
            "ENABLE ROW LEVEL SECURITY"
        } else {
            "DISABLE ROW LEVEL SECURITY"
        });
    }
    if old.1 != new.1 {
        actions.push(if new.1 {
            "FORCE ROW LEVEL SECURITY"
        } else {
            "NO FORCE ROW LEVEL SECURITY"
        });
    }
    if actions.is_empty() {
        Vec::new()
    } else {
        vec![format!("ALTER TABLE {table} {}", actions.join(", "))]
    }
}
