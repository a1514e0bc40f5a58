//! Definitions of plain keys and indexes, put together from what was read already: byte for byte what
//! `pg_get_constraintdef` and `pg_get_indexdef` say (`ruleutils.c`), which look up each name on its own and, for each
//! column of an index, all operator classes of the access method.

use std::collections::HashMap;

use sqlx::{FromRow, postgres::types::Oid};

use super::reader::Reader;
use crate::{catalog::FactId, error::Error};

/// What an index has to say of a column, unless it is the same.
#[derive(Clone, Copy)]
pub struct KeyColumn {
    pub type_: u32,
    pub collation: u32,
}

#[derive(FromRow)]
pub struct IndexKey {
    unique: bool,
    /// Numbers of the table's columns; 0 for an expression.
    columns: Vec<i16>,
    classes: Vec<Oid>,
    collations: Vec<Oid>,
    /// A btree of a table that is not partitioned, without options, predicate and further columns.
    plain: bool,
    /// How the text of the expressions begins, as Postgres keeps them.
    tree: Option<String>,
    /// The expressions, printed.
    expression: Option<String>,
}

/// `PRIMARY KEY (…)` or `UNIQUE (…)`.
pub fn constraint(reader: &Reader<'_>, kind: &str, table: Oid, columns: &[i16]) -> String {
    let words = if kind == "p" { "PRIMARY KEY" } else { "UNIQUE" };
    let names: Vec<_> = columns
        .iter()
        .filter_map(|number| reader.column_name(table.0, *number))
        .map(|name| reader.quoted(name))
        .collect();
    format!("{words} ({})", names.join(", "))
}

/// By default operator class of btree, the type that it is for. Postgres's own only: those have no options.
pub async fn default_classes(reader: &mut Reader<'_>) -> Result<HashMap<u32, u32>, Error> {
    let rows: Vec<(Oid, Oid)> = sqlx::query_as(
        "SELECT oid, opcintype FROM pg_catalog.pg_opclass WHERE opcmethod = 403 AND opcdefault AND oid < 16384",
    )
    .fetch_all(&mut *reader.conn)
    .await
    .map_err(Error::while_doing("read the operator classes"))?;
    Ok(rows
        .into_iter()
        .map(|(class, type_)| (class.0, type_.0))
        .collect())
}

/// `CREATE INDEX …` of an index (its name, its table's oid and name). None where there is more to say than the names of columns
/// or one call of a function.
pub fn index(
    reader: &Reader<'_>,
    types: &HashMap<u32, u32>,
    (name, table, on): (&str, Oid, &FactId),
    key: &IndexKey,
) -> Option<String> {
    if !key.plain || key.columns.iter().filter(|number| **number == 0).count() > 1 {
        return None;
    }
    let mut columns = Vec::new();
    for ((number, class), collation) in key.columns.iter().zip(&key.classes).zip(&key.collations) {
        let (text, column) = if *number == 0 {
            let call = called(key.tree.as_deref()?)?;
            (key.expression.as_deref()?.into(), call)
        } else {
            let column = *reader.key_columns.get(&(table.0, *number))?;
            (reader.quoted(reader.column_name(table.0, *number)?), column)
        };
        let is_default = types.get(&class.0) == Some(&column.type_);
        if !is_default || ![0, column.collation].contains(&collation.0) {
            return None;
        }
        columns.push(text);
    }
    Some(format!(
        "CREATE {}INDEX {} ON {}.{} USING btree ({})",
        if key.unique { "UNIQUE " } else { "" },
        reader.quoted(name),
        reader.quoted(&on.schema),
        reader.quoted(&on.object),
        columns.join(", ")
    ))
}

/// What a list of expressions yields that is one call of a function, written as such: Postgres puts brackets around all others.
fn called(tree: &str) -> Option<KeyColumn> {
    let mut words = tree.strip_prefix("({FUNCEXPR ")?.split(' ');
    let mut field = |name: &str| -> Option<u32> {
        words.find(|word| *word == name)?;
        words.next()?.parse().ok()
    };
    let type_ = field(":funcresulttype")?;
    // COERCE_EXPLICIT_CALL, COERCE_SQL_SYNTAX
    if ![0, 3].contains(&field(":funcformat")?) {
        return None;
    }
    Some(KeyColumn {
        type_,
        collation: field(":funccollid")?,
    })
}
