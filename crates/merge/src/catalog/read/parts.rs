//! What belongs to tables and views: constraints, indexes, statistics, rules, triggers and policies.

use std::collections::{BTreeMap, HashMap};

use sqlx::{FromRow, postgres::types::Oid};

use super::{
    keys::{self, IndexKey},
    reader::{Reader, class},
    schemas::letter,
};
use crate::{
    catalog::{FactId, Kind, Payload},
    error::Error,
};

#[derive(FromRow)]
struct ConstraintRow {
    oid: Oid,
    table: Oid,
    name: String,
    kind: String,
    /// Of a plain key, which has no definition here.
    columns: Option<Vec<i16>>,
    definition: String,
    validated: bool,
    /// 0 for none.
    index: Oid,
    /// Of the constraint that this one is a clone of; 0 for none.
    origin: Oid,
    inherited: bool,
}

/// Constraints of tables, without those that tables have from their parents.
pub async fn constraints(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<ConstraintRow> = reader
        .rows(
            "constraints",
            r#"SELECT c.oid, c.conrelid AS "table", c.conname::text AS name, c.contype::text AS kind,
                CASE WHEN k.plain THEN c.conkey END AS columns,
                CASE WHEN k.plain THEN '' ELSE pg_catalog.pg_get_constraintdef(c.oid) END AS definition,
                c.convalidated AS validated, CASE WHEN c.contype IN ('p', 'u', 'x') THEN c.conindid ELSE 0 END AS index,
                c.conparentid AS origin, c.coninhcount > 0 AND NOT c.conislocal AS inherited
              FROM pg_catalog.pg_constraint c LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.conindid,
                LATERAL (SELECT c.contype IN ('p', 'u') AND c.convalidated AND NOT c.condeferrable AND i.indnatts = i.indnkeyatts
                  AND NOT i.indnullsnotdistinct AND NOT i.indisexclusion AS plain) k
              WHERE c.contype IN ('c', 'f', 'p', 'u', 'x') AND c.conrelid <> 0 AND c.connamespace = ANY ($1)"#,
        )
        .await?;
    let mut clones: Vec<(Oid, Oid, Oid)> = Vec::new();
    for row in rows {
        let Some(table) = reader
            .relation(row.table)
            .filter(|id| id.kind == Kind::Table)
        else {
            continue;
        };
        if row.origin.0 != 0 || row.inherited {
            clones.push((row.oid, row.index, row.origin));
            continue;
        }
        let definition = match row.columns {
            Some(columns) => keys::constraint(reader, &row.kind, row.table, &columns),
            None => row.definition,
        };
        let id = FactId::part(Kind::Constraint, &table.schema, &table.object, &row.name);
        if row.index.0 != 0 {
            reader
                .objects
                .insert((class::RELATION, row.index.0), id.clone());
        }
        reader.part(
            class::CONSTRAINT,
            row.oid,
            &table,
            id,
            Payload::Constraint {
                kind: letter(&row.kind),
                definition,
                validated: row.validated,
            },
        );
    }
    stand_for_origins(reader, class::CONSTRAINT, &clones);
    Ok(())
}

/// What needs a clone needs what it was cloned from. Clones of clones come in any order.
fn stand_for_origins(reader: &mut Reader<'_>, class: u32, clones: &[(Oid, Oid, Oid)]) {
    let origins: HashMap<u32, u32> = clones
        .iter()
        .map(|(clone, _, origin)| (clone.0, origin.0))
        .collect();
    for (clone, index, _) in clones {
        let mut root = clone.0;
        while let Some(origin) = origins.get(&root) {
            root = *origin;
        }
        if let Some(id) = reader.objects.get(&(class, root)).cloned() {
            if index.0 != 0 {
                reader
                    .objects
                    .insert((class::RELATION, index.0), id.clone());
            }
            reader.objects.insert((class, clone.0), id);
        }
    }
}

#[derive(FromRow)]
struct IndexRow {
    oid: Oid,
    on: Oid,
    namespace: Oid,
    name: String,
    #[sqlx(flatten)]
    key: IndexKey,
    clustered: bool,
    statistics: Option<Vec<i16>>,
    statistics_numbers: Option<Vec<i16>>,
    /// Of the partitioned index that this one is attached to; 0 for none.
    origin: Oid,
}

/// Indexes but those of constraints, those of partitions that come with their table's, and, as `pg_dump` has it, those that
/// CREATE INDEX CONCURRENTLY did not finish.
pub async fn indexes(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<IndexRow> = reader
        .rows(
            "indexes",
            r#"SELECT i.indexrelid AS oid, i.indrelid AS "on", c.relnamespace AS namespace, c.relname::text AS name,
                -- As arrays that begin at one.
                i.indisunique AS "unique", (i.indkey::int2[])[:] AS columns, (i.indclass::oid[])[:] AS classes,
                (i.indcollation::oid[])[:] AS collations, p.plain,
                CASE WHEN p.plain THEN pg_catalog.left(i.indexprs::text, 250) END AS tree,
                CASE WHEN p.plain THEN pg_catalog.pg_get_expr(i.indexprs, i.indrelid) END AS expression,
                i.indisclustered AS clustered, s.targets AS statistics, s.numbers AS statistics_numbers,
                coalesce(h.inhparent, 0) AS origin
              FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
                LEFT JOIN pg_catalog.pg_inherits h ON h.inhrelid = c.oid AND c.relispartition
                LEFT JOIN (SELECT attrelid, array_agg(attstattarget::int2 ORDER BY attnum) AS targets,
                    array_agg(attnum ORDER BY attnum) AS numbers
                  FROM pg_catalog.pg_attribute WHERE attstattarget >= 0 AND attnum > 0 GROUP BY attrelid) s
                  ON s.attrelid = i.indexrelid AND i.indexprs IS NOT NULL,
                -- 403: btree.
                LATERAL (SELECT c.relkind = 'i' AND c.relam = 403 AND c.reloptions IS NULL AND i.indpred IS NULL
                  AND i.indnatts = i.indnkeyatts AND NOT i.indnullsnotdistinct AND 0 = ALL (i.indoption::int2[]) AS plain) p
              WHERE c.relpersistence <> 't' AND c.relnamespace = ANY ($1)
                AND (c.relkind = 'I' OR i.indisvalid AND i.indisready)
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k
                  WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x') AND k.conrelid = i.indrelid)"#,
        )
        .await?;
    let types = keys::default_classes(reader).await?;
    let mut clones = Vec::new();
    let mut others = Vec::new();
    for row in rows {
        let Some(on) = reader
            .relation(row.on)
            .filter(|id| matches!(id.kind, Kind::Table | Kind::MaterializedView))
        else {
            continue;
        };
        if row.origin.0 != 0 {
            clones.push((row.oid, Oid(0), row.origin));
            continue;
        }
        match keys::index(reader, &types, (&row.name, row.on, &on), &row.key) {
            Some(definition) => index(reader, row, on, definition),
            None => others.push((row, on)),
        }
    }
    let mut printed = printed(reader, others.iter().map(|(row, _)| row.oid).collect()).await?;
    for (row, on) in others {
        if let Some(definition) = printed.remove(&row.oid.0) {
            index(reader, row, on, definition);
        }
    }
    stand_for_origins(reader, class::RELATION, &clones);
    Ok(())
}

fn index(reader: &mut Reader<'_>, row: IndexRow, on: FactId, definition: String) {
    let numbers = row.statistics_numbers.unwrap_or_default();
    let statistics: BTreeMap<i16, i16> = numbers
        .into_iter()
        .zip(row.statistics.unwrap_or_default())
        .collect();
    let id = FactId::object(Kind::Index, &reader.schema(row.namespace), &row.name);
    let holder = on.clone();
    reader.part(
        class::RELATION,
        row.oid,
        &holder,
        id,
        Payload::Index {
            definition,
            on: on.object,
            clustered: row.clustered,
            statistics,
        },
    );
}

/// Definitions of indexes as Postgres prints them, by oid.
///
/// On a partitioned table it prints `ON ONLY`, as `pg_dump` needs it. Here, partitions have theirs from it.
async fn printed(
    reader: &mut Reader<'_>,
    indexes: Vec<Oid>,
) -> Result<HashMap<u32, String>, Error> {
    if indexes.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(Oid, String)> = sqlx::query_as(
        r"SELECT c.oid, CASE c.relkind WHEN 'I' THEN replace(pg_catalog.pg_get_indexdef(c.oid),
              'INDEX ' || quote_ident(c.relname) || ' ON ONLY ', 'INDEX ' || quote_ident(c.relname) || ' ON ')
            ELSE pg_catalog.pg_get_indexdef(c.oid) END
          FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1)",
    )
    .bind(indexes)
    .fetch_all(&mut *reader.conn)
    .await
    .map_err(Error::while_doing("read the definitions of indexes"))?;
    Ok(rows
        .into_iter()
        .map(|(oid, definition)| (oid.0, definition))
        .collect())
}

#[derive(FromRow)]
struct StatisticsRow {
    oid: Oid,
    on: Oid,
    namespace: Oid,
    name: String,
    owner: Oid,
    definition: String,
    target: i32,
}

pub async fn statistics(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<StatisticsRow> = reader
        .rows(
            "statistics",
            r#"SELECT oid, stxrelid AS "on", stxnamespace AS namespace, stxname::text AS name, stxowner AS owner,
                pg_catalog.pg_get_statisticsobjdef(oid) AS definition, coalesce(stxstattarget, -1)::int4 AS target
              FROM pg_catalog.pg_statistic_ext WHERE stxnamespace = ANY ($1)"#,
        )
        .await?;
    for row in rows {
        let Some(on) = reader.relation(row.on).filter(|id| id.kind == Kind::Table) else {
            continue;
        };
        let id = FactId::object(Kind::Statistics, &reader.schema(row.namespace), &row.name);
        reader.part(
            class::STATISTICS,
            row.oid,
            &on,
            id.clone(),
            Payload::Statistics {
                definition: row.definition,
                target: row.target,
                on: on.object.clone(),
            },
        );
        reader.owner(&id, row.owner);
    }
    Ok(())
}

#[derive(FromRow)]
struct RuleRow {
    oid: Oid,
    on: Oid,
    name: String,
    definition: String,
    enabled: String,
}

/// Rules, and the hidden ones that make views.
pub async fn rules(reader: &mut Reader<'_>) -> Result<(), Error> {
    let hidden: Vec<(Oid, Oid)> = reader
        .rows(
            "rules of views",
            r"SELECT r.oid, r.ev_class FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
              WHERE r.rulename = '_RETURN' AND c.relnamespace = ANY ($1)",
        )
        .await?;
    for (rule, view) in hidden {
        if let Some(id) = reader.relation(view) {
            reader.objects.insert((class::REWRITE, rule.0), id);
        }
    }
    let rows: Vec<RuleRow> = reader
        .rows(
            "rules",
            r#"SELECT r.oid, r.ev_class AS "on", r.rulename::text AS name,
                pg_catalog.pg_get_ruledef(r.oid) AS definition, r.ev_enabled::text AS enabled
              FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
              WHERE r.rulename <> '_RETURN' AND c.relnamespace = ANY ($1)"#,
        )
        .await?;
    for row in rows {
        let Some(on) = holder(reader, row.on) else {
            continue;
        };
        reader.part(
            class::REWRITE,
            row.oid,
            &on,
            FactId::part(Kind::Rule, &on.schema, &on.object, &row.name),
            Payload::Rule {
                definition: row.definition.trim_end_matches(';').to_owned(),
                enabled: letter(&row.enabled),
            },
        );
    }
    Ok(())
}

/// The table or view of a part; none when it belongs to an extension.
fn holder(reader: &Reader<'_>, oid: Oid) -> Option<FactId> {
    reader
        .relation(oid)
        .filter(|id| matches!(id.kind, Kind::Table | Kind::View | Kind::MaterializedView))
}

#[derive(FromRow)]
struct TriggerRow {
    oid: Oid,
    on: Oid,
    name: String,
    definition: String,
    enabled: String,
    constraint: bool,
}

/// Triggers but internal ones and the clones that partitions have.
pub async fn triggers(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<TriggerRow> = reader
        .rows(
            "triggers",
            r#"SELECT t.oid, t.tgrelid AS "on", t.tgname::text AS name, pg_catalog.pg_get_triggerdef(t.oid) AS definition,
                t.tgenabled::text AS enabled, t.tgconstraint <> 0 AS "constraint"
              FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
              WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND c.relnamespace = ANY ($1)"#,
        )
        .await?;
    for row in rows {
        let Some(on) = holder(reader, row.on) else {
            continue;
        };
        reader.part(
            class::TRIGGER,
            row.oid,
            &on,
            FactId::part(Kind::Trigger, &on.schema, &on.object, &row.name),
            Payload::Trigger {
                definition: row.definition,
                enabled: letter(&row.enabled),
                constraint: row.constraint,
            },
        );
    }
    Ok(())
}

#[derive(FromRow)]
struct PolicyRow {
    oid: Oid,
    on: Oid,
    name: String,
    command: String,
    permissive: bool,
    roles: Vec<Oid>,
    using: Option<String>,
    check: Option<String>,
}

pub async fn policies(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<PolicyRow> = reader
        .rows(
            "policies",
            r#"SELECT p.oid, p.polrelid AS "on", p.polname::text AS name, p.polcmd::text AS command,
                p.polpermissive AS permissive, p.polroles AS roles,
                pg_catalog.pg_get_expr(p.polqual, p.polrelid) AS "using",
                pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) AS "check"
              FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
              WHERE c.relnamespace = ANY ($1)"#,
        )
        .await?;
    for row in rows {
        let Some(on) = holder(reader, row.on) else {
            continue;
        };
        let mut roles: Vec<String> = row
            .roles
            .iter()
            .map(|role| {
                if role.0 == 0 {
                    "public".to_owned()
                } else {
                    reader.role(*role)
                }
            })
            .collect();
        roles.sort();
        reader.part(
            class::POLICY,
            row.oid,
            &on,
            FactId::part(Kind::Policy, &on.schema, &on.object, &row.name),
            Payload::Policy {
                command: letter(&row.command),
                permissive: row.permissive,
                roles,
                using: row.using,
                check: row.check,
            },
        );
    }
    Ok(())
}
