//! Whether the system catalogs changed between two moments, without reading all of them as facts.

use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::error::Error;

/// Whatever facts are read from, or texts are made from (`pg_get_*`, `format_type`, `reg…` constants).
const CATALOGS: [&str; 35] = [
    "aggregate",
    "am",
    "attrdef",
    "attribute",
    "class",
    "collation",
    "constraint",
    "default_acl",
    "depend",
    "description",
    "enum",
    "event_trigger",
    "extension",
    "index",
    "inherits",
    "language",
    "namespace",
    "opclass",
    "operator",
    "opfamily",
    "partitioned_table",
    "policy",
    "proc",
    "publication",
    "publication_namespace",
    "publication_rel",
    "range",
    "rewrite",
    "sequence",
    "statistic_ext",
    "transform",
    "trigger",
    "ts_config",
    "ts_dict",
    "type",
];

/// Equal to an earlier one if and only if nothing was committed to the catalogs in between.
///
/// Postgres never changes a row of a catalog that facts come from: it writes another one, with the id of the transaction
/// (`xmin`) and a place (`ctid`) of its own. (What it does change in place are statistics of VACUUM and ANALYZE.) So a
/// change that was undone by another one shows, too.
///
/// Looks with the snapshot of the statement: it tells nothing inside of a transaction that keeps its first one.
pub async fn fingerprint(conn: &mut PgConnection) -> Result<String, Error> {
    let catalogs = CATALOGS.map(|name| {
        format!(
            "(SELECT pg_catalog.bit_xor(pg_catalog.hash_record_extended(ROW(xmin, ctid), 0)) FROM pg_catalog.pg_{name})"
        )
    });
    // `pg_authid` is for superusers only, hence by name.
    let sql = format!(
        "SELECT pg_catalog.concat_ws(' ', {}, (SELECT pg_catalog.bit_xor(pg_catalog.hashtextextended(rolname::pg_catalog.text, \
         oid::pg_catalog.int8)) FROM pg_catalog.pg_roles))",
        // An empty catalog is a word as well.
        catalogs
            .map(|catalog| format!("coalesce({catalog}, 0)"))
            .join(", ")
    );
    // With the simple protocol: one round trip.
    let row = sqlx::raw_sql(AssertSqlSafe(sql))
        .fetch_one(conn)
        .await
        .map_err(Error::while_doing("look for changes of the schema"))?;
    row.try_get(0)
        .map_err(Error::while_doing("look for changes of the schema"))
}
