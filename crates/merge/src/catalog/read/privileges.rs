//! Who may do what: grants on objects and columns, and default privileges.
//!
//! An access control list that is null is the default of its kind: nothing but the owner's rights, and for functions and
//! types a right of everyone.

use std::collections::{BTreeMap, HashMap};

use sqlx::{FromRow, postgres::types::Oid};

use super::reader::{Reader, class};
use crate::{
    catalog::{Fact, FactId, Kind, Needs, Payload, Place},
    error::Error,
};

/// One privilege of one role.
#[derive(FromRow)]
struct PrivilegeRow {
    class: Oid,
    oid: Oid,
    number: i16,
    owner: Oid,
    /// 0 for everyone; the owner with privilege `''` where an access control list names the owner nowhere.
    grantee: Oid,
    privilege: String,
    grantable: bool,
}

/// By object, then by grantee.
type Held = HashMap<(u32, u32, i16), Holders>;

struct Holders {
    owner: Oid,
    by_grantee: BTreeMap<u32, BTreeMap<String, bool>>,
}

pub async fn grants(reader: &mut Reader<'_>) -> Result<(), Error> {
    owner_rights(reader).await?;
    default_rights_of_everyone(reader);
    let rows: Vec<PrivilegeRow> = reader
        .rows(
            "grants",
            r"SELECT o.class, o.oid, o.number, o.owner, a.grantee, a.privilege_type AS privilege, a.is_grantable AS grantable
              FROM (
                SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid AS class, oid, 0::int2 AS number, relowner AS owner, relacl AS acl
                  FROM pg_catalog.pg_class WHERE relnamespace = ANY ($1) AND relacl IS NOT NULL
                    AND relkind IN ('r', 'p', 'v', 'm', 'S') AND relpersistence <> 't'
                UNION ALL
                SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, a.attrelid, a.attnum, c.relowner, a.attacl
                  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
                  WHERE c.relnamespace = ANY ($1) AND a.attacl IS NOT NULL AND NOT a.attisdropped
                    AND c.relkind IN ('r', 'p', 'v', 'm') AND c.relpersistence <> 't'
                UNION ALL
                SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, oid, 0::int2, proowner, proacl
                  FROM pg_catalog.pg_proc WHERE pronamespace = ANY ($1) AND proacl IS NOT NULL
                UNION ALL
                SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, oid, 0::int2, typowner, typacl
                  FROM pg_catalog.pg_type WHERE typnamespace = ANY ($1) AND typacl IS NOT NULL
                UNION ALL
                SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, oid, 0::int2, nspowner, nspacl
                  FROM pg_catalog.pg_namespace WHERE oid = ANY ($1) AND nspacl IS NOT NULL
              ) o CROSS JOIN LATERAL (
                SELECT grantee, privilege_type, is_grantable FROM pg_catalog.aclexplode(o.acl)
                UNION ALL SELECT o.owner, '', false
              ) a",
        )
        .await?;
    let mut held = Held::new();
    for row in rows {
        let rights = held
            .entry((row.class.0, row.oid.0, row.number))
            .or_insert_with(|| Holders {
                owner: row.owner,
                by_grantee: BTreeMap::new(),
            })
            .by_grantee
            .entry(row.grantee.0)
            .or_default();
        if !row.privilege.is_empty() {
            *rights.entry(row.privilege).or_default() |= row.grantable;
        }
    }
    for ((class, oid, number), holders) in held {
        let Some((id, kind)) = subject(reader, class, oid, number) else {
            continue;
        };
        forget_default_right(reader, &id);
        for (grantee, privileges) in holders.by_grantee {
            if grantee == holders.owner.0 {
                let all = reader.owner_rights.get(&kind);
                let has_all =
                    number != 0 || all.is_some_and(|all| privileges.keys().eq(all.iter()));
                if has_all {
                    continue;
                }
            }
            let role = reader.grantee(Oid(grantee));
            grant(reader, &id, role, privileges);
        }
    }
    grants_of_identities(reader);
    Ok(())
}

fn grant(
    reader: &mut Reader<'_>,
    id: &FactId,
    grantee: String,
    privileges: BTreeMap<String, bool>,
) {
    let id = FactId {
        grantee,
        ..FactId::about(Kind::Grant, id)
    };
    reader.about(id, Payload::Grant { privileges });
}

/// What an owner has from the start: it differs between releases (`MAINTAIN` came with 17).
async fn owner_rights(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        r"SELECT k.kind, a.privilege_type FROM unnest('{r,s,f,T,n}'::text[]) AS k(kind),
            pg_catalog.aclexplode(pg_catalog.acldefault(k.kind::pg_catalog.char, 10)) a WHERE a.grantee = 10",
    )
    .fetch_all(&mut *reader.conn)
    .await
    .map_err(Error::while_doing("read the rights of owners"))?;
    for (kind, privilege) in rows {
        let kind = kind.chars().next().unwrap_or_default();
        reader
            .owner_rights
            .entry(kind)
            .or_default()
            .insert(privilege);
    }
    Ok(())
}

/// Functions may be executed, and types used, by everyone, as long as no list says otherwise.
fn default_rights_of_everyone(reader: &mut Reader<'_>) {
    let subjects: Vec<(FactId, &str)> = reader
        .catalog
        .facts
        .keys()
        .filter_map(|id| {
            let privilege = default_right_of_everyone(id.kind)?;
            Some((id.clone(), privilege))
        })
        .collect();
    for (id, privilege) in subjects {
        let privileges = BTreeMap::from([(privilege.to_owned(), false)]);
        grant(reader, &id, "PUBLIC".to_owned(), privileges);
    }
}

const fn default_right_of_everyone(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Function | Kind::Procedure | Kind::Aggregate => Some("EXECUTE"),
        Kind::Enum | Kind::Domain | Kind::Composite | Kind::Range => Some("USAGE"),
        _ => None,
    }
}

fn forget_default_right(reader: &mut Reader<'_>, id: &FactId) {
    let everyone = FactId {
        grantee: "PUBLIC".to_owned(),
        ..FactId::about(Kind::Grant, id)
    };
    reader.catalog.facts.remove(&everyone);
}

/// What a list belongs to, with `acldefault`'s kind. Lists of members of extensions are the extension's.
fn subject(reader: &Reader<'_>, class: u32, oid: u32, number: i16) -> Option<(FactId, char)> {
    if reader.members.contains(&(class, oid)) {
        return None;
    }
    let id = reader.objects.get(&(class, oid))?.clone();
    if number != 0 {
        let name = reader.column_name(oid, number)?;
        return Some((
            FactId::part(Kind::Column, &id.schema, &id.object, name),
            'r',
        ));
    }
    let kind = match id.kind {
        Kind::Table | Kind::View | Kind::MaterializedView => 'r',
        Kind::Sequence => 's',
        // The sequence of an identity column has grants though it is no fact.
        Kind::Column => {
            let (schema, name) = reader.identity_sequences.get(&oid)?;
            return Some((FactId::object(Kind::Sequence, schema, name), 's'));
        }
        Kind::Function | Kind::Procedure | Kind::Aggregate => 'f',
        Kind::Enum | Kind::Domain | Kind::Composite | Kind::Range => 'T',
        Kind::Schema => 'n',
        _ => return None,
    };
    // The row type of a table has a list of its own, which nothing can set.
    (class != class::TYPE || kind == 'T').then_some((id, kind))
}

/// Grants on the sequence of an identity column need the column: the sequence comes with it.
fn grants_of_identities(reader: &mut Reader<'_>) {
    let sequences: Vec<(FactId, FactId)> = reader
        .identity_sequences
        .iter()
        .filter_map(|(oid, (schema, name))| {
            let column = reader.objects.get(&(class::RELATION, *oid))?.clone();
            Some((FactId::object(Kind::Sequence, schema, name), column))
        })
        .collect();
    for (sequence, column) in sequences {
        let first = FactId::about(Kind::Grant, &sequence);
        let grants: Vec<FactId> = reader
            .catalog
            .facts
            .range(first..)
            .take_while(|(id, _)| {
                id.kind == Kind::Grant
                    && id.schema == sequence.schema
                    && id.object == sequence.object
            })
            .filter(|(id, _)| id.of == Some(Kind::Sequence))
            .map(|(id, _)| id.clone())
            .collect();
        for id in grants {
            if let Some(fact) = reader.catalog.facts.get_mut(&id) {
                fact.needs = Needs::from([column.clone()]);
            }
        }
    }
}

#[derive(FromRow)]
struct DefaultRow {
    role: Oid,
    /// 0 for the whole database.
    namespace: Oid,
    kind: String,
    grantee: Oid,
    /// Of the list now.
    privileges: Vec<String>,
    grantable: Vec<bool>,
    /// Of the built-in default, for a global entry.
    usual: Vec<String>,
}

/// `ALTER DEFAULT PRIVILEGES`. An entry for a schema adds to the rest, a global one replaces the built-in default, so there a fact
/// is what differs from it.
pub async fn defaults(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<DefaultRow> = reader
        .rows(
            "default privileges",
            r"WITH entries AS (
                SELECT oid, defaclrole AS role, defaclnamespace AS namespace, defaclobjtype AS kind, defaclacl AS acl,
                  CASE WHEN defaclnamespace = 0
                    THEN pg_catalog.acldefault(CASE defaclobjtype WHEN 'S' THEN 's' ELSE defaclobjtype END, defaclrole)
                    END AS usual
                FROM pg_catalog.pg_default_acl WHERE defaclnamespace = 0 OR defaclnamespace = ANY ($1)
              ), held AS (
                SELECT e.oid, a.grantee, a.privilege_type AS privilege, a.is_grantable AS grantable, false AS usual
                  FROM entries e CROSS JOIN LATERAL pg_catalog.aclexplode(e.acl) a
                UNION ALL
                SELECT e.oid, a.grantee, a.privilege_type, a.is_grantable, true
                  FROM entries e CROSS JOIN LATERAL pg_catalog.aclexplode(e.usual) a
              )
              SELECT e.role, e.namespace, e.kind::text AS kind, h.grantee,
                coalesce(array_agg(h.privilege ORDER BY h.privilege) FILTER (WHERE NOT h.usual), '{}') AS privileges,
                coalesce(array_agg(h.grantable ORDER BY h.privilege) FILTER (WHERE NOT h.usual), '{}') AS grantable,
                coalesce(array_agg(h.privilege ORDER BY h.privilege) FILTER (WHERE h.usual), '{}') AS usual
              FROM entries e JOIN held h ON h.oid = e.oid GROUP BY e.oid, e.role, e.namespace, e.kind, h.grantee",
        )
        .await?;
    for row in rows {
        if row.privileges == row.usual && !row.grantable.contains(&true) {
            continue;
        }
        let kind = match row.kind.as_str() {
            "r" => "tables",
            "S" => "sequences",
            "f" => "functions",
            "T" => "types",
            _ => "schemas",
        };
        let schema = reader.schema(row.namespace);
        let object = format!("{}:{kind}", reader.role(row.role));
        let id = FactId {
            grantee: reader.grantee(row.grantee),
            ..FactId::object(Kind::DefaultPrivilege, &schema, &object)
        };
        let mut privileges: BTreeMap<String, bool> = BTreeMap::new();
        for (privilege, grantable) in row.privileges.into_iter().zip(row.grantable) {
            *privileges.entry(privilege).or_default() |= grantable;
        }
        let needs = if schema.is_empty() {
            Needs::default()
        } else {
            Needs::from([FactId::object(Kind::Schema, "", &schema)])
        };
        let fact = Fact {
            payload: Payload::DefaultPrivilege { privileges },
            needs,
            place: Place::default(),
        };
        reader.catalog.facts.insert(id, fact);
    }
    Ok(())
}
