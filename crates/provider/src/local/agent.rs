//! The agent of a machine: its configuration file and its process.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use cp_model::MachineId;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use tokio::process::Command;

use super::{
    io_at,
    layout::{self, MachineDir},
    lock,
};
use crate::ProviderError;

/// What of our environment an agent may see. Everything else stays here: ours holds the control
/// plane's own secrets, and agents hand theirs on to programs of projects.
const INHERITED: [&str; 9] = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "USER",
];

/// Larger ones start anew; one old one is kept.
const LOG_LIMIT: u64 = 8 * 1024 * 1024;

/// What `agent.json` says; read by `cp-agent`, whose tests compare the two. Everything else is
/// found beside the file: `pgdata/`, `storage/`, `logs/`. Holds secrets, so it has no `Debug`.
#[derive(Serialize)]
pub struct AgentConfig {
    pub machine_id: MachineId,
    pub control_url: String,
    #[serde(serialize_with = "expose")]
    pub bootstrap_token: SecretString,
    /// Where the backend shall listen.
    pub port: u16,
    pub postgres: PostgresConfig,
    pub runtime: Runtime,
}

#[derive(Serialize)]
pub struct PostgresConfig {
    /// The folder of `pg_ctl` and its kin.
    pub binaries: PathBuf,
    pub port: u16,
    /// What the superuser's password is until a project has one of its own.
    #[serde(serialize_with = "expose")]
    pub password: SecretString,
    /// No fsync: for tests.
    pub fast: bool,
}

/// What runs as a project's backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Runtime {
    /// The stand-in that the agent brings along (`cp-devbackend`).
    Builtin,
    /// Any program that takes the backend's environment (contract/project-backend.md section 1).
    Command {
        program: PathBuf,
        #[serde(default)]
        args: Vec<String>,
    },
}

impl AgentConfig {
    pub fn write(&self, path: &Path) -> io::Result<()> {
        layout::write_private(path, &serde_json::to_vec_pretty(self)?)
    }
}

/// Changes where the agent looks for the control plane, from its next start on.
pub(super) fn point_at(path: &Path, control_url: &str) -> io::Result<()> {
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(path)?)?;
    if config["control_url"] == control_url {
        return Ok(());
    }
    config["control_url"] = control_url.into();
    layout::write_private(path, &serde_json::to_vec_pretty(&config)?)
}

/// Starts the agent in a process group of its own: it outlives us, and Ctrl-C in our terminal is
/// not for it. Call with the machine's lock held.
pub(super) async fn spawn(binary: &Path, dir: &MachineDir) -> Result<(), ProviderError> {
    let lock_path = dir.agent_lock();
    // One that is just ending may hold it a moment longer than we saw it.
    let lock = lock::wait(&lock_path, Duration::from_secs(2))
        .await
        .map_err(io_at("lock", &lock_path))?
        .into_file();
    let log = open_log(&dir.agent_log()).map_err(io_at("open", &dir.agent_log()))?;
    let prepare = || {
        lock.set_len(0)?;
        Ok((lock.try_clone()?, log.try_clone()?))
    };
    let (stdin, stdout) = prepare().map_err(io_at("prepare", &lock_path))?;

    let mut command = Command::new(binary);
    command
        .args(["run", "--config"])
        .arg(dir.agent_config())
        .current_dir(dir.path())
        .env_clear()
        .envs(
            INHERITED
                .iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(log))
        .process_group(0);
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => ProviderError::Permanent(
            format!("cannot run the agent {}: {error}", binary.display()),
        ),
        _ => io_at("run", binary)(error),
    })?;
    let pid = child.id().unwrap_or_default();
    if let Err(error) = lock::name_holder(&lock, pid) {
        // Without its pid nobody could stop it later.
        let _ = child.start_kill();
        return Err(io_at("write", &lock_path)(error));
    }
    let machine = dir.id();
    tracing::debug!(%machine, pid, "agent started");
    // We are its parent: without this it would stay a zombie.
    tokio::spawn(async move {
        if let Ok(status) = child.wait().await {
            tracing::debug!(%machine, pid, %status, "agent ended");
        }
    });
    Ok(())
}

fn open_log(path: &Path) -> io::Result<fs::File> {
    if path.metadata().is_ok_and(|meta| meta.len() > LOG_LIMIT) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

fn expose<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}
