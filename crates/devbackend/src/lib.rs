//! A small stand-in for the InsForge server, so that a laptop needs no Docker. It says what it
//! is: `GET /api/health` answers with version `2.3.1-devbackend`.
//!
//! What lives here: the part of the project backend's contract that the control plane and the
//! command-line client call (health, keys, admin sessions, usage, SQL, migrations, secrets,
//! metadata, lists), on a real Postgres, with the real schema names, key seeding and encryption,
//! so that a branch, a merge or a key fix-up written against the real server works here too.
//! What does not: PostgREST, functions, realtime, storage bytes, payments, compute, cron.
//!
//! Called by the agent: [`migrate`] ahead of time on a warm machine, [`create_roles`] where a
//! database is to be restored, [`run`] as a process of its own from a hidden subcommand.
//!
//! On purpose unlike the real server:
//! - keys are never printed. The real one writes both keys in clear text to its log on every
//!   start; whatever collects the log then holds an admin key.
//! - a restart of Postgres does not end the process: the pool reconnects.
//! - a control plane token needs a `kid`, and ES512 is not taken.

mod auth;
mod catalog;
mod cloud_token;
mod config;
mod crypto;
mod database;
mod error;
mod export;
mod health;
mod metadata;
mod migrations;
mod resources;
mod routes;
mod schema;
mod secrets;
mod seed;
mod sessions;
mod signing;
mod sql;
mod sql_text;
mod sql_value;
mod state;
#[cfg(test)]
mod tests;
mod upstream;
mod usage;

pub use config::{CloudMode, Config, ConfigError};
pub use error::Error;
pub use schema::{create_roles, migrate};

use std::{future::Future, net::SocketAddr};

use tokio::net::TcpListener;

/// What the stand-in calls its release: the release it stands in for, and that it does.
pub const VERSION: &str = "2.3.1-devbackend";

/// Migrates, seeds, then serves until `shutdown` resolves; requests under way are finished.
/// The port opens only when the keys are accepted.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let address = SocketAddr::new(config.host, config.port);
    let state = prepare(config).await?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })?;
    tracing::info!(%address, version = VERSION, "InsForge devbackend (stand-in) is serving");
    axum::serve(listener, routes::router(state))
        .with_graceful_shutdown(shutdown)
        .await
        .map_err(|source| Error::Listen { address, source })
}

/// Everything before the port opens.
async fn prepare(config: Config) -> Result<state::AppState, Error> {
    schema::prepare(&config.database).await?;
    let state = state::AppState::new(config);
    // As in the real server a failed seeding is logged only: it then answers health and accepts
    // no key, and whoever waits for readiness by an authenticated call notices.
    if let Err(error) = seed::seed(&state).await {
        tracing::error!(%error, "seeding failed; no key is accepted until a restart");
    }
    state.warm_signing_key();
    Ok(state)
}
