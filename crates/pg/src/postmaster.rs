//! Is the postmaster of a data folder alive? Read from `postmaster.pid`, then checked against
//! the process table, because after a crash of the machine the file names a pid that may belong
//! to anybody, another cluster's postmaster included.

use std::path::{Path, PathBuf};

use tokio::{fs, process::Command};

/// What `postmaster.pid` says (see miscadmin.h of Postgres for its lines).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lock {
    pub pid: u32,
    /// Absent in the first instants of a start.
    pub port: Option<u16>,
    pub ready: bool,
}

pub(crate) fn lock_file(dir: &Path) -> PathBuf {
    dir.join("postmaster.pid")
}

pub(crate) async fn read_lock(dir: &Path) -> Option<Lock> {
    parse(&fs::read_to_string(lock_file(dir)).await.ok()?)
}

fn parse(text: &str) -> Option<Lock> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    Some(Lock {
        pid: lines.first()?.parse().ok().filter(|pid| *pid > 1)?,
        port: lines.get(3).and_then(|port| port.parse().ok()),
        ready: lines.get(7).is_some_and(|status| *status == "ready"),
    })
}

/// The lock of a postmaster that is alive and serves `dir`.
pub(crate) async fn live(dir: &Path) -> Option<Lock> {
    let lock = read_lock(dir).await?;
    is_postmaster_of(lock.pid, dir).await.then_some(lock)
}

async fn is_postmaster_of(pid: u32, dir: &Path) -> bool {
    if Path::new("/proc/self/stat").exists() {
        is_postmaster_by_proc(pid, dir).await
    } else {
        is_postmaster_by_ps(pid, dir).await
    }
}

/// Linux: name and state from `/proc/PID/stat`, the folder from the working directory, which the
/// postmaster sets to its data folder, or from the arguments.
async fn is_postmaster_by_proc(pid: u32, dir: &Path) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")).await else {
        return false;
    };
    // `PID (comm) S …`; a zombie is dead, its parent just has not noticed yet.
    let Some((head, rest)) = stat.rsplit_once(')') else {
        return false;
    };
    let is_postgres = head.contains("(postgres") || head.contains("(postmaster");
    let is_dead = matches!(rest.trim_start().chars().next(), Some('Z' | 'X') | None);
    if !is_postgres || is_dead {
        return false;
    }
    match fs::read_link(format!("/proc/{pid}/cwd")).await {
        Ok(working) => working == real_path(dir).await,
        // Root in a container without CAP_SYS_PTRACE may not look there; the arguments are
        // readable by everybody.
        Err(_) => match fs::read(format!("/proc/{pid}/cmdline")).await {
            Ok(arguments) => {
                let line = String::from_utf8_lossy(&arguments).replace('\0', " ");
                names_folder(&line, dir).await
            }
            Err(_) => false,
        },
    }
}

/// Elsewhere: state and arguments as `ps` tells them.
pub(crate) async fn is_postmaster_by_ps(pid: u32, dir: &Path) -> bool {
    let output = Command::new("ps")
        .args(["-ww", "-o", "stat=,command=", "-p", &pid.to_string()])
        .output()
        .await;
    let Ok(output) = output else {
        return false;
    };
    let line = String::from_utf8_lossy(&output.stdout);
    let Some((state, arguments)) = line.trim().split_once(char::is_whitespace) else {
        return false;
    };
    !state.starts_with('Z') && arguments.contains("postgres") && names_folder(arguments, dir).await
}

/// `pg_ctl` starts `postgres -D FOLDER` and nothing behind it: all settings are in files.
async fn names_folder(arguments: &str, dir: &Path) -> bool {
    let real = real_path(dir).await;
    [dir, real.as_path()].iter().any(|dir| {
        arguments
            .trim_end()
            .ends_with(&format!(" -D {}", dir.display()))
    })
}

async fn real_path(dir: &Path) -> PathBuf {
    fs::canonicalize(dir)
        .await
        .unwrap_or_else(|_| dir.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_is_read_in_every_stage_of_a_start() {
        let early = parse("4711\n/data\n1700000000\n").unwrap();
        assert_eq!((early.pid, early.port, early.ready), (4711, None, false));
        let ready = parse("4711\n/data\n1700000000\n5999\n\n127.0.0.1\n  1 2\nready   \n").unwrap();
        assert_eq!(
            (ready.pid, ready.port, ready.ready),
            (4711, Some(5999), true)
        );
        assert_eq!(parse(""), None);
        assert_eq!(parse("-4711\n"), None);
    }

    #[tokio::test]
    async fn another_process_with_the_pid_is_not_the_postmaster() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            lock_file(dir.path()),
            format!(
                "{}\n{}\n0\n5999\n",
                std::process::id(),
                dir.path().display()
            ),
        )
        .await
        .unwrap();
        assert_eq!(live(dir.path()).await, None);
    }
}
