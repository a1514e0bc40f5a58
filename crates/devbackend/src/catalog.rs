//! What is in the user's schema, as lists (project-backend 7).

use axum::{Json, extract::State};
use serde_json::Value;

use crate::{auth::Admin, error::ApiResult, state::AppState};

/// `GET /api/database/tables`
pub(crate) async fn tables(_: Admin, State(state): State<AppState>) -> ApiResult<Json<Value>> {
    one(
        &state,
        "SELECT COALESCE(jsonb_agg(c.relname ORDER BY c.relname), '[]')
         FROM pg_class c
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
           AND NOT EXISTS (SELECT FROM pg_depend d
               WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')",
    )
    .await
}

/// `GET /api/database/functions`
pub(crate) async fn functions(_: Admin, State(state): State<AppState>) -> ApiResult<Json<Value>> {
    one(
        &state,
        "SELECT jsonb_build_object('functions', COALESCE(jsonb_agg(jsonb_build_object(
            'functionName', p.proname, 'functionDef', pg_get_functiondef(p.oid),
            'kind', p.prokind) ORDER BY p.proname, p.oid), '[]'))
         FROM pg_proc p
         WHERE p.pronamespace = 'public'::regnamespace AND p.prokind IN ('f', 'p', 'w')
           AND NOT EXISTS (SELECT FROM pg_depend d
               WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')",
    )
    .await
}

/// `GET /api/database/indexes`
pub(crate) async fn indexes(_: Admin, State(state): State<AppState>) -> ApiResult<Json<Value>> {
    one(
        &state,
        "SELECT jsonb_build_object('indexes', COALESCE(jsonb_agg(jsonb_build_object(
            'tableName', t.relname, 'indexName', i.relname,
            'indexDef', pg_get_indexdef(x.indexrelid),
            'isUnique', x.indisunique, 'isPrimary', x.indisprimary)
            ORDER BY t.relname, i.relname), '[]'))
         FROM pg_index x JOIN pg_class t ON t.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
         WHERE t.relnamespace = 'public'::regnamespace",
    )
    .await
}

/// `GET /api/database/policies`
pub(crate) async fn policies(_: Admin, State(state): State<AppState>) -> ApiResult<Json<Value>> {
    one(
        &state,
        "SELECT jsonb_build_object('policies', COALESCE(jsonb_agg(jsonb_build_object(
            'tableName', tablename, 'policyName', policyname, 'cmd', cmd,
            'roles', to_jsonb(roles), 'qual', qual, 'withCheck', with_check)
            ORDER BY tablename, policyname), '[]'))
         FROM pg_policies WHERE schemaname = 'public'",
    )
    .await
}

/// `GET /api/database/triggers`
pub(crate) async fn triggers(_: Admin, State(state): State<AppState>) -> ApiResult<Json<Value>> {
    one(
        &state,
        "SELECT jsonb_build_object('triggers', COALESCE(jsonb_agg(jsonb_build_object(
            'tableName', c.relname, 'triggerName', t.tgname,
            'triggerDef', pg_get_triggerdef(t.oid)) ORDER BY c.relname, t.tgname), '[]'))
         FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
         WHERE c.relnamespace = 'public'::regnamespace AND NOT t.tgisinternal",
    )
    .await
}

async fn one(state: &AppState, sql: &'static str) -> ApiResult<Json<Value>> {
    Ok(Json(sqlx::query_scalar(sql).fetch_one(&state.pool).await?))
}
