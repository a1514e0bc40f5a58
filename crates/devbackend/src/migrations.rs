//! The project's own migrations (project-backend 5.7): recorded statement by statement, since
//! that is what a merge replays.

use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{
    auth::Admin,
    database,
    error::{ApiError, ApiResult},
    routes::Body,
    sql_text::{self, Statement},
    state::AppState,
};

const STATEMENT_TIMEOUT: &str = "30s";
const LONGEST_VERSION: usize = 64;

/// `GET /api/database/migrations`, newest first.
pub(crate) async fn list(_: Admin, State(state): State<AppState>) -> ApiResult<Json<Value>> {
    let migrations: Value = sqlx::query_scalar(
        "SELECT COALESCE(jsonb_agg(jsonb_build_object(
            'version', version, 'name', name, 'statements', to_jsonb(statements),
            'createdAt', created_at) ORDER BY version::numeric DESC, version DESC), '[]')
         FROM system.custom_migrations",
    )
    .fetch_one(&state.pool)
    .await?;
    Ok(Json(json!({ "migrations": migrations })))
}

#[derive(Deserialize)]
pub(crate) struct MigrationRequest {
    version: Option<String>,
    name: Option<String>,
    sql: Option<String>,
}

/// `POST /api/database/migrations`
pub(crate) async fn apply(
    _: Admin,
    State(state): State<AppState>,
    Body(request): Body<MigrationRequest>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let (Some(version), Some(name), Some(sql)) = (request.version, request.name, request.sql)
    else {
        return Err(ApiError::invalid_input(
            "version, name and sql are required",
        ));
    };
    check_names(&version, &name)?;
    let statements = check_statements(&sql)?;
    let mut session = database::session(&state.connect, None, STATEMENT_TIMEOUT).await?;
    let record = apply_in_transaction(&mut session, &version, &name, &statements).await;
    let _ = session.close().await;
    Ok((StatusCode::CREATED, Json(record?)))
}

fn check_names(version: &str, name: &str) -> ApiResult<()> {
    let digits = version.bytes().all(|byte| byte.is_ascii_digit());
    if version.is_empty() || version.len() > LONGEST_VERSION || !digits {
        return Err(ApiError::invalid_input("version: 1 to 64 digits"));
    }
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(ApiError::invalid_input(
            "name: lowercase letters, digits and hyphens",
        ));
    }
    Ok(())
}

fn check_statements(sql: &str) -> ApiResult<Vec<Statement>> {
    let statements =
        sql_text::split(sql).map_err(|error| ApiError::forbidden(error.to_string()))?;
    if statements.is_empty() {
        return Err(ApiError::invalid_input("sql: no statement"));
    }
    match statements.iter().find_map(Statement::refusal) {
        Some(reason) => Err(ApiError::forbidden(reason)),
        None => Ok(statements),
    }
}

async fn apply_in_transaction(
    session: &mut PgConnection,
    version: &str,
    name: &str,
    statements: &[Statement],
) -> ApiResult<Value> {
    let mut transaction = session.begin().await?;
    sqlx::raw_sql("SELECT pg_advisory_xact_lock(hashtext('system.custom_migrations'))")
        .execute(&mut *transaction)
        .await?;
    // Compared as numbers; only greater than all stored ones.
    let is_newest: bool = sqlx::query_scalar(
        "SELECT COALESCE($1::numeric > max(version::numeric), true) FROM system.custom_migrations",
    )
    .bind(version)
    .fetch_one(&mut *transaction)
    .await?;
    if !is_newest {
        return Err(ApiError::conflict(
            "DATABASE_MIGRATION_ALREADY_EXISTS",
            format!("Version {version} is not greater than the newest migration"),
        ));
    }
    sqlx::raw_sql("SET LOCAL search_path = public; SET LOCAL ROLE project_admin")
        .execute(&mut *transaction)
        .await?;
    for statement in statements {
        sqlx::raw_sql(AssertSqlSafe(statement.text.as_str()))
            .execute(&mut *transaction)
            .await
            .map_err(|error| ApiError::from_users_sql(&error))?;
    }
    sqlx::raw_sql("RESET ROLE")
        .execute(&mut *transaction)
        .await?;
    let texts: Vec<&str> = statements.iter().map(|s| s.text.as_str()).collect();
    let record: Value = sqlx::query_scalar(
        "INSERT INTO system.custom_migrations (version, name, statements) VALUES ($1, $2, $3)
         RETURNING jsonb_build_object('version', version, 'name', name,
            'statements', to_jsonb(statements), 'createdAt', created_at,
            'message', 'Migration executed successfully')",
    )
    .bind(version)
    .bind(name)
    .bind(&texts)
    .fetch_one(&mut *transaction)
    .await?;
    sqlx::raw_sql("NOTIFY pgrst, 'reload schema'")
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(record)
}
