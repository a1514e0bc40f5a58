//! The private Postgres of a `dev`: made once, on a port of its own, stopped with it.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use anyhow::{Context as _, bail};
use cp_pg::{Binaries, Cluster, Durability, SUPERUSER, Settings, StopMode, free_port_excluding};
use cp_tokens::secret::random_text;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::process::Command;

use super::DevFolder;

const DATABASE: &str = "insforge_cloud";
const PASSWORD_FILE: &str = "postgres-password";
const PORT_FILE: &str = "postgres-port";

pub(super) struct Private {
    binaries: Binaries,
    cluster: Cluster,
    password: SecretString,
}

impl Private {
    /// Starts it, making it on the first run. One that a killed `dev` left running is adopted.
    pub(super) async fn start(folder: &DevFolder) -> anyhow::Result<Self> {
        let binaries = Binaries::find().await?;
        let dir = folder.postgres();
        let password = password(folder)?;
        let port = port(folder)?;
        let cluster = if Cluster::exists(&dir) {
            let known = Cluster::open(&binaries, &dir, port).await?;
            if known.is_running().await || is_free(port) {
                known
            } else {
                // Somebody else took it while we were away.
                Cluster::open(&binaries, &dir, choose_port(folder, port)?).await?
            }
        } else {
            tracing::info!("making a Postgres of our own");
            Cluster::initdb(&binaries, &dir, port, &password).await?
        };
        let settings = Settings {
            durability: Durability::Full,
            max_connections: 100,
            shared_buffers_mib: 64,
            ..Settings::machine()
        };
        cluster
            .start(&settings)
            .await
            .context("our own Postgres does not start")?;
        Ok(Self {
            binaries,
            cluster,
            password,
        })
    }

    /// The database's URL. Made by Postgres's own program: statements belong to `cp-storage`, which
    /// needs a database to connect to.
    pub(super) async fn create_database(&self) -> anyhow::Result<SecretString> {
        let output = Command::new(self.binaries.program("createdb"))
            .args(["--host=127.0.0.1", "--no-password"])
            .arg(format!("--port={}", self.cluster.port()))
            .arg(format!("--username={SUPERUSER}"))
            .arg(DATABASE)
            .env("PGPASSWORD", self.password.expose_secret())
            // The answer is read below.
            .env("LC_ALL", "C")
            .env("LC_MESSAGES", "C")
            .output()
            .await
            .context("createdb cannot be run; it belongs to Postgres's client programs")?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() && !said.contains("already exists") {
            bail!("database {DATABASE} cannot be made: {}", said.trim());
        }
        Ok(self.cluster.superuser_url(DATABASE, &self.password))
    }

    pub(super) async fn stop(&self) {
        let outcome = self
            .cluster
            .stop(StopMode::Fast, Duration::from_secs(30))
            .await;
        if let Err(error) = outcome {
            tracing::warn!(%error, "our own Postgres could not be stopped");
        }
    }
}

fn password(folder: &DevFolder) -> anyhow::Result<SecretString> {
    if let Some(text) = folder.read(PASSWORD_FILE)? {
        return Ok(text.trim().into());
    }
    let made = random_text(32);
    folder.write(PASSWORD_FILE, made.expose_secret())?;
    Ok(made)
}

/// The port of last time, so that an address noted somewhere stays right.
fn port(folder: &DevFolder) -> anyhow::Result<u16> {
    let noted = folder.read(PORT_FILE)?;
    match noted.and_then(|text| text.trim().parse().ok()) {
        Some(port) => Ok(port),
        None => choose_port(folder, 0),
    }
}

fn choose_port(folder: &DevFolder, not: u16) -> anyhow::Result<u16> {
    let port = free_port_excluding(&HashSet::from([not])).context("no TCP port is free")?;
    folder.write(PORT_FILE, &port.to_string())?;
    Ok(port)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
