//! Signals, and whether a process that an earlier agent started still lives.

use std::{
    fs::{File, OpenOptions},
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

/// A locked file to be a child's standard input. The kernel frees the lock when the child ends,
/// however it ends, so a pid in a locked file is never somebody else's. None: the last child is
/// still alive.
pub(crate) fn open_life_line(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            Ok(Some(file))
        }
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

pub(crate) fn name_life_line(file: &File, pid: u32) -> io::Result<()> {
    file.write_all_at(format!("{pid}\n").as_bytes(), 0)
}

/// Kills what an agent that crashed left on this life line, with its process group.
pub(crate) async fn kill_left_over(path: &Path) -> io::Result<()> {
    for _ in 0..100 {
        if !path.exists() || open_life_line(path)?.is_some() {
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
