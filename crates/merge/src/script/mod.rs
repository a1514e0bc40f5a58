//! Writes the statements that turn one catalog into another: pure, no database.
//!
//! The story of [`script`]:
//! 1. `renames`: what was renamed is renamed first, in the model of `from` as in the script.
//! 2. `narrow`: of both catalogs only that part counts which the differences have to do with.
//! 3. `rebuild`: each fact of either side gets an [`Action`](rebuild::Action); what cannot be altered in place is
//!    dropped and made again with everything that stands on it.
//! 4. The families of kinds (`tables`, `columns`, `constraints`, `types`, `sequences`, `routines`, `views`, `guards`,
//!    `inheritance`, `privileges`, `grants`, `globals`) write steps into a graph; `writer` adds what must come before what.
//! 5. `graph` sorts. Where steps need each other, `cuts` takes one apart (a default out of its table, a view in two),
//!    and the writing starts over.
//! 6. `probes` and `warnings` say what the rows may object to, and what a person should know.

mod casts;
mod columns;
mod constraints;
mod cuts;
mod globals;
mod grants;
mod graph;
mod guards;
mod inheritance;
mod kinds;
mod narrow;
mod privileges;
mod probes;
pub(crate) mod quote;
mod rebuild;
pub(crate) mod renames;
mod routines;
mod sequences;
mod side;
mod tables;
mod types;
mod views;
mod warnings;
mod writer;

use serde::{Deserialize, Serialize};

use self::{cuts::Cuts, narrow::narrowed, side::Side, writer::Writer};
use crate::catalog::{Catalog, FactId, Kind};

/// A new name for something that stays what it is. Done first, on the database that reads as `from`.
///
/// Enum labels and attributes of composite types are named like parts: kind `Enum` or `Composite`, the label or
/// attribute in `part`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rename {
    pub kind: Kind,
    pub from: FactId,
    pub to: FactId,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Without the final semicolon.
    pub sql: String,
    /// The fact that the statement brings to its wanted form. None: something unchanged is put out of the way and
    /// made again.
    pub serves: Option<FactId>,
    /// The fact that it makes or alters, changed or not: what the fact holds may be evaluated for that. None for
    /// statements that read nothing of users (drops, renames).
    pub makes: Option<FactId>,
    /// It may go over rows that are there.
    pub evaluates: bool,
}

/// A question to the database before anything is done to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub id: FactId,
    /// Returns one bigint: the rows that stand in the way. Runs on the database that reads as `from`.
    pub sql: String,
    /// With `{rows}` for the number.
    pub why: String,
    /// What the answer holds for: relations as SQL names them. Some may be sequences, or not be there.
    pub relations: std::collections::BTreeSet<String>,
    /// The lock under which the answer keeps holding.
    pub lock: Lock,
}

/// Table locks, from the weakest. Each is what the statement behind a probe takes anyway, so that it does not have to ask
/// for more later: that is how deadlocks come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lock {
    /// Of indexes and of domains: nobody writes.
    Share,
    /// Of foreign keys.
    ShareRowExclusive,
    AccessExclusive,
}

impl Lock {
    pub const fn as_sql(self) -> &'static str {
        match self {
            Self::Share => "SHARE",
            Self::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Self::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    pub id: FactId,
    pub text: String,
}

/// A change that needs a migration whatever the rows are. The script leaves it out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    pub id: FactId,
    pub why: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// `ALTER TYPE … ADD VALUE` that must be committed before the rest can use the label. Additive; a rerun finds
    /// them done.
    pub pre_steps: Vec<Statement>,
    pub statements: Vec<Statement>,
    pub probes: Vec<Probe>,
    pub blocked: Vec<Blocked>,
    pub warnings: Vec<Warning>,
}

/// The statements that turn a database that reads as `from` into one that reads as `to`.
///
/// They run in one transaction, as a superuser, with `search_path = ''`, `check_function_bodies = off` and
/// `session_replication_role = replica`.
///
/// Managed schemas are there already and left alone, unless `from` has none of them: then they are made too, which
/// is how a scratch database is filled.
pub fn script(from: &Catalog, to: &Catalog, renames: &[Rename]) -> Script {
    if renames.is_empty() {
        return after_renames(from, to, renames, Vec::new());
    }
    let (renamed, statements) = renames::apply(from, renames);
    after_renames(&renamed, to, renames, statements)
}

/// As [`script`], where the caller knows how `from` reads after the renames (Postgres's own texts are better than those that
/// are made here): `replayed`, but for names of labels and attributes.
pub fn script_replayed(
    from: &Catalog,
    replayed: &Catalog,
    to: &Catalog,
    renames: &[Rename],
) -> Script {
    let (renamed, statements) = renames::apply(from, renames);
    let mut replayed = replayed.clone();
    for rename in renames
        .iter()
        .filter(|r| matches!(r.kind, Kind::Enum | Kind::Composite))
    {
        let type_ = FactId {
            part: String::new(),
            ..rename.to.clone()
        };
        if let (Some(fact), Some(model)) =
            (replayed.facts.get_mut(&type_), renamed.facts.get(&type_))
        {
            fact.payload = model.payload.clone();
        }
    }
    after_renames(&replayed, to, renames, statements)
}

/// How the statement that makes a materialized view ends.
pub(crate) const NO_DATA: &str = views::NO_DATA;

impl Statement {
    /// It fills a materialized view: of no use where there are no rows.
    pub(crate) fn refreshes(&self) -> bool {
        self.sql.starts_with(views::REFRESH)
    }
}

/// One column as CREATE TABLE has it, with what only ALTER COLUMN can say in lines of its own.
pub(crate) fn column_definition(name: &str, column: &crate::catalog::Column) -> String {
    let mut lines = vec![columns::column_sql(name, column, true)];
    lines.extend(columns::column_extras(name, column));
    lines.join("\n")
}

fn after_renames(
    from: &Catalog,
    to: &Catalog,
    renames: &[Rename],
    statements: Vec<Statement>,
) -> Script {
    let mut script = Script {
        statements,
        ..Script::default()
    };
    let managed = |id: &FactId| from.is_managed(id) || to.is_managed(id);
    let managed_there = from.facts.keys().any(managed);
    let (near_from, near_to) = narrowed(from, to, renames);
    let moved = inheritance::between(&near_from, &near_to);
    let (from_facts, to_facts, moves) = match &moved {
        Some((from, to, moves)) => (from, to, moves),
        None => (&*near_from, &*near_to, &inheritance::Moves::default()),
    };
    let skipped = |id: &FactId| managed_there && managed(id);
    let from = Side::new(from_facts, &skipped);
    let to = Side::new(to_facts, &skipped);

    let mut cuts = Cuts::default();
    loop {
        let actions = rebuild::decide(&from, &to, &cuts);
        let writer = Writer::write(&from, &to, &actions, &cuts, moves);
        let sorted = writer.graph.sort();
        let statements = match sorted {
            Ok(statements) => statements,
            Err(stuck) if cuts.cut(&stuck.1, &from, &to, &actions) => continue,
            Err(stuck) => stuck.0.force(),
        };
        script.statements.extend(statements);
        types::move_labels_ahead(&mut script, &from, &to, renames);
        script.probes = probes::probes(&from, &to, &actions, renames);
        script.warnings = warnings::warnings(&from, &to, &actions);
        script.blocked = actions.blocked;
        return script;
    }
}
