//! Ending a machine's processes: the agent, a backend that outlived it, Postgres.

use std::{path::Path, time::Duration};

use cp_pg::{Binaries, Cluster, StopMode};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::time::{Instant, sleep};

use super::{from_pg, layout::MachineDir, lock::Holder};
use crate::ProviderError;

/// What an agent may take to end its backend and Postgres.
const GRACE: Duration = Duration::from_secs(12);
/// What the kernel may take to end a killed process.
const KILLED: Duration = Duration::from_secs(3);
const POSTGRES: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    /// Everybody may finish.
    Clean,
    /// The disk goes too, so nothing is worth finishing.
    AtOnce,
}

/// Ok when nothing runs any more, also when nothing ran.
pub(super) async fn halt(
    dir: &MachineDir,
    binaries: &Binaries,
    haste: Haste,
) -> Result<(), ProviderError> {
    if haste == Haste::Clean
        && let Holder::Process(agent) = dir.agent()
    {
        signal(agent, Signal::TERM);
        until_nobody(|| dir.agent(), GRACE).await;
    }
    // The agent leads a process group, and so does a backend that is a command.
    for look in [MachineDir::agent, MachineDir::backend] {
        if let Holder::Process(leader) = look(dir) {
            tracing::debug!(machine = %dir.id(), pid = leader, "killing what did not end");
            signal_group(leader, Signal::KILL);
            until_nobody(|| look(dir), KILLED).await;
        }
    }
    if dir.agent() != Holder::Nobody {
        return Err(ProviderError::Transient(format!(
            "the agent of machine {} does not end",
            dir.id()
        )));
    }
    stop_postgres(dir, binaries, haste).await
}

async fn stop_postgres(
    dir: &MachineDir,
    binaries: &Binaries,
    haste: Haste,
) -> Result<(), ProviderError> {
    if !dir.pgdata().join("postmaster.pid").exists() {
        return Ok(());
    }
    // Stopping needs no port.
    let cluster = match Cluster::open(binaries, dir.pgdata(), 1).await {
        Ok(cluster) => cluster,
        // Only parts are left; there is nothing to stop cleanly.
        Err(error) if haste == Haste::AtOnce => {
            tracing::debug!(%error, machine = %dir.id(), "no cluster to stop");
            return Ok(());
        }
        Err(error) => return Err(from_pg(error)),
    };
    if haste == Haste::Clean && cluster.stop(StopMode::Fast, POSTGRES).await.is_ok() {
        return Ok(());
    }
    cluster
        .stop(StopMode::Immediate, POSTGRES)
        .await
        .map_err(from_pg)
}

/// A machine's folder was deleted by hand: no file names its processes any more. They end by
/// themselves within seconds; whoever terminates wants it now.
pub(super) async fn kill_strays(dir: &Path) {
    let config = dir.join("agent.json");
    let pgdata = dir.join("pgdata");
    for (pid, command) in processes().await {
        let has = |path: &Path| path.to_str().is_some_and(|path| command.contains(path));
        if has(&config) && command.contains("--config") {
            tracing::debug!(pid, "killing a stray agent");
            signal_group(pid, Signal::KILL);
        } else if has(&pgdata) && command.contains("-D") {
            tracing::debug!(pid, "ending a stray postgres");
            // To Postgres, an immediate shutdown.
            signal(pid, Signal::QUIT);
        }
    }
}

/// Process ids with their command lines; empty when they cannot be had. `ps -axo` is in Linux
/// (procps, busybox knows it too) and macOS.
async fn processes() -> Vec<(u32, String)> {
    if let Ok(entries) = std::fs::read_dir("/proc")
        && Path::new("/proc/self/cmdline").exists()
    {
        let command_line = |pid: u32| {
            let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            Some((pid, String::from_utf8_lossy(&bytes).replace('\0', " ")))
        };
        return entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(command_line)
            .collect();
    }
    let output = tokio::process::Command::new("ps")
        .args(["-axww", "-o", "pid=,command="])
        .output()
        .await;
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| {
            let (pid, command) = line.trim_start().split_once(' ')?;
            Some((pid.parse().ok()?, command.to_owned()))
        })
        .collect()
}

async fn until_nobody(look: impl Fn() -> Holder, within: Duration) {
    let deadline = Instant::now() + within;
    while look() != Holder::Nobody && Instant::now() < deadline {
        sleep(POLL).await;
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = pid_of(pid) {
        // Gone already is what we want.
        let _ = kill_process(pid, signal);
    }
}

fn signal_group(leader: u32, signal: Signal) {
    if let Some(leader) = pid_of(leader) {
        let _ = kill_process_group(leader, signal);
    }
}

/// Never 0 (our own group) nor 1 (kill -1 means everybody).
fn pid_of(pid: u32) -> Option<Pid> {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 1)?;
    Pid::from_raw(pid)
}

#[cfg(test)]
pub(super) fn kill_group_for_tests(leader: u32) {
    signal_group(leader, Signal::KILL);
}

#[cfg(test)]
pub(super) fn group_exists_for_tests(leader: u32) -> bool {
    pid_of(leader).is_some_and(|leader| rustix::process::test_kill_process_group(leader).is_ok())
}
