//! Sequences: what they count, whom they belong to, and where they begin where rows are there already.

use std::fmt::Write as _;

use super::{
    graph::{Rank, Step},
    kinds::order,
    privileges, quote,
    side::Side,
    writer::Writer,
};
use crate::catalog::{FactId, Kind, Payload, Sequence, SequenceOptions};

impl<'a> Writer<'a, '_> {
    pub(super) fn make_sequence(
        &mut self,
        id: &'a FactId,
        name: &str,
        old: Option<&Sequence>,
        new: &Sequence,
    ) {
        let mut sql = Vec::new();
        match old {
            None => {
                let unlogged = if new.unlogged { "UNLOGGED " } else { "" };
                let options = sequence_options(&new.options);
                sql.push(format!("CREATE {unlogged}SEQUENCE {name}{options}"));
            }
            Some(old) => {
                if old.options != new.options {
                    let options =
                        all_sequence_options(&new.options, old.options.type_ != new.options.type_);
                    sql.push(format!("ALTER SEQUENCE {name} {}", options.join(" ")));
                }
                if old.unlogged != new.unlogged {
                    let logged = if new.unlogged { "UNLOGGED" } else { "LOGGED" };
                    sql.push(format!("ALTER SEQUENCE {name} SET {logged}"));
                }
            }
        }
        self.step(id, Step::Make, order::SEQUENCE, sql);
        if old.is_none() {
            self.start_past_maximum(id, name, new);
        }
    }

    /// OWNED BY of every sequence: let go before an old owner drops, given to the new one once that is there.
    pub(super) fn sequence_owners(&mut self) {
        let sequences: Vec<_> = self
            .to
            .facts
            .iter()
            .filter_map(|(&id, fact)| match &fact.payload {
                Payload::Sequence(sequence) => Some((id, sequence)),
                _ => None,
            })
            .collect();
        for (id, sequence) in sequences {
            let name = quote::object(id);
            let action = self.actions.of(id);
            let old = match self.from.payload(id) {
                Some(Payload::Sequence(old)) if !action.fresh() => old.owned_by.as_ref(),
                _ => None,
            };
            let owner_of = |side: &Side<'a>, column: &FactId| {
                side.find(column)
                    .or_else(|| side.container(&column.schema, &column.object))
            };
            let owner_drops = old
                .and_then(|column| owner_of(self.from, column))
                .filter(|owner| self.actions.of(owner).drops());
            if let Some(owner) = owner_drops {
                let sql = self.statement(id, format!("ALTER SEQUENCE {name} OWNED BY NONE"));
                let rank = Rank { phase: 0, order: 0 };
                self.graph.add((id, Step::Loosen), rank, vec![sql]);
                self.graph.edge((id, Step::Loosen), (owner, Step::Drop));
            }
            let new = sequence.owned_by.as_ref();
            if new == old && owner_drops.is_none() {
                continue;
            }
            let Some(column) = new else {
                if owner_drops.is_none() {
                    let sql = format!("ALTER SEQUENCE {name} OWNED BY NONE");
                    self.step(id, Step::Own, order::OWNED_BY, vec![sql]);
                }
                continue;
            };
            let sql = format!(
                "ALTER SEQUENCE {name} OWNED BY {}.{}",
                quote::object(column),
                quote::ident(&column.part)
            );
            // The two must have one owner. Both new: that of this session, so right after they are made.
            // Otherwise after whichever of them changes hands.
            let table = self.to.container(&column.schema, &column.object);
            let both_new = action.fresh() && table.is_some_and(|t| self.actions.of(t).fresh());
            let at = if both_new {
                order::ATTACH
            } else {
                order::OWNED_BY
            };
            let mut statements = Vec::new();
            let owner = table.and_then(|t| privileges::owner_of(self.to, t));
            if !both_new
                && let Some(owner) = owner
                && (action.fresh() || privileges::owner_of(self.from, id) != Some(owner))
            {
                if old.is_some() && owner_drops.is_none() {
                    statements.push(format!("ALTER SEQUENCE {name} OWNED BY NONE"));
                }
                statements.push(format!(
                    "ALTER SEQUENCE {name} OWNER TO {}",
                    quote::ident(owner)
                ));
            }
            statements.push(sql);
            self.step(id, Step::Own, at, statements);
            self.graph.edge((id, Step::Make), (id, Step::Own));
            self.graph.edge((id, Step::Loosen), (id, Step::Own));
            if let Some(owner) = owner_of(self.to, column) {
                self.graph.edge((owner, Step::Make), (id, Step::Own));
            }
            for subject in table.into_iter().chain([id]) {
                for &extra in self.to.extras(subject) {
                    if extra.kind == Kind::Owner {
                        if both_new {
                            self.graph.edge((id, Step::Own), (extra, Step::Make));
                        } else {
                            self.graph.edge((extra, Step::Make), (id, Step::Own));
                        }
                    }
                }
            }
        }
    }

    /// A new sequence that becomes the default of rows that are there already begins past the largest of them.
    fn start_past_maximum(&mut self, id: &'a FactId, name: &str, sequence: &Sequence) {
        for &column in self.to.dependents(id) {
            let Some(new) = self.to.column(column) else {
                continue;
            };
            let draws = new.default.as_ref().is_some_and(|d| d.contains("nextval("));
            let there = self
                .from
                .effective_column(&column.schema, &column.object, &column.part)
                .is_some();
            if !draws || !there || self.actions.of(column).fresh() || !is_integer(&new.type_) {
                continue;
            }
            let sql = past_maximum(&quote::literal(name), column, &sequence.options);
            self.step(id, Step::Late, order::OWNED_BY, vec![sql]);
            self.graph.edge((column, Step::Make), (id, Step::Late));
        }
    }
}

pub fn is_integer(type_: &str) -> bool {
    matches!(type_, "smallint" | "integer" | "bigint")
}

/// Sets `sequence` (SQL for a regclass) past what the column holds; does nothing on an empty table, or where the
/// sequence's start is beyond it already.
pub fn past_maximum(sequence: &str, column: &FactId, options: &SequenceOptions) -> String {
    let (aggregate, beyond) = if options.increment > 0 {
        ("max", ">=")
    } else {
        ("min", "<=")
    };
    format!(
        "SELECT pg_catalog.setval({sequence}, rows.last) FROM (SELECT {aggregate}({}) AS last FROM {}) rows \
         WHERE rows.last {beyond} {} AND rows.last BETWEEN {} AND {}",
        quote::ident(&column.part),
        quote::object(column),
        options.start,
        options.minimum,
        options.maximum,
    )
}

/// The options that are not what CREATE SEQUENCE would choose, each with a space before it.
fn sequence_options(options: &SequenceOptions) -> String {
    let mut sql = String::new();
    if options.type_ != "bigint" {
        let _ = write!(sql, " AS {}", options.type_);
    }
    let list = identity_options(options);
    if !list.is_empty() {
        sql.push(' ');
        sql.push_str(&list.join(" "));
    }
    sql
}

/// Options of an identity column (its type is the column's) that are not the default.
pub fn identity_options(options: &SequenceOptions) -> Vec<String> {
    let (minimum, maximum) = default_bounds(options);
    let start = if options.increment > 0 {
        options.minimum
    } else {
        options.maximum
    };
    let mut list = Vec::new();
    if options.start != start {
        list.push(format!("START WITH {}", options.start));
    }
    if options.increment != 1 {
        list.push(format!("INCREMENT BY {}", options.increment));
    }
    if options.minimum != minimum {
        list.push(format!("MINVALUE {}", options.minimum));
    }
    if options.maximum != maximum {
        list.push(format!("MAXVALUE {}", options.maximum));
    }
    if options.cache != 1 {
        list.push(format!("CACHE {}", options.cache));
    }
    if options.cycle {
        list.push("CYCLE".to_owned());
    }
    list
}

/// All options at once: given one by one, each would be checked against the old others. Never RESTART.
pub fn all_sequence_options(options: &SequenceOptions, with_type: bool) -> Vec<String> {
    let mut list = Vec::new();
    if with_type {
        list.push(format!("AS {}", options.type_));
    }
    list.extend([
        format!("INCREMENT BY {}", options.increment),
        format!("MINVALUE {}", options.minimum),
        format!("MAXVALUE {}", options.maximum),
        format!("START WITH {}", options.start),
        format!("CACHE {}", options.cache),
        (if options.cycle { "CYCLE" } else { "NO CYCLE" }).to_owned(),
    ]);
    list
}

fn default_bounds(options: &SequenceOptions) -> (i64, i64) {
    let (low, high) = type_bounds(&options.type_);
    if options.increment > 0 {
        (1, high)
    } else {
        (low, -1)
    }
}

pub fn type_bounds(type_: &str) -> (i64, i64) {
    match type_ {
        "smallint" => (i64::from(i16::MIN), i64::from(i16::MAX)),
        "integer" => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    }
}
