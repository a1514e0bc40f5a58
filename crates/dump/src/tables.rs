//! Which tables hold what (contract, 6.1 and 6.2), and which of them a branch begins without.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;

use crate::{contents::Contents, database::quote_identifier, error::Error};

/// Empty on every branch: credentials, deployments and history that belong to the parent alone. Column "Full" of 6.2.
const NEVER_COPIED: &[(&str, &str)] = &[
    ("auth", "email_otps"),
    ("storage", "s3_access_keys"),
    ("compute", "services"),
    ("deployments", "files"),
    ("deployments", "runs"),
    ("functions", "deployments"),
    ("system", "audit_logs"),
    ("system", "mcp_usage"),
    ("system", "database_backups"),
];

/// The other managed tables of 6.2; all tables of `payments` are further ones.
const DATA: &[(&str, &str)] = &[
    ("auth", "user_providers"),
    ("auth", "users"),
    ("storage", "object_tags"),
    ("storage", "objects"),
    ("realtime", "messages"),
    ("schedules", "job_logs"),
    ("memory", "memories"),
    ("system", "advisor_findings"),
    ("system", "advisor_scans"),
];
const SCHEMA_OF_DATA: &str = "payments";

/// What every branch has: 6.1, the ledgers and the secrets (5.12).
const ALWAYS_KEPT: &[(&str, &str)] = &[
    ("auth", "config"),
    ("auth", "oauth_configs"),
    ("auth", "custom_oauth_configs"),
    ("storage", "buckets"),
    ("storage", "config"),
    ("email", "config"),
    ("email", "templates"),
    ("realtime", "channels"),
    ("realtime", "config"),
    ("schedules", "jobs"),
    ("schedules", "config"),
    ("system", "database_config"),
    ("system", "advisor_suppressions"),
    ("functions", "definitions"),
    ("system", "custom_migrations"),
    ("system", "migrations"),
    ("system", "secrets"),
];

/// As in the release's `insforge.internal_schemas`; only for databases that do not say it themselves.
const INTERNAL_SCHEMAS: &[&str] = &[
    "ai",
    "auth",
    "compute",
    "deployments",
    "email",
    "functions",
    "memory",
    "payments",
    "realtime",
    "schedules",
    "storage",
    "system",
];

/// A table, a partitioned table or a sequence.
#[derive(Debug, Clone)]
pub(crate) struct Relation {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// The user's own: in a user schema (5.1) and no part of an extension.
    users: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Table,
    Partitioned,
    Sequence,
}

/// All relations with rows or values of their own, by OID.
pub(crate) struct Tables {
    relations: BTreeMap<i64, Relation>,
    /// Foreign keys: the table that has one, the table that it names.
    references: Vec<(i64, i64)>,
    /// Sequences of serial and identity columns: the sequence, its table.
    owned: BTreeMap<i64, i64>,
    /// Schemas with materialized views.
    view_schemas: BTreeSet<String>,
}

impl Tables {
    pub(crate) async fn read(connection: &mut PgConnection) -> Result<Self, Error> {
        let schemas = user_schemas(connection).await?;
        let rows: Vec<(i64, String, String, String, bool)> = sqlx::query_as(
            "SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text,
                    n.nspname = ANY ($1::text[]) AND NOT EXISTS (
                        SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                            AND d.objid = c.oid AND d.deptype = 'e')
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
               AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'",
        )
        .bind(&schemas)
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::sql("list the tables"))?;
        let relations = rows.into_iter().map(|(oid, schema, name, kind, users)| {
            let kind = match kind.as_str() {
                "S" => Kind::Sequence,
                "p" => Kind::Partitioned,
                _ => Kind::Table,
            };
            let relation = Relation {
                schema,
                name,
                kind,
                users,
            };
            (oid, relation)
        });
        let relations = relations.collect();
        let references = sqlx::query_as(
            "SELECT conrelid::int8, confrelid::int8 FROM pg_constraint
             WHERE contype = 'f' AND conrelid <> confrelid",
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::sql("list the foreign keys"))?;
        let owned: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT d.objid::int8, d.refobjid::int8 FROM pg_depend d
             JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S'
             WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
               AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')",
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::sql("list the sequences of columns"))?;
        let view_schemas: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT n.nspname::text FROM pg_class c
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm'",
        )
        .fetch_all(connection)
        .await
        .map_err(Error::sql("list the materialized views"))?;
        Ok(Self {
            relations,
            references,
            owned: owned.into_iter().collect(),
            view_schemas: view_schemas.into_iter().collect(),
        })
    }

    /// The relations that begin empty in a copy of these contents, by OID.
    pub(crate) fn emptied(&self, contents: Contents) -> BTreeMap<i64, &Relation> {
        let mut oids = match contents {
            Contents::Everything => BTreeSet::new(),
            Contents::Branch => self.never_copied(),
            Contents::BranchWithoutData => self.data(),
        };
        let sequences = self.relations.iter().filter(|(oid, relation)| {
            relation.kind == Kind::Sequence
                && match self.owned.get(oid) {
                    Some(table) => oids.contains(table),
                    None => contents == Contents::BranchWithoutData && relation.users,
                }
        });
        let sequences: Vec<i64> = sequences.map(|(oid, _)| *oid).collect();
        oids.extend(sequences);
        let with_relations = oids.into_iter().map(|oid| (oid, &self.relations[&oid]));
        with_relations.collect()
    }

    /// The schemas that hold more with rows or values than these. A materialized view counts: without its data it stays
    /// unpopulated and fails to be read, while filled anew it shows the rows that are there.
    pub(crate) fn schemas_with_others(&self, these: &BTreeMap<i64, &Relation>) -> BTreeSet<&str> {
        let others = self
            .relations
            .iter()
            .filter(|(oid, _)| !these.contains_key(oid));
        others
            .map(|(_, relation)| relation.schema.as_str())
            .chain(self.view_schemas.iter().map(String::as_str))
            .collect()
    }

    /// Those of [`NEVER_COPIED`] that are copied all the same, since copied rows may reference theirs.
    pub(crate) fn copied_all_the_same(&self) -> Vec<&Relation> {
        let left_out = self.never_copied();
        let all = self.tables(|relation| is_one_of(relation, NEVER_COPIED));
        all.difference(&left_out)
            .map(|oid| &self.relations[oid])
            .collect()
    }

    /// Of [`NEVER_COPIED`] those that no row which is copied may reference.
    fn never_copied(&self) -> BTreeSet<i64> {
        let mut oids = self.tables(|relation| is_one_of(relation, NEVER_COPIED));
        loop {
            let needed = self
                .references
                .iter()
                .find(|(from, to)| oids.contains(to) && !oids.contains(from));
            let Some((_, needed)) = needed else {
                return oids;
            };
            oids.remove(needed);
        }
    }

    /// Users' data, and with it what references it: rows without the row that they name could not be restored.
    fn data(&self) -> BTreeSet<i64> {
        let mut oids = self.tables(|relation| {
            relation.users
                || is_one_of(relation, NEVER_COPIED)
                || is_one_of(relation, DATA)
                || relation.schema == SCHEMA_OF_DATA
        });
        let kept = self.tables(|relation| is_one_of(relation, ALWAYS_KEPT));
        loop {
            let orphan = self.references.iter().find(|(from, to)| {
                oids.contains(to)
                    && !oids.contains(from)
                    && !kept.contains(from)
                    && self.relations.contains_key(from)
            });
            let Some((orphan, _)) = orphan else {
                return oids;
            };
            oids.insert(*orphan);
        }
    }

    fn tables(&self, which: impl Fn(&Relation) -> bool) -> BTreeSet<i64> {
        let tables = self
            .relations
            .iter()
            .filter(|(_, relation)| relation.kind != Kind::Sequence && which(relation));
        tables.map(|(oid, _)| *oid).collect()
    }
}

fn is_one_of(relation: &Relation, names: &[(&str, &str)]) -> bool {
    names
        .iter()
        .any(|(schema, name)| relation.schema == *schema && relation.name == *name)
}

impl Relation {
    /// The name as SQL, whatever the search path.
    pub(crate) fn quoted(&self) -> String {
        format!(
            "{}.{}",
            quote_identifier(&self.schema),
            quote_identifier(&self.name)
        )
    }
}

/// What `system.is_exposed_schema` says (5.1); where it is missing, what the release would say.
pub(crate) async fn user_schemas(connection: &mut PgConnection) -> Result<Vec<String>, Error> {
    let query = if has_function(connection, "system", "is_exposed_schema").await? {
        sqlx::query_scalar(
            "SELECT nspname::text FROM pg_namespace WHERE system.is_exposed_schema(nspname::text)",
        )
    } else {
        sqlx::query_scalar(
            "SELECT nspname::text FROM pg_namespace n
             WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
               AND nspname::text <> ALL ($1::text[])
               AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass
                   AND d.objid = n.oid AND d.deptype = 'e')",
        )
        .bind(INTERNAL_SCHEMAS)
    };
    query
        .fetch_all(connection)
        .await
        .map_err(Error::sql("list the user's schemas"))
}

pub(crate) async fn has_function(
    connection: &mut PgConnection,
    schema: &str,
    name: &str,
) -> Result<bool, Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                        WHERE n.nspname = $1 AND p.proname = $2)",
    )
    .bind(schema)
    .bind(name)
    .fetch_one(connection)
    .await
    .map_err(Error::sql("look for a function"))
}
