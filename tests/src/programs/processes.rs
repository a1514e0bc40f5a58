//! What runs on this computer, and how to end it.

use std::path::Path;
use std::process::{Command, Stdio};

/// A running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// Its arguments, with blanks between them.
    pub command: String,
    /// Its working directory; empty where the system does not tell.
    pub dir: String,
}

/// Those that name `path` in their command line or work in it. Ended ones that nobody has waited
/// for yet do not count.
pub(super) fn of(path: &Path) -> Vec<Process> {
    let path = path.to_string_lossy();
    all()
        .into_iter()
        .filter(|process| process.command.contains(&*path) || process.dir.starts_with(&*path))
        .collect()
}

fn all() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return listed_by_ps();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let dir = std::fs::read_link(format!("/proc/{pid}/cwd"))
                .map(|dir| dir.to_string_lossy().into_owned())
                .unwrap_or_default();
            Some(Process { pid, command, dir })
        })
        .filter(|process| !process.command.is_empty())
        .collect()
}

/// macOS has no `/proc`.
fn listed_by_ps() -> Vec<Process> {
    let output = Command::new("ps")
        .args(["-axww", "-o", "pid=,command="])
        .output()
        .expect("ps can be run");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            let (pid, command) = line.trim_start().split_once(' ')?;
            Some(Process {
                pid: pid.parse().ok()?,
                command: command.to_owned(),
                dir: String::new(),
            })
        })
        .collect()
}

/// `kill -9`. One that has ended already is no error.
pub fn kill(pid: u32) {
    signal(pid, "KILL");
}

pub(super) fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .stderr(Stdio::null())
        .status();
}
