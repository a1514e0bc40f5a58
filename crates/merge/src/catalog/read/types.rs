//! Types that users make: enums, domains, composite and range types.

use std::collections::HashMap;

use sqlx::{FromRow, postgres::types::Oid};

use super::{
    reader::{Reader, class},
    schemas::letter,
};
use crate::{
    catalog::{Attribute, FactId, Kind, Label, Payload},
    error::Error,
};

#[derive(FromRow)]
struct TypeRow {
    oid: Oid,
    namespace: Oid,
    name: String,
    owner: Oid,
    /// 0 for none.
    array: Oid,
}

/// Notes a type, and its array type as one with it.
fn note(reader: &mut Reader<'_>, kind: Kind, row: &TypeRow, payload: Payload) {
    let id = FactId::object(kind, &reader.schema(row.namespace), &row.name);
    reader
        .objects
        .insert((class::TYPE, row.array.0), id.clone());
    reader.object(class::TYPE, row.oid, id.clone(), payload);
    reader.owner(&id, row.owner);
}

pub async fn enums(reader: &mut Reader<'_>) -> Result<(), Error> {
    let types: Vec<TypeRow> = reader
        .rows(
            "enums",
            r"SELECT oid, typnamespace AS namespace, typname::text AS name, typowner AS owner, typarray AS array
              FROM pg_catalog.pg_type WHERE typtype = 'e' AND typnamespace = ANY ($1)",
        )
        .await?;
    let rows: Vec<(Oid, Oid, String)> = reader
        .rows(
            "labels of enums",
            r"SELECT e.enumtypid, e.oid, e.enumlabel::text
              FROM pg_catalog.pg_enum e JOIN pg_catalog.pg_type t ON t.oid = e.enumtypid
              WHERE t.typnamespace = ANY ($1) ORDER BY e.enumtypid, e.enumsortorder",
        )
        .await?;
    let mut labels: HashMap<u32, Vec<Label>> = HashMap::new();
    for (type_, oid, name) in rows {
        labels
            .entry(type_.0)
            .or_default()
            .push(Label { name, oid: oid.0 });
    }
    for row in types {
        if reader.is_member(class::TYPE, row.oid) {
            continue;
        }
        let labels = labels.remove(&row.oid.0).unwrap_or_default();
        note(reader, Kind::Enum, &row, Payload::Enum { labels });
    }
    Ok(())
}

#[derive(FromRow)]
struct DomainRow {
    #[sqlx(flatten)]
    type_: TypeRow,
    base: String,
    collation: Option<String>,
    default: Option<String>,
    not_null: bool,
}

#[derive(FromRow)]
struct DomainConstraintRow {
    oid: Oid,
    domain: Oid,
    name: String,
    kind: String,
    definition: String,
    validated: bool,
}

pub async fn domains(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<DomainRow> = reader
        .rows(
            "domains",
            r#"SELECT t.oid, t.typnamespace AS namespace, t.typname::text AS name, t.typowner AS owner, t.typarray AS array,
                pg_catalog.format_type(t.typbasetype, t.typtypmod) AS base,
                CASE WHEN t.typcollation <> b.typcollation
                  THEN quote_ident(cn.nspname) || '.' || quote_ident(c.collname) END AS collation,
                pg_catalog.pg_get_expr(t.typdefaultbin, 0) AS "default", t.typnotnull AS not_null
              FROM pg_catalog.pg_type t JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype
                LEFT JOIN pg_catalog.pg_collation c ON c.oid = t.typcollation
                LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = c.collnamespace
              WHERE t.typtype = 'd' AND t.typnamespace = ANY ($1)"#,
        )
        .await?;
    for row in rows {
        if reader.is_member(class::TYPE, row.type_.oid) {
            continue;
        }
        note(
            reader,
            Kind::Domain,
            &row.type_,
            Payload::Domain {
                base: row.base,
                collation: row.collation,
                default: row.default,
                not_null: row.not_null,
            },
        );
    }
    let rows: Vec<DomainConstraintRow> = reader
        .rows(
            "constraints of domains",
            r"SELECT c.oid, c.contypid AS domain, c.conname::text AS name, c.contype::text AS kind,
                pg_catalog.pg_get_constraintdef(c.oid) AS definition, c.convalidated AS validated
              FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_type t ON t.oid = c.contypid
              WHERE c.contype = 'c' AND t.typnamespace = ANY ($1)",
        )
        .await?;
    for row in rows {
        let Some(domain) = reader.objects.get(&(class::TYPE, row.domain.0)).cloned() else {
            continue;
        };
        if domain.kind != Kind::Domain {
            continue; // its domain is a member of an extension
        }
        reader.part(
            class::CONSTRAINT,
            row.oid,
            &domain,
            FactId::part(Kind::Constraint, &domain.schema, &domain.object, &row.name),
            Payload::Constraint {
                kind: letter(&row.kind),
                definition: row.definition,
                validated: row.validated,
            },
        );
    }
    Ok(())
}

#[derive(FromRow)]
struct CompositeRow {
    #[sqlx(flatten)]
    type_: TypeRow,
    relation: Oid,
}

#[derive(FromRow)]
struct AttributeRow {
    relation: Oid,
    number: i16,
    name: String,
    type_: String,
    collation: Option<String>,
}

pub async fn composites(reader: &mut Reader<'_>) -> Result<(), Error> {
    let types: Vec<CompositeRow> = reader
        .rows(
            "composite types",
            r"SELECT t.oid, t.typnamespace AS namespace, t.typname::text AS name, t.typowner AS owner,
                t.typarray AS array, t.typrelid AS relation
              FROM pg_catalog.pg_type t JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
              WHERE t.typtype = 'c' AND c.relkind = 'c' AND t.typnamespace = ANY ($1)",
        )
        .await?;
    let rows: Vec<AttributeRow> = reader
        .rows(
            "attributes of composite types",
            r"SELECT a.attrelid AS relation, a.attnum AS number, a.attname::text AS name,
                pg_catalog.format_type(a.atttypid, a.atttypmod) AS type_,
                CASE WHEN a.attcollation <> b.typcollation
                  THEN quote_ident(cn.nspname) || '.' || quote_ident(l.collname) END AS collation
              FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
                JOIN pg_catalog.pg_type b ON b.oid = a.atttypid
                LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
                LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = l.collnamespace
              WHERE c.relkind = 'c' AND c.relnamespace = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
              ORDER BY a.attrelid, a.attnum",
        )
        .await?;
    let mut attributes: HashMap<u32, Vec<Attribute>> = HashMap::new();
    for row in rows {
        reader
            .column_names
            .insert((row.relation.0, row.number), row.name.clone());
        attributes
            .entry(row.relation.0)
            .or_default()
            .push(Attribute {
                name: row.name,
                type_: row.type_,
                collation: row.collation,
                number: row.number,
            });
    }
    for row in types {
        if reader.is_member(class::TYPE, row.type_.oid) {
            continue;
        }
        let attributes = attributes.remove(&row.relation.0).unwrap_or_default();
        note(
            reader,
            Kind::Composite,
            &row.type_,
            Payload::Composite { attributes },
        );
        let id = FactId::object(
            Kind::Composite,
            &reader.schema(row.type_.namespace),
            &row.type_.name,
        );
        reader.objects.insert((class::RELATION, row.relation.0), id);
    }
    Ok(())
}

#[derive(FromRow)]
struct RangeRow {
    #[sqlx(flatten)]
    type_: TypeRow,
    subtype: String,
    operator_class: Option<String>,
    collation: Option<String>,
    canonical: Option<String>,
    difference: Option<String>,
    multirange: Oid,
    multirange_array: Oid,
    multirange_name: String,
}

pub async fn ranges(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<RangeRow> = reader
        .rows(
            "range types",
            r"SELECT t.oid, t.typnamespace AS namespace, t.typname::text AS name, t.typowner AS owner, t.typarray AS array,
                pg_catalog.format_type(r.rngsubtype, NULL) AS subtype,
                CASE WHEN NOT o.opcdefault THEN quote_ident(n.nspname) || '.' || quote_ident(o.opcname) END AS operator_class,
                CASE WHEN r.rngcollation <> b.typcollation
                  THEN quote_ident(cn.nspname) || '.' || quote_ident(c.collname) END AS collation,
                CASE WHEN r.rngcanonical <> 0 THEN r.rngcanonical::pg_catalog.regproc::text END AS canonical,
                CASE WHEN r.rngsubdiff <> 0 THEN r.rngsubdiff::pg_catalog.regproc::text END AS difference,
                r.rngmultitypid AS multirange, m.typarray AS multirange_array,
                quote_ident(mn.nspname) || '.' || quote_ident(m.typname) AS multirange_name
              FROM pg_catalog.pg_range r JOIN pg_catalog.pg_type t ON t.oid = r.rngtypid
                JOIN pg_catalog.pg_type b ON b.oid = r.rngsubtype
                JOIN pg_catalog.pg_type m ON m.oid = r.rngmultitypid
                JOIN pg_catalog.pg_namespace mn ON mn.oid = m.typnamespace
                JOIN pg_catalog.pg_opclass o ON o.oid = r.rngsubopc
                JOIN pg_catalog.pg_namespace n ON n.oid = o.opcnamespace
                LEFT JOIN pg_catalog.pg_collation c ON c.oid = r.rngcollation
                LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = c.collnamespace
              WHERE t.typnamespace = ANY ($1)",
        )
        .await?;
    for row in rows {
        if reader.is_member(class::TYPE, row.type_.oid) {
            continue;
        }
        let options: Vec<String> = [
            ("SUBTYPE", Some(row.subtype)),
            ("SUBTYPE_OPCLASS", row.operator_class),
            ("COLLATION", row.collation),
            ("CANONICAL", row.canonical),
            ("SUBTYPE_DIFF", row.difference),
            ("MULTIRANGE_TYPE_NAME", Some(row.multirange_name)),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| format!("{name} = {value}")))
        .collect();
        let options = options.join(", ");
        note(reader, Kind::Range, &row.type_, Payload::Range { options });
        let id = FactId::object(
            Kind::Range,
            &reader.schema(row.type_.namespace),
            &row.type_.name,
        );
        for oid in [row.multirange, row.multirange_array] {
            reader.objects.insert((class::TYPE, oid.0), id.clone());
        }
    }
    Ok(())
}
