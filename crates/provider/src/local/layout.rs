//! Where things are on disk, and the small files among them. Nothing here starts or ends a
//! process.

use std::{
    collections::HashSet,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::{DateTime, Utc};
use cp_model::{InstanceType, MachineId, Region};
use cp_pg::RunAs;
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::lock::{self, Holder};

/// Below what Linux and macOS give to outgoing connections (from 32768 and 49152): a machine's
/// port must be free again when the machine comes back.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

pub(super) struct Layout {
    root: PathBuf,
    /// Under root, Postgres runs as another user, who must get through.
    dir_mode: u32,
}

impl Layout {
    pub(super) fn open(root: &Path, run_as: &RunAs) -> io::Result<Self> {
        let dir_mode = match run_as {
            RunAs::Caller => 0o700,
            RunAs::User { .. } => 0o711,
        };
        make_dir(root, dir_mode)?;
        let layout = Self {
            root: root.canonicalize()?,
            dir_mode,
        };
        make_dir(&layout.root.join("machines"), dir_mode)?;
        make_dir(&layout.root.join("locks"), 0o700)?;
        Ok(layout)
    }

    pub(super) fn machine(&self, id: MachineId) -> MachineDir {
        self.named(id, id.to_string())
    }

    pub(super) fn lock(&self, id: MachineId) -> PathBuf {
        self.root.join("locks").join(format!("{id}.lock"))
    }

    pub(super) fn ports_lock(&self) -> PathBuf {
        self.root.join("locks/ports.lock")
    }

    pub(super) fn template_lock(&self) -> PathBuf {
        self.root.join("locks/template.lock")
    }

    pub(super) fn template(&self, version: u32) -> PathBuf {
        self.root.join(format!("template-pg{version}"))
    }

    pub(super) fn template_password(&self, version: u32) -> PathBuf {
        self.root.join(format!("template-pg{version}.password"))
    }

    /// Folders of machines, whole ones only.
    pub(super) fn machines(&self) -> Vec<MachineDir> {
        self.folders("")
    }

    /// What interrupted terminates left.
    pub(super) fn gone(&self) -> Vec<MachineDir> {
        self.folders(".gone-")
    }

    /// What a launch or a terminate of this machine left half-way.
    pub(super) fn remains(&self, id: MachineId) -> Vec<MachineDir> {
        let mut remains = self.folders(".gone-");
        remains.extend(self.folders(".making-"));
        remains.retain(|dir| dir.id == id);
        remains
    }

    /// An empty folder to build the machine in. Call with the machine's lock held.
    pub(super) fn begin(&self, id: MachineId) -> io::Result<MachineDir> {
        let making = self.named(id, format!(".making-{id}"));
        match fs::remove_dir_all(&making.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        make_dir(&making.path, self.dir_mode)?;
        Ok(making)
    }

    pub(super) fn finish(&self, making: &MachineDir, dir: &MachineDir) -> io::Result<()> {
        fs::rename(&making.path, &dir.path)?;
        // A rename survives a power cut only when the folder around it is on disk.
        fs::File::open(self.root.join("machines"))?.sync_all()
    }

    /// Ok when there is nothing to set aside.
    pub(super) fn set_aside(&self, id: MachineId) -> io::Result<()> {
        let from = self.machine(id).path;
        let gone = self.named(id, format!(".gone-{id}"));
        if gone.path.exists() && from.exists() {
            fs::remove_dir_all(&gone.path)?;
        }
        match fs::rename(from, gone.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The ports of every machine, half-made ones too.
    pub(super) fn ports_taken(&self) -> HashSet<u16> {
        let mut dirs = self.machines();
        dirs.extend(self.folders(".making-"));
        dirs.iter()
            .filter_map(|dir| dir.record().ok().flatten())
            .flat_map(|record| [record.backend_port, record.database_port])
            .collect()
    }

    fn named(&self, id: MachineId, name: String) -> MachineDir {
        let path = self.root.join("machines").join(name);
        MachineDir { id, path }
    }

    fn folders(&self, prefix: &str) -> Vec<MachineDir> {
        let Ok(entries) = fs::read_dir(self.root.join("machines")) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let id = name.strip_prefix(prefix)?.parse().ok()?;
                Some(self.named(id, name))
            })
            .collect()
    }
}

/// The folder of one machine.
#[derive(Debug, Clone)]
pub(super) struct MachineDir {
    id: MachineId,
    path: PathBuf,
}

impl MachineDir {
    pub(super) fn id(&self) -> MachineId {
        self.id
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn pgdata(&self) -> PathBuf {
        self.path.join("pgdata")
    }

    pub(super) fn agent_config(&self) -> PathBuf {
        self.path.join("agent.json")
    }

    pub(super) fn agent_log(&self) -> PathBuf {
        self.path.join("agent.log")
    }

    pub(super) fn agent_lock(&self) -> PathBuf {
        self.path.join("agent.lock")
    }

    pub(super) fn agent(&self) -> Holder {
        lock::holder(&self.agent_lock())
    }

    /// A backend that the agent runs as a command of its own.
    pub(super) fn backend(&self) -> Holder {
        lock::holder(&self.path.join("backend.lock"))
    }

    /// None when there is no such machine.
    pub(super) fn record(&self) -> io::Result<Option<Record>> {
        match fs::read(self.path.join("machine.json")) {
            Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write_record(&self, record: &Record) -> io::Result<()> {
        write_private(
            &self.path.join("machine.json"),
            &serde_json::to_vec_pretty(record)?,
        )
    }

    pub(super) fn wanted(&self) -> Wanted {
        match fs::read(self.path.join("power")) {
            Ok(text) if text.starts_with(b"stopped") => Wanted::Stopped,
            _ => Wanted::Running,
        }
    }

    pub(super) fn want(&self, wanted: Wanted) -> io::Result<()> {
        let text: &[u8] = match wanted {
            Wanted::Running => b"running\n",
            Wanted::Stopped => b"stopped\n",
        };
        write_private(&self.path.join("power"), text)
    }
}

/// `machine.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub machine_id: MachineId,
    pub region: Region,
    pub instance_type: InstanceType,
    pub volume_gib: i32,
    pub backend_port: u16,
    pub database_port: u16,
    pub launched_at: DateTime<Utc>,
}

/// `power`: what was asked for, as opposed to what is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Running,
    Stopped,
}

/// Drawn at random, so that machines of different folders rarely meet while one is stopped.
pub(super) fn free_ports(taken: &HashSet<u16>) -> Option<[u16; 2]> {
    let offset = rand::rng().random_range(0..PORTS.end - PORTS.start);
    let mut free = (0..PORTS.end - PORTS.start)
        .map(|step| PORTS.start + (offset + step) % (PORTS.end - PORTS.start))
        .filter(|port| !taken.contains(port))
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    Some([free.next()?, free.next()?])
}

/// Written aside with mode 0600, then renamed: readers see the old text or the new one.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
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

/// A process that is just ending may still write into the folder, so this tries a few times.
pub(super) async fn remove_all(path: &Path) -> io::Result<()> {
    for _ in 0..20 {
        match tokio::fs::remove_dir_all(path).await {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    match tokio::fs::remove_dir_all(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Leaves the mode of an existing folder alone.
fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(mode).create(path)
}
