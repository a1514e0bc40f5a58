//! What a person should know before saying yes: drops of data, rewrites of tables, functions whose results are stored.

use super::{
    Warning, casts,
    rebuild::{Action, Actions},
    side::Side,
};
use crate::catalog::{Column, FactId, Kind, Payload};

pub fn warnings<'a>(from: &Side<'a>, to: &Side<'a>, actions: &Actions<'a>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut ids: Vec<_> = actions.iter().collect();
    ids.sort_unstable_by_key(|(id, _)| *id);
    for (id, action) in ids {
        if id.of.is_some() {
            continue;
        }
        let text = match action {
            Action::Drop => dropped(from, actions, id),
            Action::Alter | Action::Rebuild | Action::Create => {
                changed(from, to, actions, id, action)
            }
            Action::Keep => None,
        };
        if let Some(text) = text {
            warnings.push(Warning {
                id: id.clone(),
                text,
            });
        }
    }
    warnings
}

fn dropped(from: &Side<'_>, actions: &Actions<'_>, id: &FactId) -> Option<String> {
    match id.kind {
        Kind::Table => Some(format!("drops the table {id} with its rows")),
        Kind::MaterializedView => Some(format!("drops the materialized view {id}")),
        Kind::Column
            if from
                .container_of(id)
                .is_some_and(|t| !actions.of(t).drops()) =>
        {
            Some(format!("drops the column {id} with its values"))
        }
        Kind::Sequence => Some(format!(
            "drops the sequence {id} and the value it has reached"
        )),
        Kind::Schema => Some(format!("drops the schema {id}")),
        Kind::Extension => Some(format!("drops the extension {id} with all that it brought")),
        _ => None,
    }
}

fn changed(
    from: &Side<'_>,
    to: &Side<'_>,
    actions: &Actions<'_>,
    id: &FactId,
    action: Action,
) -> Option<String> {
    match to.payload(id)? {
        Payload::Column(new) => {
            let table = to.container(&id.schema, &id.object)?;
            if actions.of(table).fresh() {
                return None;
            }
            let rewritten = match action {
                Action::Create => fills_rows(new),
                Action::Rebuild => true,
                _ => from.column(id).is_some_and(|old| {
                    old.type_ != new.type_ && !casts::keeps_rows(from, to, &old.type_, &new.type_)
                }),
            };
            rewritten.then(|| format!("rewrites all rows of {table} for {id}"))
        }
        Payload::Table(new) => {
            let Some(Payload::Table(old)) = from.payload(id) else {
                return None;
            };
            let rewritten = action == Action::Rebuild
                || old.unlogged != new.unlogged
                || old.access_method != new.access_method;
            rewritten.then(|| format!("rewrites all rows of {id}"))
        }
        Payload::MaterializedView { .. } if action == Action::Rebuild => {
            Some(format!("computes the materialized view {id} anew"))
        }
        Payload::Function { .. } | Payload::Aggregate { .. } if action != Action::Create => {
            let stored: Vec<String> = to
                .dependents(id)
                .iter()
                .filter(|user| {
                    !actions.of(user).fresh()
                        && (user.kind == Kind::Index
                            || to.column(user).is_some_and(|c| c.generated.is_some()))
                })
                .map(ToString::to_string)
                .collect();
            (!stored.is_empty()).then(|| {
                format!(
                    "{id} changes, but {} keep what the old function computed",
                    stored.join(", ")
                )
            })
        }
        _ => None,
    }
}

/// Whether ADD COLUMN has to compute a value for each row.
fn fills_rows(column: &Column) -> bool {
    if column.generated.is_some() || column.identity.is_some() {
        return true;
    }
    // Built-in functions that give one value per statement are filled in once.
    column.default.as_ref().is_some_and(|default| {
        default.contains('(')
            && !matches!(
                default.as_str(),
                "now()" | "(now())" | "transaction_timestamp()" | "statement_timestamp()"
            )
    })
}
