//! Tables with their columns, sequences and views.

use std::collections::HashMap;

use sqlx::{
    FromRow, Row,
    postgres::{PgRow, types::Oid},
};

use super::{
    keys::KeyColumn,
    reader::{LEDGER, Reader, class},
    schemas::letter,
};
use crate::{
    catalog::{
        Column, FactId, Identity, Kind, Needs, Payload, Place, Sequence, SequenceOptions, Table,
        ViewColumn,
    },
    error::Error,
};

#[derive(FromRow)]
struct TableRow {
    oid: Oid,
    namespace: Oid,
    name: String,
    owner: Oid,
    row_type: Oid,
    row_array: Oid,
    unlogged: bool,
    partition_by: Option<String>,
    bound: Option<String>,
    options: Vec<String>,
    toast_options: Vec<String>,
    replica_identity: String,
    replica_index: Option<String>,
    access_method: Option<String>,
    rls: bool,
    forced: bool,
}

/// Tables, partitioned ones and partitions, with their row security flags. Parents are filled in by [`columns`].
pub async fn tables(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<TableRow> = reader
        .rows(
            "tables",
            r"SELECT c.oid, c.relnamespace AS namespace, c.relname::text AS name, c.relowner AS owner,
                c.reltype AS row_type, t.typarray AS row_array, c.relpersistence = 'u' AS unlogged,
                CASE c.relkind WHEN 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END AS partition_by,
                pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS bound,
                coalesce(c.reloptions, '{}') AS options, coalesce(o.reloptions, '{}') AS toast_options,
                c.relreplident::text AS replica_identity, CASE c.relreplident WHEN 'i' THEN
                  (SELECT r.relname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class r ON r.oid = i.indexrelid
                   WHERE i.indrelid = c.oid AND i.indisreplident) END AS replica_index,
                CASE WHEN a.amname <> 'heap' THEN a.amname::text END AS access_method,
                c.relrowsecurity AS rls, c.relforcerowsecurity AS forced
              FROM pg_catalog.pg_class c JOIN pg_catalog.pg_type t ON t.oid = c.reltype
                LEFT JOIN pg_catalog.pg_class o ON o.oid = c.reltoastrelid
                LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
              WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND c.relnamespace = ANY ($1)",
        )
        .await?;
    for row in rows {
        let schema = reader.schema(row.namespace);
        if reader.is_member(class::RELATION, row.oid)
            || (schema.as_str(), row.name.as_str()) == LEDGER
        {
            continue;
        }
        let mut options = row.options;
        options.extend(
            row.toast_options
                .iter()
                .map(|option| format!("toast.{option}")),
        );
        options.sort();
        let id = FactId::object(Kind::Table, &schema, &row.name);
        for type_ in [row.row_type, row.row_array] {
            reader.objects.insert((class::TYPE, type_.0), id.clone());
        }
        reader.object(
            class::RELATION,
            row.oid,
            id.clone(),
            Payload::Table(Table {
                unlogged: row.unlogged,
                partition_by: row.partition_by,
                parents: Vec::new(),
                bound: row.bound,
                options,
                replica_identity: letter(&row.replica_identity),
                replica_index: row.replica_index,
                access_method: row.access_method,
            }),
        );
        reader.owner(&id, row.owner);
        reader.note(
            FactId::object(Kind::Rls, &schema, &row.name),
            Place {
                oid: row.oid.0,
                number: 0,
            },
            Needs::from([id]),
            Payload::Rls {
                enabled: row.rls,
                forced: row.forced,
            },
        );
    }
    Ok(())
}

struct ColumnRow {
    table: Oid,
    number: i16,
    name: String,
    key: KeyColumn,
    type_: String,
    collation: Option<String>,
    default: Option<String>,
    /// Of `pg_attrdef`.
    default_oid: Option<Oid>,
    not_null: bool,
    identity_always: bool,
    generated: bool,
    storage: Option<i8>,
    compression: Option<i8>,
    statistics: Option<i16>,
    options: Option<Vec<String>>,
    inherited: bool,
}

/// By position: there are so many of them that looking for names shows.
impl FromRow<'_, PgRow> for ColumnRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let (type_, collation): (Oid, Oid) = (row.try_get(3)?, row.try_get(4)?);
        Ok(Self {
            table: row.try_get(0)?,
            number: row.try_get(1)?,
            name: row.try_get(2)?,
            key: KeyColumn {
                type_: type_.0,
                collation: collation.0,
            },
            type_: row.try_get(5)?,
            collation: row.try_get(6)?,
            default: row.try_get(7)?,
            default_oid: row.try_get(8)?,
            not_null: row.try_get(9)?,
            identity_always: row.try_get(10)?,
            generated: row.try_get(11)?,
            storage: row.try_get(12)?,
            compression: row.try_get(13)?,
            statistics: row.try_get(14)?,
            options: row.try_get(15)?,
            inherited: row.try_get(16)?,
        })
    }
}

/// Columns, without those that a table has from its parents just as the parents have them.
pub async fn columns(reader: &mut Reader<'_>) -> Result<(), Error> {
    let parents = parents(reader).await?;
    let mut identities = identity_sequences(reader).await?;
    let rows: Vec<ColumnRow> = reader
        .rows(
            "columns",
            // Only what generates a column mentions columns of its table: all else is printed without a look at the table.
            r"SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, a.attcollation,
                pg_catalog.format_type(a.atttypid, a.atttypmod),
                CASE WHEN a.attcollation <> b.typcollation THEN
                  (SELECT quote_ident(n.nspname) || '.' || quote_ident(l.collname) FROM pg_catalog.pg_collation l
                   JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = a.attcollation) END,
                pg_catalog.pg_get_expr(d.adbin, CASE a.attgenerated WHEN '' THEN 0 ELSE d.adrelid END), d.oid, a.attnotnull,
                a.attidentity = 'a', a.attgenerated <> '', nullif(a.attstorage, b.typstorage),
                nullif(a.attcompression, ''), nullif(a.attstattarget::int2, -1), a.attoptions,
                a.attinhcount > 0 AND NOT a.attislocal
              FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
                JOIN pg_catalog.pg_type b ON b.oid = a.atttypid
                LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.atthasdef
              WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND c.relnamespace = ANY ($1)
                AND a.attnum > 0 AND NOT a.attisdropped",
        )
        .await?;
    reader.columns.reserve(rows.len());
    reader.key_columns.reserve(rows.len());
    let mut inherited = Vec::new();
    for row in rows {
        let Some(table) = reader.relation(row.table) else {
            continue;
        };
        let number = row.number;
        let id = FactId::part(Kind::Column, &table.schema, &table.object, &row.name);
        let place = Place {
            oid: row.table.0,
            number,
        };
        reader.key_columns.insert((place.oid, number), row.key);
        let comes_from_parents = row.inherited;
        let default = row.default_oid;
        let identity = identities.remove(&(row.table.0, number));
        if let Some(sequence) = &identity {
            let name = (reader.schema(sequence.namespace), sequence.name.clone());
            reader.identity_sequences.insert(sequence.oid.0, name);
            reader
                .objects
                .insert((class::RELATION, sequence.oid.0), id.clone());
        }
        let payload = Payload::Column(column(
            row,
            identity.map(|sequence| sequence.options.into()),
        ));
        reader.columns.insert((place.oid, number), id.clone());
        if let Some(default) = default {
            reader
                .objects
                .insert((class::ATTRIBUTE_DEFAULT, default.0), id.clone());
        }
        if comes_from_parents {
            inherited.push(id.clone());
        }
        reader.note(id, place, Needs::from([table]), payload);
    }
    leave_out_inherited(reader, &parents, &inherited);
    Ok(())
}

fn column(row: ColumnRow, options: Option<SequenceOptions>) -> Column {
    let mut n_distinct: Vec<String> = row
        .options
        .unwrap_or_default()
        .into_iter()
        .filter(|option| option.starts_with("n_distinct"))
        .collect();
    n_distinct.sort();
    let (default, generated) = if row.generated {
        (None, row.default)
    } else {
        (row.default, None)
    };
    Column {
        type_: row.type_,
        collation: row.collation,
        default,
        not_null: row.not_null,
        identity: options.map(|options| {
            Box::new(Identity {
                always: row.identity_always,
                options,
            })
        }),
        generated,
        storage: row.storage.map(letter_of),
        compression: row.compression.map(letter_of),
        statistics: row.statistics,
        options: n_distinct,
    }
}

/// A `"char"` that came as such.
fn letter_of(byte: i8) -> char {
    char::from(byte.cast_unsigned())
}

/// Fills in the parents of tables. Returns them by table.
async fn parents(reader: &mut Reader<'_>) -> Result<HashMap<FactId, Vec<FactId>>, Error> {
    let rows: Vec<(Oid, Oid)> = reader
        .rows(
            "parents of tables",
            r"SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
              WHERE c.relkind IN ('r', 'p') AND c.relnamespace = ANY ($1) ORDER BY i.inhrelid, i.inhseqno",
        )
        .await?;
    let mut parents: HashMap<FactId, Vec<FactId>> = HashMap::new();
    for (child, parent) in rows {
        let (Some(child), Some(parent)) = (reader.relation(child), reader.relation(parent)) else {
            continue;
        };
        if let Some(fact) = reader.catalog.facts.get_mut(&child) {
            if let Payload::Table(table) = &mut fact.payload {
                table
                    .parents
                    .push((parent.schema.clone(), parent.object.clone()));
            }
            fact.needs.insert(parent.clone());
        }
        parents.entry(child).or_default().push(parent);
    }
    Ok(parents)
}

/// Children before their parents' own inherited columns are gone: so a chain of any length is compared link by link.
fn leave_out_inherited(
    reader: &mut Reader<'_>,
    parents: &HashMap<FactId, Vec<FactId>>,
    inherited: &[FactId],
) {
    let origin = |id: &FactId| -> Option<FactId> {
        let table = FactId::object(Kind::Table, &id.schema, &id.object);
        parents
            .get(&table)?
            .iter()
            .map(|parent| FactId::part(Kind::Column, &parent.schema, &parent.object, &id.part))
            .find(|candidate| reader.catalog.facts.contains_key(candidate))
    };
    let equal: HashMap<FactId, FactId> = inherited
        .iter()
        .filter_map(|id| {
            let origin = origin(id)?;
            let (ours, theirs) = (
                reader.catalog.facts.get(id)?,
                reader.catalog.facts.get(&origin)?,
            );
            (ours.payload == theirs.payload).then(|| (id.clone(), origin))
        })
        .collect();
    for id in equal.keys() {
        reader.catalog.facts.remove(id);
    }
    for id in reader.columns.values_mut() {
        while let Some(origin) = equal.get(id) {
            *id = origin.clone();
        }
    }
}

#[derive(FromRow)]
struct SequenceRow {
    oid: Oid,
    namespace: Oid,
    name: String,
    owner: Oid,
    unlogged: bool,
    #[sqlx(flatten)]
    options: OptionsRow,
    /// 0 for none.
    owned_by: Oid,
    owned_by_number: i16,
}

#[derive(FromRow)]
struct OptionsRow {
    type_: String,
    start: i64,
    increment: i64,
    minimum: i64,
    maximum: i64,
    cache: i64,
    cycle: bool,
}

impl From<OptionsRow> for SequenceOptions {
    fn from(row: OptionsRow) -> Self {
        Self {
            type_: row.type_,
            start: row.start,
            increment: row.increment,
            minimum: row.minimum,
            maximum: row.maximum,
            cache: row.cache,
            cycle: row.cycle,
        }
    }
}

/// The sequences of identity columns, which are internal to them, by table and number of the column.
async fn identity_sequences(
    reader: &mut Reader<'_>,
) -> Result<HashMap<(u32, i16), SequenceRow>, Error> {
    let rows: Vec<SequenceRow> = reader
        .rows(
            "sequences of identity columns",
            r"SELECT s.seqrelid AS oid, c.relnamespace AS namespace, c.relname::text AS name, c.relowner AS owner,
                c.relpersistence = 'u' AS unlogged, pg_catalog.format_type(s.seqtypid, NULL) AS type_, s.seqstart AS start,
                s.seqincrement AS increment, s.seqmin AS minimum, s.seqmax AS maximum, s.seqcache AS cache,
                s.seqcycle AS cycle, d.refobjid AS owned_by, d.refobjsubid::int2 AS owned_by_number
              FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
                JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = s.seqrelid
                  AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjsubid > 0 AND d.deptype = 'i'
              WHERE c.relpersistence <> 't' AND c.relnamespace = ANY ($1)",
        )
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| ((row.owned_by.0, row.owned_by_number), row))
        .collect())
}

/// Sequences of their own and those that columns own (serial). The owner of an owned one is its table's.
pub async fn sequences(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<SequenceRow> = reader
        .rows(
            "sequences",
            r"SELECT s.seqrelid AS oid, c.relnamespace AS namespace, c.relname::text AS name, c.relowner AS owner,
                c.relpersistence = 'u' AS unlogged, pg_catalog.format_type(s.seqtypid, NULL) AS type_, s.seqstart AS start,
                s.seqincrement AS increment, s.seqmin AS minimum, s.seqmax AS maximum, s.seqcache AS cache,
                s.seqcycle AS cycle, coalesce(d.refobjid, 0) AS owned_by, coalesce(d.refobjsubid, 0)::int2 AS owned_by_number
              FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
                LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                  AND d.objid = s.seqrelid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                  AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
              WHERE c.relpersistence <> 't' AND c.relnamespace = ANY ($1) AND d.deptype IS DISTINCT FROM 'i'",
        )
        .await?;
    for row in rows {
        if reader.is_member(class::RELATION, row.oid) {
            continue;
        }
        let owned_by = reader
            .columns
            .get(&(row.owned_by.0, row.owned_by_number))
            .cloned();
        let id = FactId::object(Kind::Sequence, &reader.schema(row.namespace), &row.name);
        let owned = owned_by.is_some();
        reader.object(
            class::RELATION,
            row.oid,
            id.clone(),
            Payload::Sequence(Box::new(Sequence {
                options: row.options.into(),
                unlogged: row.unlogged,
                owned_by,
            })),
        );
        if !owned {
            reader.owner(&id, row.owner);
        }
    }
    Ok(())
}

#[derive(FromRow)]
struct ViewRow {
    oid: Oid,
    namespace: Oid,
    name: String,
    owner: Oid,
    row_type: Oid,
    row_array: Oid,
    materialized: bool,
    definition: String,
    options: Vec<String>,
}

#[derive(FromRow)]
struct ViewColumnRow {
    view: Oid,
    number: i16,
    name: String,
    type_: String,
    default: Option<String>,
    default_oid: Option<Oid>,
}

pub async fn views(reader: &mut Reader<'_>) -> Result<(), Error> {
    let views: Vec<ViewRow> = reader
        .rows(
            "views",
            r"SELECT c.oid, c.relnamespace AS namespace, c.relname::text AS name, c.relowner AS owner,
                c.reltype AS row_type, t.typarray AS row_array, c.relkind = 'm' AS materialized,
                pg_catalog.pg_get_viewdef(c.oid) AS definition, coalesce(c.reloptions, '{}') AS options
              FROM pg_catalog.pg_class c JOIN pg_catalog.pg_type t ON t.oid = c.reltype
              WHERE c.relkind IN ('v', 'm') AND c.relpersistence <> 't' AND c.relnamespace = ANY ($1)",
        )
        .await?;
    let rows: Vec<ViewColumnRow> = reader
        .rows(
            "columns of views",
            r#"SELECT a.attrelid AS view, a.attnum AS number, a.attname::text AS name,
                pg_catalog.format_type(a.atttypid, a.atttypmod) AS type_,
                pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS "default", d.oid AS default_oid
              FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
                LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
              WHERE c.relkind IN ('v', 'm') AND c.relnamespace = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
              ORDER BY a.attrelid, a.attnum"#,
        )
        .await?;
    let mut columns: HashMap<u32, Vec<ViewColumn>> = HashMap::new();
    let mut numbers: Vec<(u32, i16, Option<Oid>)> = Vec::new();
    for row in rows {
        numbers.push((row.view.0, row.number, row.default_oid));
        reader
            .column_names
            .insert((row.view.0, row.number), row.name.clone());
        columns.entry(row.view.0).or_default().push(ViewColumn {
            name: row.name,
            type_: row.type_,
            default: row.default,
        });
    }
    for row in views {
        if reader.is_member(class::RELATION, row.oid) {
            continue;
        }
        let definition = row.definition.trim().trim_end_matches(';').to_owned();
        let mut options = row.options;
        options.sort();
        let columns = columns.remove(&row.oid.0).unwrap_or_default();
        let (kind, payload) = if row.materialized {
            (
                Kind::MaterializedView,
                Payload::MaterializedView {
                    definition,
                    options,
                    columns,
                },
            )
        } else {
            (
                Kind::View,
                Payload::View {
                    definition,
                    options,
                    columns,
                },
            )
        };
        let id = FactId::object(kind, &reader.schema(row.namespace), &row.name);
        for type_ in [row.row_type, row.row_array] {
            reader.objects.insert((class::TYPE, type_.0), id.clone());
        }
        reader.object(class::RELATION, row.oid, id.clone(), payload);
        reader.owner(&id, row.owner);
    }
    for (view, number, default) in numbers {
        if let Some(id) = reader.relation(Oid(view)) {
            if let Some(default) = default {
                reader
                    .objects
                    .insert((class::ATTRIBUTE_DEFAULT, default.0), id.clone());
            }
            reader.columns.insert((view, number), id);
        }
    }
    Ok(())
}
