//! Signals, and whether a process that an earlier agent started still lives.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::time::sleep;

pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = pid_of(pid) {
        // Gone already is what we want.
        let _ = kill_process(pid, signal);
    }
}

pub(crate) fn signal_group(leader: u32, signal: Signal) {
    if let Some(leader) = pid_of(leader) {
        let _ = kill_process_group(leader, signal);
    }
}

/// Never 0 (our own group) nor 1 (kill -1 means everybody).
fn pid_of(pid: u32) -> Option<Pid> {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 1)?;
    Pid::from_raw(pid)
}

/// A locked file with the pid of the child whose standard input it is. The kernel frees the lock
/// when the child ends, however it ends, so a pid in a locked file is never somebody else's.
pub(crate) struct LifeLine {
    /// Holds the lock. Read-only: we and the provider kill, as root perhaps, whom the file names,
    /// so a backend that runs as another user must not be able to write it. Its mode keeps the
    /// backend from opening it anew.
    lock: File,
    name: File,
}

impl LifeLine {
    /// None: the last child is still alive.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        let name = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let lock = File::open(path)?;
        match lock.try_lock() {
            Ok(()) => {
                name.set_len(0)?;
                Ok(Some(Self { lock, name }))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The child's standard input.
    pub(crate) fn end_for_child(&self) -> io::Result<File> {
        self.lock.try_clone()
    }

    pub(crate) fn name(&self, pid: u32) -> io::Result<()> {
        self.name.write_all_at(format!("{pid}\n").as_bytes(), 0)
    }
}

/// Kills what an agent that crashed left on this life line, with its process group.
pub(crate) async fn kill_left_over(path: &Path) -> io::Result<()> {
    for _ in 0..100 {
        if !path.exists() || LifeLine::open(path)?.is_some() {
            return Ok(());
        }
        if let Ok(pid) = std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .parse()
        {
            tracing::info!(pid, "killing a backend that outlived its agent");
            signal_group(pid, Signal::KILL);
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        "a backend of an earlier agent does not end",
    ))
}

/// The command line of a process; none when it is gone. Linux by /proc, else by `ps`.
pub(crate) async fn command_line(pid: u32) -> Option<String> {
    if Path::new("/proc/self/cmdline").exists() {
        let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        return Some(String::from_utf8_lossy(&bytes).replace('\0', " "));
    }
    let output = tokio::process::Command::new("ps")
        .args(["-ww", "-o", "command=", "-p", &pid.to_string()])
        .output()
        .await
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_holds_its_life_line_but_cannot_write_who_is_to_be_killed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backend.lock");
        let line = LifeLine::open(&path).unwrap().expect("nobody holds it");
        let stdin = line.end_for_child().unwrap();
        line.name(4711).unwrap();
        drop(line);

        assert!(LifeLine::open(&path).unwrap().is_none(), "the child lives");
        assert!(stdin.write_all_at(b"1234", 0).is_err());
        assert!(stdin.set_len(0).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "4711\n");

        drop(stdin);
        assert!(LifeLine::open(&path).unwrap().is_some());
    }
}
