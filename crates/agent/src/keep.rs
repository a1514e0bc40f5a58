//! What must outlive the agent, in files of mode 0600 beside its configuration. A machine that
//! reboots while the control plane is away serves from them.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use cp_model::agent_protocol::DesiredState;
use cp_tokens::secret::{OpaqueSecret, SecretKind};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::config::MachineDir;

const TOKEN: &str = "agent-token.json";
const DESIRED: &str = "desired.json";
const PASSWORD: &str = "database-password";

/// The agent's own token, made by it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct AgentToken {
    pub token: String,
    /// Whether the control plane has confirmed it.
    pub registered: bool,
}

/// On disk before the first call, so that a lost answer is mended by asking again with the same
/// token (`RegisterRequest`).
pub(crate) fn agent_token(dir: &MachineDir) -> io::Result<AgentToken> {
    if let Some(token) = read_json(&dir.file(TOKEN))? {
        return Ok(token);
    }
    let secret = OpaqueSecret::generate(SecretKind::AgentToken);
    let token = AgentToken {
        token: secret.expose().to_owned(),
        registered: false,
    };
    save_agent_token(dir, &token)?;
    Ok(token)
}

pub(crate) fn save_agent_token(dir: &MachineDir, token: &AgentToken) -> io::Result<()> {
    write_private(&dir.file(TOKEN), &serde_json::to_vec(token)?)
}

pub(crate) fn desired(dir: &MachineDir) -> io::Result<Option<DesiredState>> {
    read_json(&dir.file(DESIRED))
}

pub(crate) fn save_desired(dir: &MachineDir, desired: &DesiredState) -> io::Result<()> {
    write_private(&dir.file(DESIRED), &serde_json::to_vec(desired)?)
}

/// The superuser's password as we last set it; none: still the configured one.
pub(crate) fn database_password(dir: &MachineDir) -> io::Result<Option<SecretString>> {
    Ok(read(&dir.file(PASSWORD))?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned().into()))
}

pub(crate) fn save_database_password(dir: &MachineDir, password: &SecretString) -> io::Result<()> {
    write_private(&dir.file(PASSWORD), password.expose_secret().as_bytes())
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<Option<T>> {
    match read(path)? {
        Some(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        None => Ok(None),
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Written aside and renamed: a crash leaves the old text or the new one.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(aside, path)
}
