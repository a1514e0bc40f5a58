//! Errors: of the process (for the agent), and of a request (the form of project-backend 2.3).

use std::net::SocketAddr;

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

/// Why the stand-in could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("DATABASE_URL is not a Postgres URL")]
    DatabaseUrl(#[source] sqlx::Error),
    #[error("cannot prepare the database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
}

/// `{"error": CODE, "message": text, "statusCode": number}`.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_INPUT", message)
    }

    pub fn invalid_credentials(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "AUTH_INVALID_CREDENTIALS",
            message,
        )
    }

    pub fn invalid_api_key() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "AUTH_INVALID_API_KEY",
            "Invalid API key",
        )
    }

    /// Authenticated, but not as an admin of this project.
    pub fn not_authorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "AUTH_UNAUTHORIZED", message)
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", message)
    }

    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", message)
    }

    /// What Postgres said about the caller's own SQL (project-backend 7, "SQL errors").
    pub fn from_users_sql(error: &sqlx::Error) -> Self {
        let Some(database) = error.as_database_error() else {
            return Self::internal(error.to_string());
        };
        let state = database.code().unwrap_or_default();
        let (status, code) = match state.as_ref() {
            // undefined_table, undefined_column
            "42P01" | "42703" => (StatusCode::BAD_REQUEST, "DATABASE_VALIDATION_ERROR"),
            // insufficient_privilege, syntax_error
            "42501" | "42601" => (StatusCode::FORBIDDEN, "FORBIDDEN"),
            // unique_violation, duplicate_table, duplicate_column, duplicate_object
            "23505" | "42P07" | "42701" | "42710" => (StatusCode::CONFLICT, "DATABASE_DUPLICATE"),
            state if state.starts_with("23") => {
                (StatusCode::BAD_REQUEST, "DATABASE_CONSTRAINT_VIOLATION")
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR"),
        };
        Self::new(status, code, database.message())
    }
}

/// Our own queries: the cause goes to the log, not to the caller.
impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        tracing::error!(%error, "query failed");
        Self::internal("Internal server error")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({
            "error": self.code,
            "message": self.message,
            "statusCode": self.status.as_u16(),
        });
        (self.status, Json(body)).into_response()
    }
}
