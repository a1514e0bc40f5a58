//! Scripts against real databases: what one database reads as, turned into what another one reads as.
//!
//! Everything happens in transactions that are rolled back, so one database serves any number of targets.

mod family;
mod pairs;
mod rows;

use std::{collections::BTreeMap, fmt::Write as _};

use cp_merge::{
    Catalog,
    catalog::{self, FactId, Kind, Payload},
    script::{Script, script},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::database::Database;

/// A database with a schema in it, read.
struct State {
    name: String,
    database: Database,
    catalog: Catalog,
}

impl State {
    async fn new(name: &str, sql: &[&str]) -> Self {
        let database = Database::empty().await;
        for sql in sql {
            database.psql(sql).await;
        }
        let catalog = read(&database).await;
        Self {
            name: name.to_owned(),
            database,
            catalog,
        }
    }
}

async fn read(database: &Database) -> Catalog {
    let mut session = database.connect().await;
    let catalog = catalog::read(&mut session).await.unwrap();
    session.close().await.unwrap();
    catalog
}

/// What came of one script.
enum Outcome {
    /// The rows or the script itself say no.
    Refused(Vec<String>),
    /// The database read as it should, or not: then what differs.
    Ran(Vec<String>),
    Failed(String),
}

/// Runs the script from one state to the other, and takes it back.
async fn transform(from: &State, to: &Catalog, accept: Option<&Catalog>) -> (Script, Outcome) {
    let script = script(&from.catalog, to, &[]);
    let copy;
    let mut database = &from.database;
    if !script.pre_steps.is_empty() {
        copy = from.database.template_copy().await;
        database = &copy;
    }
    let mut session = database.connect().await;
    let outcome = run(&mut session, &script, to, accept).await;
    session.close().await.unwrap();
    (script, outcome)
}

async fn run(
    session: &mut PgConnection,
    script: &Script,
    to: &Catalog,
    accept: Option<&Catalog>,
) -> Outcome {
    let mut refused: Vec<String> = script.blocked.iter().map(|b| b.id.to_string()).collect();
    for probe in &script.probes {
        match sqlx::query_scalar::<_, i64>(AssertSqlSafe(probe.sql.clone()))
            .fetch_one(&mut *session)
            .await
        {
            Ok(0) => {}
            Ok(_) => refused.push(probe.id.to_string()),
            Err(error) => {
                return Outcome::Failed(format!("probe of {}: {error}\n{}", probe.id, probe.sql));
            }
        }
    }
    if !refused.is_empty() {
        return Outcome::Refused(refused);
    }
    for step in &script.pre_steps {
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(step.sql.clone()))
            .execute(&mut *session)
            .await
        {
            return Outcome::Failed(format!("{error}\n{}", step.sql));
        }
    }
    let mut transaction = session.begin().await.unwrap();
    sqlx::raw_sql(
        "SET LOCAL search_path = ''; SET LOCAL check_function_bodies = off; SET LOCAL session_replication_role = replica",
    )
    .execute(&mut *transaction)
    .await
    .unwrap();
    for statement in &script.statements {
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(statement.sql.clone()))
            .execute(&mut *transaction)
            .await
        {
            return Outcome::Failed(format!(
                "{error}\nat: {}\nin:\n{}",
                statement.sql,
                text(script)
            ));
        }
    }
    let got = catalog::read(&mut transaction).await.unwrap();
    transaction.rollback().await.unwrap();
    let wrong = got
        .diff(to)
        .into_iter()
        .filter(|id| !is_own_as_well(id, to))
        .filter(|id| {
            accept.is_none_or(|a| {
                a.facts.get(id).map(|f| &f.payload) != got.facts.get(id).map(|f| &f.payload)
            })
        })
        .map(|id| {
            format!(
                "{:?} {id}\n   got {:?}\n  want {:?}",
                id.kind,
                got.facts.get(&id).map(|f| &f.payload),
                to.facts.get(&id).map(|f| &f.payload)
            )
        })
        .collect();
    Outcome::Ran(wrong)
}

/// INHERIT leaves a column or check that the table had before its own as well as its parent's, and nothing can take that
/// back; a table that was made with INHERITS has it from its parent alone.
fn is_own_as_well(id: &FactId, to: &Catalog) -> bool {
    let table = FactId::object(Kind::Table, &id.schema, &id.object);
    matches!(id.kind, Kind::Column | Kind::Constraint)
        && !to.facts.contains_key(id)
        && matches!(
            to.facts.get(&table).map(|f| &f.payload),
            Some(Payload::Table(t)) if !t.parents.is_empty() && t.bound.is_none()
        )
}

fn text(script: &Script) -> String {
    let mut text = String::new();
    for statement in script.pre_steps.iter().chain(&script.statements) {
        let _ = writeln!(text, "{};", statement.sql);
    }
    text
}

/// Every state into every other one of the list (or the pairs given), and all from nothing.
struct Report {
    failures: Vec<String>,
    refused: BTreeMap<String, Vec<String>>,
    ran: usize,
}

impl Report {
    fn new() -> Self {
        Self {
            failures: Vec::new(),
            refused: BTreeMap::new(),
            ran: 0,
        }
    }

    async fn check(&mut self, from: &State, to: &State, accept: Option<&Catalog>) {
        let name = format!("{} -> {}", from.name, to.name);
        let (script, outcome) = transform(from, &to.catalog, accept).await;
        match outcome {
            Outcome::Refused(what) => {
                self.refused.insert(name, what);
            }
            Outcome::Ran(wrong) if wrong.is_empty() => self.ran += 1,
            Outcome::Ran(wrong) => {
                self.failures
                    .push(format!("{name}\n{}\n{}", wrong.join("\n"), text(&script)));
            }
            Outcome::Failed(why) => self.failures.push(format!("{name}\n{why}")),
        }
    }

    fn finish(self) {
        println!("{} ran, {} refused", self.ran, self.refused.len());
        for (name, what) in &self.refused {
            println!("refused {name}: {what:?}");
        }
        assert!(
            self.failures.is_empty(),
            "{} failures\n\n{}",
            self.failures.len(),
            self.failures.join("\n\n")
        );
    }
}
