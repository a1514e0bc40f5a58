//! What must outlive the agent, in files of mode 0600 in the machine's folder. A machine that
//! reboots while the control plane is away serves from them.
//!
//! One that cannot be understood (a disk that lied about a write) is set aside, and it is as if
//! it had never been: the control plane knows what is desired, and says it again.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cp_model::{MachineId, agent_protocol::DesiredState};
use cp_tokens::secret::{OpaqueSecret, SecretKind};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::config::MachineDir;

const TOKEN: &str = "agent-token.json";
const DESIRED: &str = "desired.json";
const PASSWORD: &str = "database-password";
const DATABASE_RESTARTS: &str = "database-restarts";

/// The agent's own token, made by it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct AgentToken {
    pub token: String,
    /// Whether the control plane has confirmed it.
    pub registered: bool,
    /// Whose it is; none in files of older agents.
    #[serde(default)]
    machine_id: Option<MachineId>,
    /// Seconds since 1970; none in files of older agents.
    #[serde(default)]
    pub made_at: Option<u64>,
    /// The one that comes next: the control plane may have taken it, or not have heard of it.
    #[serde(default)]
    pub next: Option<String>,
    /// The one before: what a control plane knows whose database was set back.
    #[serde(default)]
    pub previous: Option<String>,
}

impl AgentToken {
    fn new(machine_id: MachineId) -> Self {
        Self {
            token: make_token(),
            registered: false,
            machine_id: Some(machine_id),
            made_at: Some(now()),
            next: None,
            previous: None,
        }
    }

    /// What is left of its time, a tenth more or less: machines that were made together need not
    /// come together. A clock that went back makes it old.
    pub(crate) fn renewed_in(&self, lifetime: Duration) -> Duration {
        let machine = self.machine_id.map_or(0, |id| id.0.as_u128() % 1024);
        let lot = u32::try_from(machine).unwrap_or(0);
        let lifetime = lifetime * 9 / 10 + lifetime * lot / 5120;
        match self.made_at {
            Some(at) => now().checked_sub(at).map_or(Duration::ZERO, |age| {
                lifetime.saturating_sub(Duration::from_secs(age))
            }),
            None => lifetime * lot / 1024,
        }
    }

    /// The next one, made if there is none.
    pub(crate) fn next(&mut self) -> String {
        self.next.get_or_insert_with(make_token).clone()
    }

    /// The next one takes its place.
    pub(crate) fn step(&mut self) {
        if let Some(next) = self.next.take() {
            self.previous = Some(std::mem::replace(&mut self.token, next));
            self.made_at = Some(now());
        }
    }
}

fn make_token() -> String {
    let secret = OpaqueSecret::generate(SecretKind::AgentToken);
    secret.expose().to_owned()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// On disk before the first call, so that a lost answer is mended by asking again with the same
/// token (`RegisterRequest`).
///
/// A disk that was copied with what another machine kept, say into an image, is refused: with
/// that machine's token this one would be handed that machine's project.
pub(crate) fn agent_token(dir: &MachineDir, machine_id: MachineId) -> io::Result<AgentToken> {
    if let Some(token) = read_json::<AgentToken>(&dir.file(TOKEN))? {
        return match token.machine_id {
            Some(other) if other != machine_id => Err(io::Error::other(format!(
                "{} was kept by machine {other}, and this is {machine_id}",
                dir.file(TOKEN).display()
            ))),
            _ => Ok(token),
        };
    }
    let token = AgentToken::new(machine_id);
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

/// The desired `restarts` that Postgres was last brought up to; none: no project has run here.
pub(crate) fn database_restarts(dir: &MachineDir) -> io::Result<Option<i64>> {
    read_json(&dir.file(DATABASE_RESTARTS))
}

pub(crate) fn save_database_restarts(dir: &MachineDir, restarts: i64) -> io::Result<()> {
    let path = dir.file(DATABASE_RESTARTS);
    write_private(&path, restarts.to_string().as_bytes())
}

/// None: there is none, or none that can be understood.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let Some(bytes) = read(path)? else {
        return Ok(None);
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            // The place of the mistake, not the text: it may hold secrets.
            let (line, column) = (error.line(), error.column());
            let path_text = path.display();
            tracing::warn!(path = %path_text, line, column, "set aside, since it is malformed");
            fs::rename(path, path.with_extension("malformed"))?;
            Ok(None)
        }
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, 0o600)
}

/// Written aside and renamed: a crash leaves the old text or the new one.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // Added, not put in the extension's place: `a.conf` and `a.sql` may be written at once.
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = Path::new(&aside);
    // What a crash left may have another mode.
    match fs::remove_file(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(aside)?;
    // The process's umask took from the mode; containers must be able to read some.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(aside, path)?;
    // Else a power cut may undo the renaming, and with it the order of what we note.
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
