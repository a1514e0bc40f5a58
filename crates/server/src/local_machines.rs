//! Machines that are processes on this computer, for `dev` and for `work` with provider `local`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use cp_pg::{Binaries, Durability};
use cp_provider::local::{LocalCompute, LocalConfig, Runtime};
use cp_worker::WorkerConfig;
use tokio_util::sync::CancellationToken;

use crate::config::sections::Local;

const AGENT: &str = "insforge-agent";

/// How often dead agents are looked for, as systemd would on a real machine.
const RESUME_EVERY: Duration = Duration::from_secs(2);

/// Times of production, as far as processes on this computer are quicker.
pub fn pace(settings: WorkerConfig) -> WorkerConfig {
    WorkerConfig {
        boot_time: BOOT_TIME,
        missing_grace: MISSING_GRACE,
        launch_visibility: LAUNCH_VISIBILITY,
        recheck: RECHECK,
        ..settings
    }
}

/// How soon a launched machine is seen: its folder is there when the launch returns.
const LAUNCH_VISIBILITY: Duration = Duration::from_secs(1);
/// How often a waiting operation looks for its machine. A look reads a file.
const RECHECK: Duration = Duration::from_secs(5);
/// Until a new one is ready to become a project, for the size of the pool.
const BOOT_TIME: Duration = Duration::from_secs(5);

/// A folder that is not there is gone: no list lags behind here. Long enough that a second look
/// counts.
const MISSING_GRACE: Duration = Duration::from_secs(5);

/// `control_url`: where the machines find us from their next start on.
pub async fn open(local: &Local, control_url: &str) -> anyhow::Result<LocalCompute> {
    let binaries = Binaries::find().await?;
    let runtime = match &local.backend_command {
        Some(program) => Runtime::Command {
            program: program.clone(),
            args: Vec::new(),
        },
        None => Runtime::Builtin,
    };
    let config = LocalConfig {
        dir: local.data_dir.clone(),
        agent_binary: agent_binary(local)?,
        binaries,
        durability: Durability::Full,
        runtime,
        control_url: Some(control_url.to_owned()),
    };
    Ok(LocalCompute::open(config).await?)
}

/// Keeps the machines running that should run, until told to stop.
pub async fn keep_running(compute: LocalCompute, shutdown: CancellationToken) {
    loop {
        match shutdown.run_until_cancelled(compute.resume()).await {
            None => return,
            Some(Ok(0)) => {}
            Some(Ok(started)) => tracing::info!(started, "local machines started again"),
            Some(Err(error)) => tracing::warn!(%error, "a local machine could not be started"),
        }
        let pause = tokio::time::sleep(RESUME_EVERY);
        if shutdown.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

/// The agent's program: as configured, else beside our own.
pub fn agent_binary(local: &Local) -> anyhow::Result<PathBuf> {
    if let Some(path) = &local.agent_bin {
        if !path.is_file() {
            bail!(
                "local.agent_bin (INSFORGE_AGENT_BIN) names {}, which is no file",
                path.display()
            );
        }
        return std::path::absolute(path).context("the working directory cannot be read");
    }
    let own = std::env::current_exe().context("our own program cannot be found")?;
    beside(&own).with_context(|| {
        format!(
            "{AGENT} is not beside {}; build it with `cargo build -p cp-agent` (with --release if \
             this program was built so), or name it with INSFORGE_AGENT_BIN",
            own.display()
        )
    })
}

/// In the same folder, or in the one above: cargo keeps test programs in `deps/`.
fn beside(program: &Path) -> Option<PathBuf> {
    program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(AGENT))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_found_beside_the_program_and_beside_test_programs() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("insforge-cloud");
        assert_eq!(beside(&program), None);
        std::fs::write(dir.path().join(AGENT), "").unwrap();
        assert_eq!(beside(&program), Some(dir.path().join(AGENT)));
        let test = dir.path().join("deps/it-123");
        assert_eq!(beside(&test), Some(dir.path().join(AGENT)));
    }

    #[test]
    fn a_configured_agent_that_is_not_there_is_named() {
        let local = Local {
            agent_bin: Some("/nowhere/agent".into()),
            ..Local::default()
        };
        let error = agent_binary(&local).unwrap_err().to_string();
        assert!(error.contains("/nowhere/agent"), "{error}");
    }
}
