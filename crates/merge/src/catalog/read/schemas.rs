//! Schemas, extensions and collations.

use sqlx::{FromRow, postgres::types::Oid};

use super::reader::{Reader, class};
use crate::{
    catalog::{FactId, Kind, Payload},
    error::Error,
};

#[derive(FromRow)]
struct SchemaRow {
    oid: Oid,
    name: String,
    owner: Oid,
}

/// Every schema but Postgres's own, those of temporary tables among them. A schema that belongs to an extension is no fact, but
/// its objects are read: users may have put some there.
pub async fn schemas(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<SchemaRow> = sqlx::query_as(
        r"SELECT oid, nspname::text AS name, nspowner AS owner FROM pg_catalog.pg_namespace
          WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'",
    )
    .fetch_all(&mut *reader.conn)
    .await
    .map_err(Error::while_doing("read the schemas"))?;
    let managed = managed(reader).await?;
    for row in rows {
        reader.schemas.insert(row.oid.0, row.name.clone());
        let id = FactId::object(Kind::Schema, "", &row.name);
        if reader.is_member(class::NAMESPACE, row.oid) {
            reader.catalog.managed.insert(row.name);
            continue;
        }
        if managed.contains(&row.name) {
            reader.catalog.managed.insert(row.name);
        }
        reader.object(class::NAMESPACE, row.oid, id.clone(), Payload::Schema);
        reader.owner(&id, row.owner);
    }
    Ok(())
}

/// On an InsForge database it is the product that says which schemas are its own (project-backend, 5.1).
async fn managed(reader: &mut Reader<'_>) -> Result<Vec<String>, Error> {
    let asks: bool = sqlx::query_scalar(
        r"SELECT EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
            WHERE n.nspname = 'system' AND p.proname = 'is_exposed_schema' AND p.pronargs = 1)",
    )
    .fetch_one(&mut *reader.conn)
    .await
    .map_err(Error::while_doing("look for the product's schemas"))?;
    if !asks {
        return Ok(Vec::new());
    }
    sqlx::query_scalar(
        r"SELECT nspname::text FROM pg_catalog.pg_namespace
          WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
            AND NOT coalesce(system.is_exposed_schema(nspname::text), false)",
    )
    .fetch_all(&mut *reader.conn)
    .await
    .map_err(Error::while_doing("ask for the product's schemas"))
}

#[derive(FromRow)]
struct ExtensionRow {
    oid: Oid,
    name: String,
    schema: String,
}

/// Extensions, and which objects are theirs: whatever needs one of those needs the extension. `plpgsql` is in every database.
pub async fn extensions(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<ExtensionRow> = sqlx::query_as(
        r"SELECT e.oid, e.extname::text AS name, n.nspname::text AS schema
          FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
          WHERE e.extname <> 'plpgsql'",
    )
    .fetch_all(&mut *reader.conn)
    .await
    .map_err(Error::while_doing("read the extensions"))?;
    for row in rows {
        reader.object(
            class::EXTENSION,
            row.oid,
            FactId::object(Kind::Extension, "", &row.name),
            Payload::Extension { schema: row.schema },
        );
    }
    let members: Vec<(Oid, Oid, Oid)> = sqlx::query_as(
        "SELECT classid, objid, refobjid FROM pg_catalog.pg_depend WHERE deptype = 'e'",
    )
    .fetch_all(&mut *reader.conn)
    .await
    .map_err(Error::while_doing("read the members of extensions"))?;
    for (class, oid, extension) in members {
        if let Some(id) = reader
            .objects
            .get(&(class::EXTENSION, extension.0))
            .cloned()
        {
            reader.objects.insert((class.0, oid.0), id);
        }
    }
    Ok(())
}

#[derive(FromRow)]
struct CollationRow {
    oid: Oid,
    namespace: Oid,
    name: String,
    owner: Oid,
    provider: String,
    deterministic: bool,
    collate: Option<String>,
    ctype: Option<String>,
    locale: Option<String>,
    rules: Option<String>,
}

/// The column with the ICU locale has another name in each of Postgres 15 and 17, hence the way through JSON.
pub async fn collations(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<CollationRow> = reader
        .rows(
            "collations",
            r"SELECT c.oid, c.collnamespace AS namespace, c.collname::text AS name, c.collowner AS owner,
                c.collprovider::text AS provider, c.collisdeterministic AS deterministic,
                quote_literal(c.collcollate) AS collate, quote_literal(c.collctype) AS ctype,
                quote_literal(coalesce(to_jsonb(c) ->> 'colllocale', to_jsonb(c) ->> 'colliculocale')) AS locale,
                quote_literal(to_jsonb(c) ->> 'collicurules') AS rules
              FROM pg_catalog.pg_collation c WHERE c.collnamespace = ANY ($1)",
        )
        .await?;
    for row in rows {
        if reader.is_member(class::COLLATION, row.oid) {
            continue;
        }
        let options: Vec<String> = [
            ("LOCALE", row.locale),
            ("LC_COLLATE", row.collate),
            ("LC_CTYPE", row.ctype),
            ("RULES", row.rules),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| format!("{name} = {value}")))
        .collect();
        let id = FactId::object(Kind::Collation, &reader.schema(row.namespace), &row.name);
        reader.object(
            class::COLLATION,
            row.oid,
            id.clone(),
            Payload::Collation {
                provider: letter(&row.provider),
                deterministic: row.deterministic,
                options: options.join(", "),
            },
        );
        reader.owner(&id, row.owner);
    }
    Ok(())
}

/// A `"char"` that came as text.
pub fn letter(text: &str) -> char {
    text.chars().next().unwrap_or(' ')
}
