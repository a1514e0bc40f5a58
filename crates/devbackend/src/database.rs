//! Connections: the small pool for our own queries, and connections of their own for the
//! caller's SQL.

use std::time::Duration;

use sqlx::{
    ConnectOptions, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// The role of restricted SQL (project-backend 5.2).
pub(crate) const PROJECT_ADMIN: &str = "project_admin";

/// Idle connections are what this process would otherwise mostly consist of, on both ends.
pub(crate) fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(8)
        .min_connections(0)
        .idle_timeout(Duration::from_secs(30))
        .acquire_timeout(Duration::from_secs(5))
        .connect_lazy_with(options.options([("timezone", "UTC"), ("jit", "off")]))
}

/// A connection for one piece of the caller's SQL, closed afterwards: nothing that the SQL
/// leaves in the session (settings, temporary tables, locks) reaches the next caller.
pub(crate) async fn session(
    options: &PgConnectOptions,
    role: Option<&str>,
    statement_timeout: &str,
) -> Result<PgConnection, sqlx::Error> {
    let mut settings = vec![
        ("timezone", "UTC"),
        ("datestyle", "ISO"),
        ("intervalstyle", "postgres"),
        ("bytea_output", "hex"),
        ("standard_conforming_strings", "on"),
        ("jit", "off"),
        ("statement_timeout", statement_timeout),
    ];
    if let Some(role) = role {
        // As a setting of the session's start it is also what RESET ROLE returns to.
        settings.push(("role", role));
    }
    options
        .clone()
        .statement_cache_capacity(0)
        .options(settings)
        .connect()
        .await
}
