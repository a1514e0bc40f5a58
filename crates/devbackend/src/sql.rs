//! Raw SQL (project-backend 7): restricted as `project_admin`, unrestricted as the superuser.
//!
//! Runs over the simple protocol, because that gives every type as text, on a connection of its
//! own (`database::session`). Why the role is a setting of the session and the refusals are a
//! check of words, not a border: see `sql_text`.

use std::time::Duration;

use axum::{Json, extract::State};
use futures::TryStreamExt;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sqlx::{
    AssertSqlSafe, Column, Connection, Either, Executor, PgConnection, Row, SqlSafeStr, Statement,
    TypeInfo, ValueRef,
    postgres::{PgColumn, PgRow},
};
use tokio::time::timeout;

use crate::{
    auth::Admin,
    database::{self, PROJECT_ADMIN},
    error::{ApiError, ApiResult},
    routes::Body,
    sql_text,
    sql_value::{from_text, to_literal},
    state::AppState,
};

const STATEMENT_TIMEOUT: &str = "30s";
/// For what `statement_timeout` does not end, several statements after each other for one.
const WHOLE_TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Deserialize)]
pub(crate) struct SqlRequest {
    query: Option<String>,
    #[serde(default)]
    params: Vec<Value>,
    #[serde(default)]
    explain: bool,
}

/// `POST /api/database/advance/rawsql`
pub(crate) async fn restricted(
    _: Admin,
    State(state): State<AppState>,
    Body(request): Body<SqlRequest>,
) -> ApiResult<Json<Value>> {
    run(&state, Some(PROJECT_ADMIN), request).await
}

/// `POST /api/database/advance/rawsql/unrestricted`
pub(crate) async fn unrestricted(
    _: Admin,
    State(state): State<AppState>,
    Body(request): Body<SqlRequest>,
) -> ApiResult<Json<Value>> {
    run(&state, None, request).await
}

async fn run(state: &AppState, role: Option<&str>, request: SqlRequest) -> ApiResult<Json<Value>> {
    let query = request
        .query
        .filter(|query| !query.trim().is_empty())
        .ok_or_else(|| ApiError::invalid_input("query: Required"))?;
    let mut statements =
        sql_text::split(&query).map_err(|error| ApiError::forbidden(error.to_string()))?;
    if role.is_some()
        && let Some(reason) = statements.iter().find_map(sql_text::Statement::refusal)
    {
        return Err(ApiError::forbidden(reason));
    }
    let mut session = database::session(&state.connect, role, STATEMENT_TIMEOUT).await?;
    let work = async {
        match (statements.len(), statements.pop()) {
            (1, Some(statement)) => {
                run_one(&mut session, &statement, &request.params, request.explain).await
            }
            _ => run_several(&mut session, &query).await,
        }
    };
    let answer = timeout(WHOLE_TIMEOUT, work)
        .await
        .unwrap_or_else(|_| Err(ApiError::internal("The statements took too long")));
    // Dropping an open session would leave its end to Postgres noticing the closed socket.
    if answer.is_ok() {
        let _ = session.close().await;
    }
    answer.map(Json)
}

/// Several statements are one implicit transaction, and answer without their results.
async fn run_several(session: &mut PgConnection, query: &str) -> ApiResult<Value> {
    sqlx::raw_sql(AssertSqlSafe(query))
        .execute(session)
        .await
        .map_err(|error| ApiError::from_users_sql(&error))?;
    Ok(json!({ "rows": [] }))
}

async fn run_one(
    session: &mut PgConnection,
    statement: &sql_text::Statement,
    params: &[Value],
    explain: bool,
) -> ApiResult<Value> {
    let users = |error: sqlx::Error| ApiError::from_users_sql(&error);
    let text = if explain {
        format!("EXPLAIN {}", statement.text)
    } else {
        statement.text.clone()
    };
    // Describing first gives the columns of an answer without rows, and refuses syntax errors.
    let described = (&mut *session)
        .prepare(AssertSqlSafe(text.clone()).into_sql_str())
        .await
        .map_err(users)?;
    let fields: Vec<Value> = described.columns().iter().map(field).collect();

    let text = if params.is_empty() {
        text
    } else {
        let literals: Option<Vec<String>> = params.iter().map(to_literal).collect();
        let literals =
            literals.ok_or_else(|| ApiError::invalid_input("params: NUL is not allowed"))?;
        (&mut *session)
            .execute(sqlx::raw_sql(AssertSqlSafe(format!(
                "PREPARE devbackend_query AS {text}"
            ))))
            .await
            .map_err(users)?;
        format!("EXECUTE devbackend_query({})", literals.join(", "))
    };
    let mut rows = Vec::new();
    let mut affected = 0;
    {
        let mut results = sqlx::raw_sql(AssertSqlSafe(text)).fetch_many(&mut *session);
        while let Some(item) = results.try_next().await.map_err(users)? {
            match item {
                Either::Left(result) => affected += result.rows_affected(),
                Either::Right(row) => rows.push(row_json(&row)?),
            }
        }
    }
    let counted = !explain && counts_rows(statement.verb());
    Ok(json!({
        "rows": rows,
        "rowCount": (counted || affected > 0).then_some(affected),
        "fields": fields,
    }))
}

/// Whether the command tag of such a statement carries a number.
fn counts_rows(verb: &str) -> bool {
    matches!(
        verb,
        "SELECT"
            | "INSERT"
            | "UPDATE"
            | "DELETE"
            | "MERGE"
            | "WITH"
            | "VALUES"
            | "TABLE"
            | "FETCH"
            | "MOVE"
            | "COPY"
    )
}

fn field(column: &PgColumn) -> Value {
    json!({ "name": column.name(), "dataTypeID": type_oid(column) })
}

fn type_oid(column: &PgColumn) -> u32 {
    column.type_info().oid().map_or(0, |oid| oid.0)
}

fn row_json(row: &PgRow) -> ApiResult<Value> {
    let mut object = Map::new();
    for column in row.columns() {
        let value = row.try_get_raw(column.ordinal())?;
        let json = if value.is_null() || value.type_info().is_null() {
            Value::Null
        } else {
            let text = value
                .as_str()
                .map_err(|_| ApiError::internal("A value is not text"))?;
            from_text(type_oid(column), text)
        };
        object.insert(column.name().to_owned(), json);
    }
    Ok(Value::Object(object))
}
