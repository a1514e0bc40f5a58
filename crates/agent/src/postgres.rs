//! The machine's Postgres: kept running, its superuser's password, its database.

use std::time::Duration;

use cp_model::agent_protocol::DesiredBackend;
use cp_pg::{Binaries, Cluster, Durability, SUPERUSER, Settings, StopMode};
use rustix::process::Signal;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::{
    config::{MachineDir, PostgresConfig},
    keep, process,
};

/// The project's database, unless its environment names another.
pub(crate) const DATABASE: &str = "insforge";

const STOP_TIMEOUT: Duration = Duration::from_secs(8);

#[derive(Debug, thiserror::Error)]
pub(crate) enum PostgresError {
    #[error("{0}")]
    NoBinaries(#[from] cp_pg::NotFound),
    #[error("Postgres: {0}")]
    Cluster(#[from] cp_pg::Error),
    #[error("cannot use the machine's database: {0}")]
    Sql(#[from] sqlx::Error),
    #[error("cannot keep what is known of the database: {0}")]
    Keep(#[from] std::io::Error),
}

pub(crate) struct Postgres {
    cluster: Cluster,
    settings: Settings,
    config: PostgresConfig,
    dir: MachineDir,
    /// Seen last, for the case that the folder disappears under it.
    pid: Option<u32>,
}

impl Postgres {
    pub(crate) async fn open(
        config: PostgresConfig,
        dir: &MachineDir,
    ) -> Result<Self, PostgresError> {
        let binaries = Binaries::in_dir(&config.binaries).await?;
        let cluster = Cluster::open(&binaries, dir.file("pgdata"), config.port).await?;
        let settings = Settings {
            durability: if config.fast {
                Durability::Fast
            } else {
                Durability::Full
            },
            ..Settings::machine()
        };
        Ok(Self {
            cluster,
            settings,
            config,
            dir: dir.clone(),
            pid: None,
        })
    }

    /// Starts it, or takes over one that runs.
    pub(crate) async fn ensure(&mut self) -> Result<(), PostgresError> {
        if !self.is_running().await {
            tracing::info!(port = self.cluster.port(), "starting postgres");
            self.cluster.start(&self.settings).await?;
        } else if self.pid.is_none() {
            // One that was left running may still be recovering.
            self.cluster.start(&self.settings).await?;
        }
        self.pid = self.cluster.pid().await;
        Ok(())
    }

    pub(crate) async fn is_running(&self) -> bool {
        self.cluster.is_running().await
    }

    pub(crate) fn port(&self) -> u16 {
        self.cluster.port()
    }

    /// The superuser's URL of `database` with the password that is in force.
    pub(crate) fn url(&self, database: &str) -> Result<SecretString, PostgresError> {
        Ok(self.cluster.superuser_url(database, &self.password()?))
    }

    /// Makes the superuser's password what is desired and the database exist.
    pub(crate) async fn adapt(&mut self, desired: &DesiredBackend) -> Result<(), PostgresError> {
        let mut connection = self.adapt_password(desired).await?;
        let outcome = create_database(&mut connection, database_of(desired)).await;
        // Closing politely is a courtesy; the outcome is what counts.
        let _ = connection.close().await;
        outcome?;
        // They are the backend's, which is about to start. Postgres owes none of them.
        self.note_restarts(desired.restarts)
    }

    /// As [`Self::adapt`], while somebody restores into it. Restarts it when that is asked for.
    ///
    /// Once this was done the database is theirs: they drop it and make it anew, and one that
    /// we made in between would be in their way.
    pub(crate) async fn adapt_alone(
        &mut self,
        desired: &DesiredBackend,
    ) -> Result<(), PostgresError> {
        match keep::database_restarts(&self.dir)? {
            None => return self.begin_empty(desired).await,
            Some(known) if known < desired.restarts => {
                tracing::info!(desired.restarts, "restarting postgres");
                self.halt().await?;
                self.pid = None;
                self.ensure().await?;
            }
            Some(_) => {}
        }
        let connection = self.adapt_password(desired).await?;
        let _ = connection.close().await;
        self.note_restarts(desired.restarts)
    }

    /// What a release's container has after its first start: the roles, and an empty database
    /// (contract/project-backend.md section 5.10).
    async fn begin_empty(&mut self, desired: &DesiredBackend) -> Result<(), PostgresError> {
        // Nobody's data: no project has had this database, which has the schema of a warm machine.
        let is_warm = keep::database_password(&self.dir)?.is_none();
        let mut connection = self.connect_somehow(desired).await?;
        let outcome = async {
            if is_warm && database_of(desired) == DATABASE {
                drop_database(&mut connection, DATABASE).await?;
            }
            cp_devbackend::create_roles(&mut connection).await
        };
        let outcome = outcome.await;
        let _ = connection.close().await;
        outcome?;
        self.adapt(desired).await
    }

    /// Gives a connection to the database `postgres`.
    async fn adapt_password(
        &mut self,
        desired: &DesiredBackend,
    ) -> Result<PgConnection, PostgresError> {
        let wanted = SecretString::from(desired.database_password.as_str());
        let is_set = self.password()?.expose_secret() == wanted.expose_secret();
        let mut connection = self.connect_somehow(desired).await?;
        if !is_set {
            let statement = alter_password(SUPERUSER, &wanted);
            sqlx::raw_sql(AssertSqlSafe(statement.expose_secret()))
                .execute(&mut connection)
                .await?;
            keep::save_database_password(&self.dir, &wanted)?;
        }
        Ok(connection)
    }

    /// With the password that we know, or the desired one, or by setting that.
    async fn connect_somehow(
        &mut self,
        desired: &DesiredBackend,
    ) -> Result<PgConnection, PostgresError> {
        let wanted = SecretString::from(desired.database_password.as_str());
        Ok(match self.connect(&self.password()?).await {
            Ok(connection) => connection,
            // The note of our last change was lost, or somebody else changed it.
            Err(error) if is_wrong_password(&error) => match self.connect(&wanted).await {
                Ok(connection) => connection,
                Err(error) if is_wrong_password(&error) => self.force_password(&wanted).await?,
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        })
    }

    fn note_restarts(&self, restarts: i64) -> Result<(), PostgresError> {
        if keep::database_restarts(&self.dir)? != Some(restarts) {
            keep::save_database_restarts(&self.dir, restarts)?;
        }
        Ok(())
    }

    /// A warm machine has its database already when its project comes.
    pub(crate) async fn prepare(&mut self) -> Result<(), PostgresError> {
        let mut connection = self.connect(&self.password()?).await?;
        let outcome = create_database(&mut connection, DATABASE).await;
        let _ = connection.close().await;
        Ok(outcome?)
    }

    async fn halt(&self) -> Result<(), cp_pg::Error> {
        let Err(error) = self.cluster.stop(StopMode::Fast, STOP_TIMEOUT).await else {
            return Ok(());
        };
        tracing::warn!(%error, "postgres does not stop; stopping it at once");
        self.cluster.stop(StopMode::Immediate, STOP_TIMEOUT).await
    }

    pub(crate) async fn stop(&self) {
        if let Err(error) = self.halt().await {
            tracing::error!(%error, "postgres does not stop");
        }
        // Without its folder the cluster looks stopped, and is not.
        let Some(pid) = self.pid else { return };
        let pgdata = self.cluster.dir().to_string_lossy().into_owned();
        if process::command_line(pid)
            .await
            .is_some_and(|line| line.contains(&pgdata))
        {
            // To Postgres, an immediate shutdown.
            process::signal(pid, Signal::QUIT);
        }
    }

    fn password(&self) -> Result<SecretString, PostgresError> {
        let kept = keep::database_password(&self.dir)?;
        Ok(kept.unwrap_or_else(|| self.config.password.clone()))
    }

    async fn connect(&self, password: &SecretString) -> Result<PgConnection, sqlx::Error> {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port())
            .username(SUPERUSER)
            .password(password.expose_secret())
            .database("postgres")
            .ssl_mode(PgSslMode::Disable)
            .application_name("insforge-agent")
            // sqlx tells of statements at debug, and one of ours holds the password.
            .disable_statement_logging()
            .connect()
            .await
    }

    /// No password that we know is accepted: the owner of the data folder sets one all the same.
    async fn force_password(
        &mut self,
        wanted: &SecretString,
    ) -> Result<PgConnection, PostgresError> {
        tracing::warn!("the database superuser's password was changed by others; setting it again");
        self.cluster.stop(StopMode::Fast, STOP_TIMEOUT).await?;
        self.cluster.set_superuser_password(wanted).await?;
        self.cluster.start(&self.settings).await?;
        self.pid = self.cluster.pid().await;
        keep::save_database_password(&self.dir, wanted)?;
        Ok(self.connect(wanted).await?)
    }
}

pub(crate) fn database_of(desired: &DesiredBackend) -> &str {
    let named = desired.env.get("POSTGRES_DB").map(String::as_str);
    named
        .filter(|name| !name.trim().is_empty())
        .unwrap_or(DATABASE)
}

/// Nothing that fails or runs here may be logged: the statement holds the password.
pub(crate) fn alter_password(superuser: &str, wanted: &SecretString) -> SecretString {
    SecretString::from(format!(
        "SET log_statement = 'none'; SET log_min_error_statement = 'panic'; \
         SET log_min_duration_statement = -1; SET standard_conforming_strings = on; \
         ALTER ROLE {} PASSWORD {}",
        quote_identifier(superuser),
        quote_literal(wanted.expose_secret())
    ))
}

async fn create_database(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    let exists: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(name)
            .fetch_one(&mut *connection)
            .await?;
    if !exists {
        let statement = format!("CREATE DATABASE {}", quote_identifier(name));
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(connection)
            .await?;
    }
    Ok(())
}

async fn drop_database(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    let name = quote_identifier(name);
    let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(connection)
        .await?;
    Ok(())
}

fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// With `standard_conforming_strings`, a quote is the only special character.
fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// 28P01 `invalid_password` (Postgres manual, appendix A).
fn is_wrong_password(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == "28P01")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_cannot_leave_its_literal() {
        assert_eq!(quote_literal("a'b\\"), "'a''b\\'");
        assert_eq!(
            quote_literal("'; DROP TABLE x; --"),
            "'''; DROP TABLE x; --'"
        );
    }
}
