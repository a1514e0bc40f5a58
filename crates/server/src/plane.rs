//! From configuration to a [`ControlPlane`], for every process and command.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use cp_domain::{BranchLimits, ControlPlane, Settings};
use cp_model::SystemClock;
use cp_storage::{Database, DatabaseConfig, StorageError};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// How often a database that is away is asked again.
const RETRY_DATABASE: Duration = Duration::from_secs(1);

/// The database by itself, for what needs no keys. `application` shows in `pg_stat_activity`.
pub fn database(config: &Config, application: &str) -> anyhow::Result<Database> {
    let url = config.database_url()?;
    let config = DatabaseConfig {
        url,
        max_connections: config.database.max_connections,
        application_name: format!("insforge-cloud {application}"),
        acquire_timeout: config.database.acquire_timeout.get(),
    };
    // The cause is not repeated: it might quote the URL with its password.
    Database::connect(&config).map_err(|_| {
        anyhow::anyhow!("database.url is not a URL like postgres://user@host/database")
    })
}

pub fn control_plane(
    config: &Config,
    database: Database,
    base_url: &str,
) -> anyhow::Result<ControlPlane> {
    let settings = Settings {
        create_wait: config.limits.create_wait.get(),
        completion_wait: config.limits.completion_wait.get(),
        auth_failures_per_minute: config.limits.auth_failures_per_minute,
        rotation: config.signing.policy(),
        branches: BranchLimits {
            parents_per_organization: config.limits.parents_per_organization,
            branches_per_parent: config.limits.branches_per_parent,
        },
        ai_limits: config.openrouter.limits(),
        analyses_per_hour: config.analysis.per_hour,
        latest_release: config.releases.latest.clone(),
        sites_domain: config.sites.domain.clone(),
        allow_http_webhooks: config.limits.allow_http_webhooks,
        ..Settings::new(base_url)
    };
    Ok(ControlPlane::new(
        database,
        Arc::new(SystemClock),
        config.sealer()?,
        settings,
    ))
}

/// Waits for a database that is away, then looks at its schema: brings it up to date when told to,
/// else refuses one that is behind. False: told to stop meanwhile.
pub async fn prepare_database(
    database: &Database,
    migrate: bool,
    shutdown: &CancellationToken,
) -> anyhow::Result<bool> {
    loop {
        let attempt = async {
            if migrate {
                database.migrate().await?;
            }
            database.pending_migrations().await
        };
        let Some(pending) = shutdown.run_until_cancelled(attempt).await else {
            return Ok(false);
        };
        match pending {
            Ok(0) => return Ok(true),
            Ok(pending) => bail!(
                "the database lacks {pending} migrations; run `insforge-cloud migrate`, or start with --migrate"
            ),
            Err(StorageError::Unavailable(error)) => {
                tracing::warn!(%error, "the database is away; trying again until it answers");
            }
            Err(error) => return Err(error).context("the database cannot be used"),
        }
        let pause = tokio::time::sleep(RETRY_DATABASE);
        if shutdown.run_until_cancelled(pause).await.is_none() {
            return Ok(false);
        }
    }
}
