//! Views, materialized views and rules.

use super::{
    columns,
    graph::{Rank, Step},
    kinds::order,
    quote,
    rebuild::Action,
    writer::Writer,
};
use std::collections::HashSet;

use crate::catalog::{FactId, Kind, Payload, ViewColumn};

impl<'a> Writer<'a, '_> {
    pub(super) fn make_view(&mut self, id: &'a FactId, action: Action) {
        let old = self.from.payload(id).filter(|_| action == Action::Alter);
        let name = quote::object(id);
        match self.to.payload(id) {
            Some(Payload::View {
                definition,
                options,
                columns,
            }) => {
                let mut sql = Vec::new();
                let had: &[ViewColumn] = match old {
                    Some(Payload::View { columns, .. }) => columns,
                    _ => &[],
                };
                let same = matches!(old, Some(Payload::View { definition: d, options: o, .. }) if d == definition && o == options);
                let stubbed = self.cuts.stubs.contains(id) && action.fresh();
                if stubbed {
                    self.step(
                        id,
                        Step::Make,
                        order::VIEW,
                        vec![stub(&format!("CREATE VIEW {name}"), columns)],
                    );
                }
                if !same {
                    let create = if stubbed || old.is_some() {
                        "CREATE OR REPLACE VIEW"
                    } else {
                        "CREATE VIEW"
                    };
                    sql.push(format!("{create} {name}{} AS\n{definition}", with(options)));
                }
                for column in columns {
                    let old = had
                        .iter()
                        .find(|c| c.name == column.name)
                        .and_then(|c| c.default.as_ref());
                    if old != column.default.as_ref() {
                        let alter = format!(
                            "ALTER VIEW {name} ALTER COLUMN {}",
                            quote::ident(&column.name)
                        );
                        sql.push(match &column.default {
                            Some(default) => format!("{alter} SET DEFAULT {default}"),
                            None => format!("{alter} DROP DEFAULT"),
                        });
                    }
                }
                let step = if stubbed { Step::Complete } else { Step::Make };
                self.step(id, step, order::VIEW, sql);
            }
            Some(Payload::MaterializedView {
                definition,
                options,
                ..
            }) => {
                let sql = if let Some(Payload::MaterializedView { options: old, .. }) = old {
                    columns::option_changes(
                        &format!("ALTER MATERIALIZED VIEW {name}"),
                        old,
                        options,
                    )
                } else {
                    self.refresh(id, &name);
                    vec![format!(
                        "CREATE MATERIALIZED VIEW {name}{} AS\n{definition}{NO_DATA}",
                        with(options)
                    )]
                };
                self.step(id, Step::Make, order::MATERIALIZED_VIEW, sql);
            }
            Some(Payload::Rule {
                definition,
                enabled,
            }) => {
                let mut sql = Vec::new();
                let mut state = 'O';
                match old {
                    Some(Payload::Rule {
                        definition: old,
                        enabled,
                    }) => {
                        state = *enabled;
                        if old != definition {
                            sql.push(definition.replacen(
                                "CREATE RULE",
                                "CREATE OR REPLACE RULE",
                                1,
                            ));
                        }
                    }
                    _ => sql.push(definition.clone()),
                }
                if state != *enabled {
                    sql.push(format!(
                        "ALTER TABLE {name} {} RULE {}",
                        firing(*enabled),
                        quote::ident(&id.part)
                    ));
                }
                self.step(id, Step::Make, order::RULE, sql);
            }
            _ => {}
        }
    }

    /// A materialized view is made empty: filling it runs its query with the rights of this session, while REFRESH does
    /// with those of its owner, who has it once all else is done.
    fn refresh(&mut self, id: &'a FactId, name: &str) {
        let sql = format!("{REFRESH}{name}");
        self.step(id, Step::Late, order::REFRESH, vec![sql]);
        for below in self.filled_before(id) {
            self.graph.edge((below, Step::Late), (id, Step::Late));
        }
    }

    /// The materialized views that this one reads, through views and functions too.
    fn filled_before(&self, id: &'a FactId) -> Vec<&'a FactId> {
        let (mut found, mut seen) = (Vec::new(), HashSet::from([id]));
        let mut open: Vec<&'a FactId> = self.to.needs(id).to_vec();
        while let Some(need) = open.pop() {
            if need.of.is_some() || !seen.insert(need) {
                continue;
            }
            if need.kind == Kind::MaterializedView {
                found.push(need);
            }
            open.extend(self.to.needs(need));
        }
        found
    }

    /// Before the drops: a view that no longer needs what needs it.
    pub(super) fn empty_view(&mut self, id: &'a FactId) {
        if let Some(Payload::View { columns, .. }) = self.from.payload(id) {
            let name = quote::object(id);
            let sql = stub(&format!("CREATE OR REPLACE VIEW {name}"), columns);
            let statement = self.statement(id, sql);
            self.graph.add(
                (id, Step::Loosen),
                Rank { phase: 0, order: 0 },
                vec![statement],
            );
        }
    }
}

pub const NO_DATA: &str = "\nWITH NO DATA";
pub const REFRESH: &str = "REFRESH MATERIALIZED VIEW ";

/// The same columns of nothing.
fn stub(create: &str, columns: &[ViewColumn]) -> String {
    let columns: Vec<_> = columns
        .iter()
        .map(|c| format!("NULL::{} AS {}", c.type_, quote::ident(&c.name)))
        .collect();
    format!("{create} AS SELECT {}", columns.join(", "))
}

fn with(options: &[String]) -> String {
    if options.is_empty() {
        String::new()
    } else {
        format!(" WITH ({})", quote::options(options))
    }
}

/// `O` origin, `D` disabled, `R` replica, `A` always, as ALTER TABLE says it.
pub fn firing(enabled: char) -> &'static str {
    match enabled {
        'D' => "DISABLE",
        'R' => "ENABLE REPLICA",
        'A' => "ENABLE ALWAYS",
        _ => "ENABLE",
    }
}

/// CREATE OR REPLACE VIEW may append columns, never change those that are there.
pub fn appends_only(old: &[ViewColumn], new: &[ViewColumn]) -> bool {
    old.len() <= new.len()
        && old
            .iter()
            .zip(new)
            .all(|(a, b)| a.name == b.name && a.type_ == b.type_)
}
