//! `POST /api/database/advance/export`: the tables of `public` as SQL. A convenience for small
//! databases; the control plane's own copies are made with `pg_dump`.

use std::fmt::Write as _;

use axum::{Json, extract::State};
use chrono::{SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::{
    auth::Admin,
    error::{ApiError, ApiResult},
    routes::Body,
    state::AppState,
};

#[derive(Deserialize)]
pub(crate) struct ExportRequest {
    format: Option<String>,
}

#[derive(sqlx::FromRow)]
struct TableRow {
    name: String,
    columns: String,
    column_names: String,
    definition: String,
    constraints: Option<String>,
}

/// Tables with their columns; then, so that references resolve, the data before the constraints.
const TABLES: &str = "
    SELECT c.oid::regclass::text AS name,
        string_agg(format('quote_nullable(%I::text)', a.attname), ' || '', '' || ' ORDER BY a.attnum)
            FILTER (WHERE a.attgenerated = '') AS columns,
        string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
            FILTER (WHERE a.attgenerated = '') AS column_names,
        string_agg(format(E'\\n    %I %s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
            CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
            CASE WHEN a.attgenerated <> '' THEN
                format(' GENERATED ALWAYS AS (%s) STORED', pg_get_expr(d.adbin, d.adrelid))
            ELSE COALESCE(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '') END), ','
            ORDER BY a.attnum) AS definition,
        (SELECT string_agg(format('ALTER TABLE %s ADD CONSTRAINT %I %s;', c.oid::regclass,
                k.conname, pg_get_constraintdef(k.oid)), E'\\n' ORDER BY k.contype = 'f', k.conname)
            FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'c', 'f'))
            AS constraints
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
    GROUP BY c.oid, c.relname ORDER BY c.relname";

pub(crate) async fn export(
    _: Admin,
    State(state): State<AppState>,
    Body(request): Body<ExportRequest>,
) -> ApiResult<Json<Value>> {
    if request.format.as_deref().unwrap_or("sql") != "sql" {
        return Err(ApiError::invalid_input(
            "format: the stand-in exports sql only",
        ));
    }
    let mut snapshot = state.pool.begin().await?;
    sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .execute(&mut *snapshot)
        .await?;
    let tables: Vec<TableRow> = sqlx::query_as(TABLES).fetch_all(&mut *snapshot).await?;
    let mut data = String::new();
    for table in &tables {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            data,
            "CREATE TABLE {} ({}\n);",
            table.name, table.definition
        );
    }
    for table in &tables {
        // Made of names that Postgres itself quoted.
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT {} FROM {}",
            table.columns, table.name
        )))
        .fetch_all(&mut *snapshot)
        .await?;
        for row in rows {
            let _ = writeln!(
                data,
                "INSERT INTO {} ({}) VALUES ({row});",
                table.name, table.column_names
            );
        }
    }
    for constraints in tables.iter().filter_map(|table| table.constraints.as_ref()) {
        data.push_str(constraints);
        data.push('\n');
    }
    Ok(Json(json!({
        "format": "sql",
        "data": data,
        "timestamp": Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
    })))
}
