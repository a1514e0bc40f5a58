//! What users can make and no fact tells of: it is left alone, and named, so that nobody takes it for merged.

use super::reader::Reader;
use crate::error::Error;

pub async fn unmodelled(reader: &mut Reader<'_>) -> Result<(), Error> {
    let names: Vec<(String,)> = reader
        .rows(
            "objects that are not merged",
            r"SELECT o.name FROM (
                SELECT 'pg_catalog.pg_cast'::pg_catalog.regclass::oid AS class, oid,
                    'cast (' || castsource::pg_catalog.regtype::text || ' AS ' || casttarget::pg_catalog.regtype::text || ')' AS name
                  FROM pg_catalog.pg_cast
                UNION ALL SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass, oid,
                    'operator ' || oid::pg_catalog.regoperator::text FROM pg_catalog.pg_operator WHERE oprnamespace = ANY ($1)
                UNION ALL SELECT 'pg_catalog.pg_opclass'::pg_catalog.regclass, o.oid, 'operator class ' || n.nspname || '.' || o.opcname
                  FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_namespace n ON n.oid = o.opcnamespace WHERE n.oid = ANY ($1)
                UNION ALL SELECT 'pg_catalog.pg_opfamily'::pg_catalog.regclass, o.oid, 'operator family ' || n.nspname || '.' || o.opfname
                  FROM pg_catalog.pg_opfamily o JOIN pg_catalog.pg_namespace n ON n.oid = o.opfnamespace WHERE n.oid = ANY ($1)
                UNION ALL SELECT 'pg_catalog.pg_ts_config'::pg_catalog.regclass, o.oid, 'text search configuration ' || n.nspname || '.' || o.cfgname
                  FROM pg_catalog.pg_ts_config o JOIN pg_catalog.pg_namespace n ON n.oid = o.cfgnamespace WHERE n.oid = ANY ($1)
                UNION ALL SELECT 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, o.oid, 'text search dictionary ' || n.nspname || '.' || o.dictname
                  FROM pg_catalog.pg_ts_dict o JOIN pg_catalog.pg_namespace n ON n.oid = o.dictnamespace WHERE n.oid = ANY ($1)
                UNION ALL SELECT 'pg_catalog.pg_ts_parser'::pg_catalog.regclass, o.oid, 'text search parser ' || n.nspname || '.' || o.prsname
                  FROM pg_catalog.pg_ts_parser o JOIN pg_catalog.pg_namespace n ON n.oid = o.prsnamespace WHERE n.oid = ANY ($1)
                UNION ALL SELECT 'pg_catalog.pg_ts_template'::pg_catalog.regclass, o.oid, 'text search template ' || n.nspname || '.' || o.tmplname
                  FROM pg_catalog.pg_ts_template o JOIN pg_catalog.pg_namespace n ON n.oid = o.tmplnamespace WHERE n.oid = ANY ($1)
                UNION ALL SELECT 'pg_catalog.pg_conversion'::pg_catalog.regclass, o.oid, 'conversion ' || n.nspname || '.' || o.conname
                  FROM pg_catalog.pg_conversion o JOIN pg_catalog.pg_namespace n ON n.oid = o.connamespace WHERE n.oid = ANY ($1)
                UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, 'base type ' || n.nspname || '.' || t.typname
                  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
                  WHERE t.typtype = 'b' AND n.oid = ANY ($1)
                    AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray = t.oid)
                UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid,
                    CASE c.relkind WHEN 'f' THEN 'foreign table ' ELSE 'typed table ' END || n.nspname || '.' || c.relname
                  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                  WHERE (c.relkind = 'f' OR c.reloftype <> 0) AND c.relpersistence <> 't' AND n.oid = ANY ($1)
                UNION ALL SELECT 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass, oid, 'foreign data wrapper ' || fdwname
                  FROM pg_catalog.pg_foreign_data_wrapper
                UNION ALL SELECT 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, oid, 'foreign server ' || srvname
                  FROM pg_catalog.pg_foreign_server
                UNION ALL SELECT 'pg_catalog.pg_user_mappings'::pg_catalog.regclass, umid, 'user mapping for ' || usename || ' on ' || srvname
                  FROM pg_catalog.pg_user_mappings
                UNION ALL SELECT 'pg_catalog.pg_language'::pg_catalog.regclass, oid, 'language ' || lanname FROM pg_catalog.pg_language
                UNION ALL SELECT 'pg_catalog.pg_am'::pg_catalog.regclass, oid, 'access method ' || amname FROM pg_catalog.pg_am
                UNION ALL SELECT 'pg_catalog.pg_transform'::pg_catalog.regclass, t.oid,
                    'transform for ' || t.trftype::pg_catalog.regtype::text || ' language ' || l.lanname
                  FROM pg_catalog.pg_transform t JOIN pg_catalog.pg_language l ON l.oid = t.trflang
                UNION ALL SELECT 'pg_catalog.pg_subscription'::pg_catalog.regclass, oid, 'subscription ' || subname
                  FROM pg_catalog.pg_subscription WHERE subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
              ) o
              WHERE o.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype IN ('e', 'i'))",
        )
        .await?;
    reader.catalog.unmodelled = names.into_iter().map(|(name,)| name).collect();
    Ok(())
}
