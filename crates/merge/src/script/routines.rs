//! Functions, procedures, aggregates.

use super::{graph::Step, kinds::order, quote, rebuild::Action, writer::Writer};
use crate::catalog::{FactId, Payload};

impl<'a> Writer<'a, '_> {
    pub(super) fn make_routine(&mut self, id: &'a FactId, action: Action) {
        match self.to.payload(id) {
            Some(Payload::Function {
                definition, atomic, ..
            }) => {
                let definition = definition
                    .trim_end()
                    .trim_end_matches(';')
                    .trim_end()
                    .to_owned();
                // A parsed body that calls the function itself.
                let name = quote::qualified(&id.schema, quote::split_routine(&id.object).0);
                let recursive = *atomic
                    && action.fresh()
                    && definition.matches(&format!("{name}(")).nth(1).is_some();
                if (recursive || self.cuts.stubs.contains(id))
                    && let Some(stub) = stub(&definition)
                {
                    self.step(id, Step::Make, order::ROUTINE, vec![stub]);
                    self.step(id, Step::Complete, order::ROUTINE, vec![definition]);
                } else {
                    self.step(id, Step::Make, order::ROUTINE, vec![definition]);
                }
            }
            Some(Payload::Aggregate { definition }) => {
                let (name, _) = quote::split_routine(&id.object);
                let sql = format!(
                    "CREATE AGGREGATE {} {definition}",
                    quote::qualified(&id.schema, name)
                );
                self.step(id, Step::Make, order::ROUTINE, vec![sql]);
            }
            _ => {}
        }
    }
}

/// A function with the same signature and an empty body, for one whose parsed body needs what needs it.
fn stub(definition: &str) -> Option<String> {
    let at = ["\nBEGIN ATOMIC", "\nRETURN "]
        .iter()
        .filter_map(|body| definition.find(body))
        .min()?;
    Some(format!("{}\nAS ''", &definition[..at]))
}

/// Whether CREATE OR REPLACE may turn one into the other: same result, same names and modes of arguments (a name may
/// be given to one that had none), no default taken away.
pub fn replaceable(from: &Payload, to: &Payload) -> bool {
    let (
        Payload::Function {
            result: a,
            arguments: old,
            ..
        },
        Payload::Function {
            result: b,
            arguments: new,
            ..
        },
    ) = (from, to)
    else {
        return false;
    };
    let (old, new) = (quote::split_top(old, ','), quote::split_top(new, ','));
    a == b
        && old.len() == new.len()
        && old
            .iter()
            .zip(&new)
            .all(|(old, new)| argument_replaceable(old, new))
}

fn argument_replaceable(old: &str, new: &str) -> bool {
    let parts = |argument: &str| match quote::find_top(argument, " DEFAULT ") {
        Some(at) => (argument[..at].to_owned(), true),
        None => (argument.to_owned(), false),
    };
    let ((old, had_default), (new, has_default)) = (parts(old), parts(new));
    if had_default && !has_default {
        return false;
    }
    // `integer` may become `v integer`, never the other way nor another name.
    let mode = |argument: &str| {
        ["INOUT ", "OUT ", "VARIADIC "]
            .iter()
            .find(|mode| argument.starts_with(**mode))
            .copied()
            .unwrap_or("")
    };
    old == new
        || (mode(&old).is_empty()
            && mode(&new).is_empty()
            && quote::leading_ident(&new).is_some_and(|(_, rest)| rest.trim_start() == old))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(arguments: &str, result: &str) -> Payload {
        Payload::Function {
            definition: String::new(),
            result: Some(result.to_owned()),
            arguments: arguments.to_owned(),
            language: "sql".to_owned(),
            atomic: false,
        }
    }

    #[test]
    fn replace_keeps_names_modes_results_and_defaults() {
        let may = |a: &str, b: &str| replaceable(&function(a, "integer"), &function(b, "integer"));
        assert!(may(
            "a integer, b text",
            "a integer, b text DEFAULT ','::text"
        ));
        assert!(!may("a integer DEFAULT 1", "a integer"));
        assert!(!may("a integer", "b integer"));
        assert!(may("integer", "a integer"));
        assert!(!may("a integer", "integer"));
        assert!(!may("a integer", "a integer, OUT b integer"));
        assert!(!replaceable(
            &function("", "integer"),
            &function("", "text")
        ));
    }
}
