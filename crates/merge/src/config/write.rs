//! Statements that write configuration rows on the parent.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Row, Rows, Sealed,
    shown::may_hold_secrets,
    tables::{Special, Table},
};
use crate::{render::one_line, script::quote::literal};

/// One statement.
#[derive(Clone, Debug)]
pub struct Write {
    /// Without the final semicolon. `$1` stands for the sealed value, where there is one.
    pub sql: String,
    /// A ciphertext: bound when the statement runs, and left out wherever statements are shown.
    pub(crate) sealed: Option<Sealed>,
    /// It calls a function of the product's, whose answer as JSON says whether that worked.
    pub(crate) calls: bool,
    /// A literal of the statement that is left out wherever it is shown: it holds what may be a secret.
    hidden: Option<String>,
}

impl Write {
    fn plain(sql: String) -> Self {
        Self {
            sql,
            sealed: None,
            calls: false,
            hidden: None,
        }
    }

    fn hiding(mut self, text: Option<&str>) -> Self {
        self.hidden = text
            .filter(|headers| may_hold_secrets(headers))
            .map(|headers| value(Some(headers)));
        self
    }

    fn call(function: &str, arguments: &str) -> Self {
        Self {
            calls: true,
            ..Self::plain(format!(
                "SELECT pg_catalog.to_jsonb(answer) FROM {function}({arguments}) answer"
            ))
        }
    }

    /// For people. A statement with a sealed value is shown as a comment.
    pub fn shown(&self) -> String {
        let sql = match &self.hidden {
            None => self.sql.clone(),
            Some(literal) => self.sql.replace(literal, "'(hidden)'"),
        };
        match self.sealed {
            None => format!("{sql};"),
            Some(_) => format!("-- with its ciphertext: {};", one_line(&sql)),
        }
    }
}

/// A row as it should be on the parent, and where it comes from.
pub(super) struct Place<'a> {
    pub table: &'a Table,
    pub row: &'a Row,
    pub parent: &'a Rows,
    pub branch: &'a Rows,
}

impl Place<'_> {
    /// The whole row. `secret` is the key of the parent's secret that it refers to.
    pub fn insert(&self, secret: Option<&str>) -> Vec<Write> {
        let mut columns: Vec<&str> = self.table.key.to_vec();
        let mut values: Vec<String> = self
            .row
            .key
            .iter()
            .map(|key| value(key.as_deref()))
            .collect();
        // What the parent's release does not have stays behind.
        let known = self.known_columns();
        let carried: Vec<&str> = self
            .row
            .values
            .keys()
            .map(String::as_str)
            .filter(|column| known.as_ref().is_none_or(|known| known.contains(*column)))
            .collect();
        columns.extend(&carried);
        values.extend(
            carried
                .iter()
                .map(|column| value(self.row.values[*column].as_deref())),
        );
        let mut set: Vec<String> = carried
            .iter()
            .map(|column| format!("{column} = EXCLUDED.{column}"))
            .collect();
        set.extend(self.stamp());
        let source = match secret {
            None => format!("VALUES ({})", values.join(", ")),
            Some(key) => {
                columns.push("secret_id");
                let key = literal(key);
                let values = values.join(", ");
                format!("SELECT {values}, s.id FROM system.secrets s WHERE s.key = {key}")
            }
        };
        let insert = Write::plain(format!(
            "INSERT INTO {} ({}) {source} ON CONFLICT {} DO UPDATE SET {}",
            self.table.qualified(),
            columns.join(", "),
            self.table.conflict_target,
            set.join(", ")
        ));
        match self.table.special {
            Special::Job => {
                let headers = self.row.values.get("headers").and_then(Option::as_deref);
                self.with_schedule(vec![insert.hiding(headers)], true)
            }
            _ => vec![insert],
        }
    }

    /// Only the columns that change.
    pub fn update(&self, set: &BTreeMap<String, Option<String>>) -> Vec<Write> {
        let mut assignments: Vec<String> = set
            .iter()
            .map(|(column, new)| format!("{column} = {}", value(new.as_deref())))
            .collect();
        if self.table.special == Special::Job && !set.contains_key("is_active") {
            // `disable_job`, which runs before, may have switched it off.
            if let Some(active) = self.row.values.get("is_active") {
                assignments.push(format!("is_active = {}", value(active.as_deref())));
            }
        }
        assignments.extend(self.stamp());
        let update = Write::plain(format!(
            "UPDATE {} SET {}{}",
            self.table.qualified(),
            assignments.join(", "),
            self.condition()
        ));
        match self.table.special {
            Special::Job => {
                let headers = set.get("headers").and_then(Option::as_deref);
                self.with_schedule(vec![update.hiding(headers)], set.contains_key("headers"))
            }
            _ => vec![update],
        }
    }

    /// The columns that rows of this table have on the parent; unknown where it has no row.
    fn known_columns(&self) -> Option<BTreeSet<String>> {
        let rows = self.parent.tables.get(&self.table.qualified())?;
        let row = rows.values().next()?;
        Some(row.values.keys().cloned().collect())
    }

    fn stamp(&self) -> Option<String> {
        let stamped = &self.parent.here.stamped;
        stamped
            .contains(&self.table.qualified())
            .then(|| "updated_at = now()".to_owned())
    }

    fn condition(&self) -> String {
        if self.table.key.is_empty() {
            return String::new();
        }
        let parts: Vec<String> = self
            .table
            .key
            .iter()
            .zip(&self.row.key)
            .map(|(column, key)| match key {
                Some(_) => format!("{column} = {}", value(key.as_deref())),
                None => format!("{column} IS NULL"),
            })
            .collect();
        format!(" WHERE {}", parts.join(" AND "))
    }

    /// A job's entry in `pg_cron` is taken out before the row changes and made anew after it: `enable_job` doubles an
    /// entry that is there, and `disable_job` fails on a `cron_job_id` that names none.
    fn with_schedule(&self, writes: Vec<Write>, headers: bool) -> Vec<Write> {
        let id = value(self.row.key[0].as_deref());
        let mut all = Vec::new();
        let here = &self.parent.here;
        if here.schedules {
            all.push(Write::plain(format!(
                "SELECT schedules.disable_job(id) FROM schedules.jobs WHERE id = {id} AND cron_job_id IS NOT NULL"
            )));
            all.push(Write::plain(format!(
                "UPDATE schedules.jobs SET cron_job_id = NULL WHERE id = {id}"
            )));
        }
        all.extend(writes);
        let sealed = self.row.key[0]
            .as_ref()
            .and_then(|id| self.branch.here.encrypted_headers.get(id));
        if headers {
            let sql = format!("UPDATE schedules.jobs SET encrypted_headers = $1 WHERE id = {id}");
            match sealed {
                Some(sealed) => all.push(Write {
                    sealed: Some(sealed.clone()),
                    ..Write::plain(sql)
                }),
                None => all.push(Write::plain(sql.replace("$1", "NULL"))),
            }
        }
        let active = self.row.values.get("is_active") == Some(&Some("true".to_owned()));
        if here.schedules && active {
            all.push(Write::call("schedules.enable_job", &id));
        }
        all
    }
}

/// Postgres takes the type of an untyped literal from the column it goes into.
fn value(value: Option<&str>) -> String {
    value.map_or_else(|| "NULL".to_owned(), literal)
}
