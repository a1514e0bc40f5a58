//! `agent.json`. Written by the machine's provider (`cp_provider::local::AgentConfig`, or
//! user-data later); a test compares the two. Everything else of the machine lies beside it.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use cp_model::MachineId;
use secrecy::SecretString;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub machine_id: MachineId,
    /// Base URL of the control plane, with no trailing slash.
    pub control_url: String,
    /// Single-use: buys a place for the token that the agent makes itself.
    pub bootstrap_token: SecretString,
    /// Where the backend shall listen.
    pub port: u16,
    pub postgres: PostgresConfig,
    pub runtime: Runtime,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// The folder of `pg_ctl` and its kin.
    pub binaries: PathBuf,
    pub port: u16,
    /// The superuser's, until the first desired backend brings another.
    pub password: SecretString,
    /// No fsync: for tests.
    #[serde(default)]
    pub fast: bool,
}

/// What runs as the backend.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Runtime {
    /// The stand-in of this very program.
    Builtin,
    /// Any program that takes the backend's environment (contract/project-backend.md section 1)
    /// and ends at SIGTERM.
    Command {
        program: PathBuf,
        #[serde(default)]
        args: Vec<String>,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is malformed: {source}", path.display())]
    Malformed {
        path: PathBuf,
        source: serde_json::Error,
    },
}

impl Config {
    pub fn load(path: &Path) -> Result<(Self, MachineDir), ConfigError> {
        let read = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let bytes = std::fs::read(path).map_err(read)?;
        let config = serde_json::from_slice(&bytes).map_err(|source| ConfigError::Malformed {
            path: path.to_owned(),
            source,
        })?;
        let file = path.canonicalize().map_err(read)?;
        let identity = identity(&file).map_err(read)?;
        let dir = file.parent().unwrap_or(Path::new("/")).to_owned();
        Ok((
            config,
            MachineDir {
                dir,
                file,
                identity,
            },
        ))
    }
}

/// The machine's folder. It is the machine: when it is gone, so is the machine.
#[derive(Debug, Clone)]
pub struct MachineDir {
    dir: PathBuf,
    file: PathBuf,
    identity: (u64, u64, i64),
}

impl MachineDir {
    pub fn path(&self) -> &Path {
        &self.dir
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// False when the folder was deleted or set aside, also when another took its place.
    pub fn is_still_ours(&self) -> bool {
        identity(&self.file).is_ok_and(|identity| identity == self.identity)
    }
}

fn identity(file: &Path) -> io::Result<(u64, u64, i64)> {
    let meta = file.metadata()?;
    Ok((meta.dev(), meta.ino(), meta.mtime_nsec()))
}
