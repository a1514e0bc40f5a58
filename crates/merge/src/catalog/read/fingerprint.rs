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

/// What the catalogs hold at a moment. The rows are those of an earlier one if and only if nothing was committed to the
/// catalogs in between.
///
/// Postgres never changes a row of a catalog that facts come from: it writes another one, with the id of the transaction
/// (`xmin`) and a place (`ctid`) of its own. (What it does change in place are statistics of VACUUM and ANALYZE.) So a
/// change that was undone by another one shows, too.
///
/// Looks with the snapshot of the statement: it tells nothing inside of a transaction that keeps its first one.
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint {
    pub rows: String,
    /// Those that have ended (`pg_current_snapshot`), in any database of the server.
    transactions: String,
}

impl Fingerprint {
    /// The one of now: at once where no transaction that writes ended since this one.
    pub async fn again(&self, conn: &mut PgConnection) -> Result<Self, Error> {
        let row = sqlx::raw_sql("SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text")
            .fetch_one(&mut *conn)
            .await
            .map_err(Error::while_doing(DOING))?;
        let transactions: String = row.try_get(0).map_err(Error::while_doing(DOING))?;
        if transactions == self.transactions {
            return Ok(self.clone());
        }
        fingerprint(conn).await
    }
}

const DOING: &str = "look for changes of the schema";

/// Reads all rows' places: some ten thousand in an empty database.
pub async fn fingerprint(conn: &mut PgConnection) -> Result<Fingerprint, Error> {
    let catalogs = CATALOGS.map(|name| {
        format!(
            "(SELECT pg_catalog.bit_xor(pg_catalog.hash_record_extended(ROW(xmin, ctid), 0)) FROM pg_catalog.pg_{name})"
        )
    });
    // `pg_authid` is for superusers only, hence by name.
    let sql = format!(
        "SELECT pg_catalog.concat_ws(' ', {}, (SELECT pg_catalog.bit_xor(pg_catalog.hashtextextended(rolname::pg_catalog.text, \
         oid::pg_catalog.int8)) FROM pg_catalog.pg_roles)), pg_catalog.pg_current_snapshot()::pg_catalog.text",
        // An empty catalog is a word as well.
        catalogs
            .map(|catalog| format!("coalesce({catalog}, 0)"))
            .join(", ")
    );
    // With the simple protocol: one round trip.
    let row = sqlx::raw_sql(AssertSqlSafe(sql))
        .fetch_one(conn)
        .await
        .map_err(Error::while_doing(DOING))?;
    Ok(Fingerprint {
        rows: row.try_get(0).map_err(Error::while_doing(DOING))?,
        transactions: row.try_get(1).map_err(Error::while_doing(DOING))?,
    })
}

/// Whether nothing was committed, in any database of the server, since the transaction took its snapshot: nobody was writing
/// then, and nobody began to since. Asked once in a transaction that keeps its first snapshot.
///
/// `age` counts from the next id that the server will give out, as it is when a transaction asks first.
pub async fn is_quiet(conn: &mut PgConnection) -> Result<bool, Error> {
    let row = sqlx::raw_sql(
        "SELECT pg_catalog.pg_snapshot_xmin(s) = pg_catalog.pg_snapshot_xmax(s)
            AND pg_catalog.age(pg_catalog.xid(pg_catalog.pg_snapshot_xmax(s))) = 0
          FROM pg_catalog.pg_current_snapshot() AS s",
    )
    .fetch_one(conn)
    .await
    .map_err(Error::while_doing(DOING))?;
    row.try_get(0).map_err(Error::while_doing(DOING))
}
