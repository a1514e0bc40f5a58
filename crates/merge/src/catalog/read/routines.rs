//! Functions, procedures and aggregates.

use sqlx::{FromRow, postgres::types::Oid};

use super::reader::{Reader, class};
use crate::{
    catalog::{FactId, Kind, Payload},
    error::Error,
};

#[derive(FromRow)]
struct RoutineRow {
    oid: Oid,
    namespace: Oid,
    name: String,
    owner: Oid,
    kind: String,
    inputs: String,
    arguments: String,
    definition: Option<String>,
    result: Option<String>,
    language: String,
    atomic: bool,
    aggregate: Option<String>,
}

/// All but the constructors of range types, which come with their types (deptype `i`).
///
/// The options of an aggregate are printed as `pg_dump` does; functions and operators come with their schemas, since the
/// search path is empty.
pub async fn routines(reader: &mut Reader<'_>) -> Result<(), Error> {
    let rows: Vec<RoutineRow> = reader
        .rows(
            "functions",
            r"SELECT p.oid, p.pronamespace AS namespace, p.proname::text AS name, p.proowner AS owner, p.prokind::text AS kind,
                coalesce((SELECT string_agg(pg_catalog.format_type(i.type, NULL), ', ' ORDER BY i.number)
                  FROM unnest(p.proargtypes) WITH ORDINALITY AS i(type, number)), '') AS inputs,
                pg_catalog.pg_get_function_arguments(p.oid) AS arguments,
                CASE WHEN p.prokind <> 'a' THEN pg_catalog.pg_get_functiondef(p.oid) END AS definition,
                pg_catalog.pg_get_function_result(p.oid) AS result, l.lanname::text AS language,
                p.prosqlbody IS NOT NULL AS atomic,
                CASE WHEN p.prokind = 'a' THEN concat_ws(', ',
                  'SFUNC = ' || a.aggtransfn::text,
                  'STYPE = ' || pg_catalog.format_type(a.aggtranstype, NULL),
                  'SSPACE = ' || nullif(a.aggtransspace, 0),
                  'FINALFUNC = ' || nullif(a.aggfinalfn::text, '-'),
                  CASE WHEN a.aggfinalextra THEN 'FINALFUNC_EXTRA' END,
                  CASE WHEN a.aggfinalfn <> 0 AND a.aggfinalmodify <> CASE a.aggkind WHEN 'n' THEN 'r' ELSE 'w' END::pg_catalog.char
                    THEN 'FINALFUNC_MODIFY = ' || CASE a.aggfinalmodify
                      WHEN 'r' THEN 'READ_ONLY' WHEN 's' THEN 'SHAREABLE' ELSE 'READ_WRITE' END END,
                  'COMBINEFUNC = ' || nullif(a.aggcombinefn::text, '-'),
                  'SERIALFUNC = ' || nullif(a.aggserialfn::text, '-'),
                  'DESERIALFUNC = ' || nullif(a.aggdeserialfn::text, '-'),
                  'INITCOND = ' || quote_literal(a.agginitval),
                  'MSFUNC = ' || nullif(a.aggmtransfn::text, '-'),
                  'MINVFUNC = ' || nullif(a.aggminvtransfn::text, '-'),
                  'MSTYPE = ' || CASE WHEN a.aggmtranstype <> 0 THEN pg_catalog.format_type(a.aggmtranstype, NULL) END,
                  'MSSPACE = ' || nullif(a.aggmtransspace, 0),
                  'MFINALFUNC = ' || nullif(a.aggmfinalfn::text, '-'),
                  CASE WHEN a.aggmfinalextra THEN 'MFINALFUNC_EXTRA' END,
                  CASE WHEN a.aggmfinalfn <> 0 AND a.aggmfinalmodify <> CASE a.aggkind WHEN 'n' THEN 'r' ELSE 'w' END::pg_catalog.char
                    THEN 'MFINALFUNC_MODIFY = ' || CASE a.aggmfinalmodify
                      WHEN 'r' THEN 'READ_ONLY' WHEN 's' THEN 'SHAREABLE' ELSE 'READ_WRITE' END END,
                  'MINITCOND = ' || quote_literal(a.aggminitval),
                  'SORTOP = OPERATOR(' || CASE WHEN a.aggsortop <> 0 THEN
                    (SELECT quote_ident(n.nspname) || '.' || o.oprname FROM pg_catalog.pg_operator o
                     JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace WHERE o.oid = a.aggsortop) END || ')',
                  CASE p.proparallel WHEN 's' THEN 'PARALLEL = SAFE' WHEN 'r' THEN 'PARALLEL = RESTRICTED' END,
                  CASE a.aggkind WHEN 'h' THEN 'HYPOTHETICAL' END) END AS aggregate
              FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
                LEFT JOIN pg_catalog.pg_aggregate a ON a.aggfnoid = p.oid
              WHERE p.pronamespace = ANY ($1) AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype IN ('e', 'i'))",
        )
        .await?;
    for row in rows {
        let kind = match row.kind.as_str() {
            "a" => Kind::Aggregate,
            "p" => Kind::Procedure,
            _ => Kind::Function,
        };
        let name = format!("{}({})", row.name, row.inputs);
        let id = FactId::object(kind, &reader.schema(row.namespace), &name);
        let payload = if let Some(options) = row.aggregate {
            let arguments = if row.arguments.is_empty() {
                "*"
            } else {
                &row.arguments
            };
            Payload::Aggregate {
                definition: format!("({arguments}) ({options})"),
            }
        } else {
            Payload::Function {
                definition: row.definition.unwrap_or_default().trim_end().to_owned(),
                result: row.result,
                arguments: row.arguments,
                language: row.language,
                atomic: row.atomic,
            }
        };
        reader.object(class::PROC, row.oid, id.clone(), payload);
        reader.owner(&id, row.owner);
    }
    Ok(())
}
