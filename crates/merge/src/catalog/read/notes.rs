//! What is told about other objects or needs them all: publications, event triggers, comments.

use sqlx::{FromRow, postgres::types::Oid};

use super::{
    reader::{Reader, class},
    schemas::letter,
};
use crate::{
    catalog::{FactId, Kind, Payload, Place},
    error::Error,
};

#[derive(FromRow)]
struct PublicationRow {
    oid: Oid,
    name: String,
    owner: Oid,
    all_tables: bool,
    tables: Option<String>,
    schemas: Option<String>,
    publish: String,
    via_root: bool,
}

pub async fn publications(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<PublicationRow> = sqlx::query_as(
        r"SELECT p.oid, p.pubname::text AS name, p.pubowner AS owner, p.puballtables AS all_tables,
            (SELECT string_agg(quote_ident(n.nspname) || '.' || quote_ident(c.relname)
                || coalesce(' (' || (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attname)
                     FROM pg_catalog.pg_attribute a WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs)) || ')', '')
                || coalesce(' WHERE (' || pg_catalog.pg_get_expr(r.prqual, r.prrelid) || ')', ''), ', ' ORDER BY n.nspname, c.relname)
              FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
                JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE r.prpubid = p.oid) AS tables,
            (SELECT string_agg(quote_ident(n.nspname), ', ' ORDER BY n.nspname)
              FROM pg_catalog.pg_publication_namespace s JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid
              WHERE s.pnpubid = p.oid) AS schemas,
            concat_ws(', ', CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END,
              CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END) AS publish,
            p.pubviaroot AS via_root
          FROM pg_catalog.pg_publication p",
    )
    .fetch_all(&mut *reader.conn)
    .await
    .map_err(Error::while_doing("read the publications"))?;
    for row in rows {
        if reader.is_member(class::PUBLICATION, row.oid) {
            continue;
        }
        let mut objects = Vec::new();
        if row.all_tables {
            objects.push("ALL TABLES".to_owned());
        }
        objects.extend(row.tables.map(|tables| format!("TABLE {tables}")));
        objects.extend(
            row.schemas
                .map(|schemas| format!("TABLES IN SCHEMA {schemas}")),
        );
        let mut definition = String::new();
        if !objects.is_empty() {
            definition = format!("FOR {} ", objects.join(", "));
        }
        definition.push_str("WITH (publish = '");
        definition.push_str(&row.publish);
        definition.push('\'');
        if row.via_root {
            definition.push_str(", publish_via_partition_root = true");
        }
        definition.push(')');
        let id = FactId::object(Kind::Publication, "", &row.name);
        reader.object(
            class::PUBLICATION,
            row.oid,
            id.clone(),
            Payload::Publication { definition },
        );
        reader.owner(&id, row.owner);
    }
    for (class, sql) in [
        (
            class::PUBLICATION_TABLE,
            "SELECT oid, prpubid FROM pg_catalog.pg_publication_rel",
        ),
        (
            class::PUBLICATION_SCHEMA,
            "SELECT oid, pnpubid FROM pg_catalog.pg_publication_namespace",
        ),
    ] {
        let rows: Vec<(Oid, Oid)> = sqlx::query_as(sql)
            .fetch_all(&mut *reader.conn)
            .await
            .map_err(Error::while_doing("read what publications publish"))?;
        for (member, publication) in rows {
            if let Some(id) = reader
                .objects
                .get(&(class::PUBLICATION, publication.0))
                .cloned()
            {
                reader.objects.insert((class, member.0), id);
            }
        }
    }
    Ok(())
}

#[derive(FromRow)]
struct EventTriggerRow {
    oid: Oid,
    name: String,
    owner: Oid,
    event: String,
    tags: Option<Vec<String>>,
    function: String,
    function_schema: String,
    enabled: String,
}

/// Event triggers. Those that call the product's functions are the product's: elsewhere, a copy of them would do to the server
/// what is meant for its own database.
pub async fn event_triggers(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<EventTriggerRow> = sqlx::query_as(
        r"SELECT e.oid, e.evtname::text AS name, e.evtowner AS owner, e.evtevent::text AS event, e.evttags AS tags,
            quote_ident(n.nspname) || '.' || quote_ident(p.proname) AS function, n.nspname::text AS function_schema,
            e.evtenabled::text AS enabled
          FROM pg_catalog.pg_event_trigger e JOIN pg_catalog.pg_proc p ON p.oid = e.evtfoid
            JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace",
    )
    .fetch_all(&mut *reader.conn)
    .await
    .map_err(Error::while_doing("read the event triggers"))?;
    for row in rows {
        if reader.is_member(class::EVENT_TRIGGER, row.oid)
            || reader.catalog.managed.contains(&row.function_schema)
        {
            continue;
        }
        let mut tags = row.tags.unwrap_or_default();
        tags.sort();
        let id = FactId::object(Kind::EventTrigger, "", &row.name);
        reader.object(
            class::EVENT_TRIGGER,
            row.oid,
            id.clone(),
            Payload::EventTrigger {
                event: row.event,
                tags,
                function: row.function,
                enabled: letter(&row.enabled),
            },
        );
        reader.owner(&id, row.owner);
    }
    Ok(())
}

#[derive(FromRow)]
struct CommentRow {
    class: Oid,
    oid: Oid,
    number: i32,
    text: String,
}

pub async fn comments(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<CommentRow> = sqlx::query_as(
        r"SELECT classoid AS class, objoid AS oid, objsubid AS number, description AS text FROM pg_catalog.pg_description
          WHERE objoid >= 16384 OR classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass",
    )
    .fetch_all(&mut *reader.conn)
    .await
    .map_err(Error::while_doing("read the comments"))?;
    for row in rows {
        let Some(id) = commented(reader, &row) else {
            continue;
        };
        reader.about(
            FactId::about(Kind::Comment, &id),
            Payload::Comment { text: row.text },
        );
    }
    Ok(())
}

/// What a comment is about. None for members of extensions, row types of tables and indexes of constraints.
fn commented(reader: &Reader<'_>, row: &CommentRow) -> Option<FactId> {
    if reader.members.contains(&(row.class.0, row.oid.0)) {
        return None;
    }
    let id = reader.objects.get(&(row.class.0, row.oid.0))?.clone();
    let number = i16::try_from(row.number).ok()?;
    if number != 0 {
        let name = reader.column_name(row.oid.0, number)?;
        return Some(FactId::part(Kind::Column, &id.schema, &id.object, name));
    }
    let fact = reader.catalog.facts.get(&id)?;
    (fact.place
        == Place {
            oid: row.oid.0,
            number: 0,
        })
    .then_some(id)
}
