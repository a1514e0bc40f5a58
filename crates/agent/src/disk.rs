//! Grows the file systems of an EC2 machine to the size of their volumes, which the control plane
//! may enlarge at any time: the partition first (`growpart`), then the file system in it
//! (`resize2fs`, `xfs_growfs`), both while it is in use.
//!
//! Only where `agent.json` asks for it: this changes disks.
//!
//! Sizes of block devices are read every minute; programs run at the first look and whenever a
//! size has changed. Whether a file system fills its device cannot be told from its size (it keeps
//! some for itself), but growing one that does changes nothing.

use std::{
    collections::HashMap,
    convert::Infallible,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

use crate::command::{CommandError, Commands, in_one_line, said};

const LOOK_EVERY: Duration = Duration::from_mins(1);
/// A resize of a large file system writes for a while.
const TIME_LIMIT: Duration = Duration::from_mins(5);
/// `/sys/class/block/*/size` and `start` count in these, whatever the device's own are.
const SECTOR: u64 = 512;
/// Volumes grow by a gibibyte at least; less at a disk's end is its table of partitions.
const SLACK: u64 = 64 << 20;

/// Why a file system is not as large as it could be.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("cannot see the disk of {}: {source}", path.display())]
    Look { path: PathBuf, source: io::Error },
    #[error("`{program}` {source}")]
    NotRun {
        program: &'static str,
        source: CommandError,
    },
    #[error("`{program}` failed: {said}")]
    Failed { program: &'static str, said: String },
}

pub(crate) struct Disks<C> {
    commands: C,
    /// `/proc` and `/sys`, or what stands for them in tests.
    proc: PathBuf,
    sys: PathBuf,
    /// The file systems that these lie on.
    paths: Vec<PathBuf>,
    /// The sizes of the disks to which partitions, and of the devices to which file systems were
    /// grown.
    grown: HashMap<PathBuf, u64>,
}

/// A mounted file system and the block device under it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    point: String,
    kind: String,
    /// Its folder below `/sys`.
    device: PathBuf,
}

impl<C: Commands> Disks<C> {
    pub(crate) fn new(commands: C, paths: Vec<PathBuf>) -> Self {
        Self {
            commands,
            proc: "/proc".into(),
            sys: "/sys".into(),
            paths,
            grown: HashMap::new(),
        }
    }

    /// For ever. What goes wrong is told through `trouble`; serving has nothing to do with it.
    pub(crate) async fn keep_grown(
        mut self,
        trouble: &watch::Sender<Option<String>>,
    ) -> Infallible {
        loop {
            let now = self
                .grow()
                .await
                .err()
                .map(|error| format!("a file system could not be grown: {error}"));
            trouble.send_if_modified(|before| {
                let news = *before != now;
                if news && let Some(trouble) = &now {
                    tracing::warn!("{trouble}");
                }
                *before = now;
                news
            });
            sleep(LOOK_EVERY).await;
        }
    }

    /// All of them; the first trouble is told.
    async fn grow(&mut self) -> Result<(), Trouble> {
        let mut seen: Vec<Mount> = Vec::new();
        let mut outcome = Ok(());
        for path in self.paths.clone() {
            let grown = match self.find_mount(&path) {
                Ok(Some(mount)) if !seen.contains(&mount) => {
                    let grown = self.grow_mount(&mount).await;
                    seen.push(mount);
                    grown
                }
                Ok(_) => Ok(()),
                Err(source) => Err(Trouble::Look { path, source }),
            };
            outcome = outcome.and(grown);
        }
        outcome
    }

    async fn grow_mount(&mut self, mount: &Mount) -> Result<(), Trouble> {
        let look = |source| Trouble::Look {
            path: mount.point.clone().into(),
            source,
        };
        if let Some(room) = partition_with_room(&mount.device).map_err(look)?
            && self.grown.get(&room.disk) != Some(&room.disk_size)
        {
            let disk = dev(&room.disk);
            tracing::info!(disk, number = room.number, "growing a partition");
            self.run("growpart", &[&disk, &room.number]).await?;
            self.grown.insert(room.disk, room.disk_size);
        }
        let size = read_number(&mount.device.join("size")).map_err(look)?;
        if self.grown.get(&mount.device) == Some(&size) {
            return Ok(());
        }
        let device = dev(&mount.device);
        match mount.kind.as_str() {
            "ext2" | "ext3" | "ext4" => self.run("resize2fs", &[&device]).await?,
            "xfs" => self.run("xfs_growfs", &[&mount.point]).await?,
            kind => tracing::warn!(
                kind,
                point = mount.point,
                "cannot grow this kind of file system"
            ),
        }
        self.grown.insert(mount.device.clone(), size);
        Ok(())
    }

    async fn run(&self, program: &'static str, args: &[&str]) -> Result<(), Trouble> {
        let outcome = self
            .commands
            .run(Path::new(program), args, TIME_LIMIT)
            .await;
        let output = outcome.map_err(|source| Trouble::NotRun { program, source })?;
        if output.status.success() || nothing_to_do(program, &output) {
            return Ok(());
        }
        Err(Trouble::Failed {
            program,
            said: in_one_line(&said(&output), 200),
        })
    }

    /// None: it lies on no block device (a container's overlay, a memory file system).
    fn find_mount(&self, path: &Path) -> io::Result<Option<Mount>> {
        let table = fs::read_to_string(self.proc.join("self/mountinfo"))?;
        let Some((number, point, kind)) = last_mount_above(&table, path) else {
            return Ok(None);
        };
        match fs::canonicalize(self.sys.join("dev/block").join(number)) {
            Ok(device) => Ok(Some(Mount {
                point,
                kind,
                device,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The mount that `path` is on: device number, mount point, kind of file system
/// (proc_pid_mountinfo(5)).
fn last_mount_above(table: &str, path: &Path) -> Option<(String, String, String)> {
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let point = unescape(left.get(4)?);
        let kind = right.split(' ').next()?;
        Some(((*left.get(2)?).to_owned(), point, kind.to_owned()))
    };
    table
        .lines()
        .filter_map(parse)
        .filter(|(_, point, _)| path.starts_with(point))
        // The longest; of those mounted over each other, the last.
        .max_by_key(|(_, point, _)| Path::new(point).components().count())
}

/// Blanks and their like are written as octal numbers.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

/// A partition that ends well before its disk does.
struct Room {
    number: String,
    disk: PathBuf,
    disk_size: u64,
}

fn partition_with_room(device: &Path) -> io::Result<Option<Room>> {
    let number = match fs::read_to_string(device.join("partition")) {
        Ok(number) => number.trim().to_owned(),
        // A whole disk.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(disk) = device.parent() else {
        return Ok(None);
    };
    let end = read_number(&device.join("start"))? + read_number(&device.join("size"))?;
    let disk_size = read_number(&disk.join("size"))?;
    let room = disk_size.saturating_sub(end) * SECTOR;
    Ok((room > SLACK).then(|| Room {
        number,
        disk: disk.to_owned(),
        disk_size,
    }))
}

fn read_number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(io::Error::other)
}

fn dev(device: &Path) -> String {
    let name = device
        .file_name()
        .unwrap_or(OsStr::new(""))
        .to_string_lossy();
    // A slash of the device's name is an exclamation mark there.
    format!("/dev/{}", name.replace('!', "/"))
}

/// growpart(1) fails when another partition follows, and that will not change.
fn nothing_to_do(program: &str, output: &Output) -> bool {
    program == "growpart" && String::from_utf8_lossy(&output.stdout).contains("NOCHANGE")
}

#[cfg(test)]
mod tests;
