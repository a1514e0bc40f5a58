//! What has no schema: schemas themselves, extensions, publications, event triggers.

use super::{graph::Step, kinds::order, quote, rebuild::Action, writer::Writer};
use crate::catalog::{FactId, Payload};

impl<'a> Writer<'a, '_> {
    pub(super) fn make_global(&mut self, id: &'a FactId, action: Action) {
        let name = quote::ident(&id.object);
        match self.to.payload(id) {
            Some(Payload::Schema) => {
                // Every new database has this one.
                let unless = if id.object == "public" {
                    "IF NOT EXISTS "
                } else {
                    ""
                };
                self.step(
                    id,
                    Step::Make,
                    order::SCHEMA,
                    vec![format!("CREATE SCHEMA {unless}{name}")],
                );
            }
            Some(Payload::Extension { schema }) => {
                let sql = if action == Action::Alter {
                    format!("ALTER EXTENSION {name} SET SCHEMA {}", quote::ident(schema))
                } else {
                    // Some extensions bring their schema themselves: then it is no fact.
                    let home = FactId::object(crate::catalog::Kind::Schema, "", schema);
                    match self.to.find(&home) {
                        Some(home) => {
                            self.graph.edge((home, Step::Make), (id, Step::Make));
                            format!(
                                "CREATE EXTENSION IF NOT EXISTS {name} WITH SCHEMA {}",
                                quote::ident(schema)
                            )
                        }
                        None => format!("CREATE EXTENSION IF NOT EXISTS {name}"),
                    }
                };
                self.step(id, Step::Make, order::EXTENSION, vec![sql]);
            }
            Some(Payload::Publication { definition }) => {
                let sql = format!("CREATE PUBLICATION {name} {definition}");
                self.step(id, Step::Make, order::PUBLICATION, vec![sql]);
            }
            Some(Payload::EventTrigger {
                event,
                tags,
                function,
                enabled,
            }) => {
                let mut sql = Vec::new();
                let mut state = 'O';
                match self.from.payload(id) {
                    Some(Payload::EventTrigger { enabled, .. }) if action == Action::Alter => {
                        state = *enabled;
                    }
                    _ => {
                        let when = if tags.is_empty() {
                            String::new()
                        } else {
                            let tags: Vec<_> = tags.iter().map(|tag| quote::literal(tag)).collect();
                            format!(" WHEN TAG IN ({})", tags.join(", "))
                        };
                        sql.push(format!("CREATE EVENT TRIGGER {name} ON {event}{when} EXECUTE FUNCTION {function}()"));
                    }
                }
                if state != *enabled {
                    sql.push(format!(
                        "ALTER EVENT TRIGGER {name} {}",
                        super::views::firing(*enabled)
                    ));
                }
                self.step(id, Step::Make, order::EVENT_TRIGGER, sql);
            }
            _ => {}
        }
    }
}
