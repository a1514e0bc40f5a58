//! The agent's tasks. One follows the control plane, one supervises the machine, one reports; the
//! end comes by a signal, or because the machine's folder is gone.

use std::{convert::Infallible, path::Path, time::Duration};

use anyhow::Context;
use cp_model::agent_protocol::{DesiredState, ReportRequest};
use cp_pg::RunAs;
use reqwest::Client;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::Launcher,
    backoff::Backoff,
    config::{Config, MachineDir, Runtime},
    control::{ControlError, ControlPlane},
    keep::{self, AgentToken},
    postgres::Postgres,
    supervise::{Observed, Supervisor},
};

const REPORT_EVERY: Duration = Duration::from_secs(20);
const LOOK_AT_FOLDER_EVERY: Duration = Duration::from_secs(1);
/// Between calls that the control plane refuses: a person must act first.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// Runs until SIGTERM, SIGINT or the end of the machine's folder.
pub async fn run(config: &Path) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let on_signal = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
        tracing::info!("stopping the backend and postgres");
        on_signal.cancel();
    });
    run_until(config, stop).await
}

/// Runs until `stop`. When it returns, neither backend nor Postgres runs.
pub async fn run_until(config: &Path, stop: CancellationToken) -> anyhow::Result<()> {
    let (config, dir) = Config::load(config)?;
    tracing::info!(machine = %config.machine_id, version = crate::VERSION, "agent started");
    let http = Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .pool_max_idle_per_host(1)
        // Loopback and one known host; a proxy of the environment is for neither.
        .no_proxy()
        .build()
        .context("cannot make an HTTP client")?;
    let token = keep::agent_token(&dir).context("cannot keep the agent's token")?;
    let desired = keep::desired(&dir).context("cannot read the last desired state")?;
    let launcher = Launcher::new(&config.runtime, RunAs::detect().await?, &dir, config.port)
        .context("cannot prepare the backend's folders")?;
    launcher.clear().await?;

    let generation = desired.as_ref().map_or(0, |desired| desired.generation);
    let (desired_in, desired_out) = watch::channel(desired);
    let (observed_in, observed_out) = watch::channel(Observed::starting(generation));
    let control = ControlPlane::new(http.clone(), &config.control_url);
    let migrates = config.runtime == Runtime::Builtin;
    let link = Link {
        machine_id: config.machine_id,
        bootstrap_token: config.bootstrap_token,
        control,
        dir: dir.clone(),
    };
    let supervisor = Supervisor {
        postgres: Postgres::open(config.postgres, &dir).await?,
        launcher,
        migrates,
        port: config.port,
        http,
        desired: desired_out,
        observed: observed_in,
        running: None,
        prepared: false,
    };
    tokio::select! {
        // Ends by `stop`, and the others with it.
        () = supervisor.run(stop.clone()) => Ok(()),
        never = link.keep(token, desired_in, observed_out) => match never {},
        never = watch_folder(&dir, &stop) => match never {},
    }
}

async fn watch_folder(dir: &MachineDir, stop: &CancellationToken) -> Infallible {
    while dir.is_still_ours() {
        sleep(LOOK_AT_FOLDER_EVERY).await;
    }
    tracing::warn!("the machine's folder is gone, so the machine is");
    stop.cancel();
    std::future::pending().await
}

/// The link to the control plane.
struct Link {
    machine_id: cp_model::MachineId,
    bootstrap_token: secrecy::SecretString,
    control: ControlPlane,
    dir: MachineDir,
}

impl Link {
    async fn keep(
        &self,
        mut token: AgentToken,
        desired: watch::Sender<Option<DesiredState>>,
        mut observed: watch::Receiver<Observed>,
    ) -> Infallible {
        if !token.registered {
            // A machine that registers is taken for warm, so be warm first (or know why not).
            let _ = observed.changed().await;
            self.register(&token.token).await;
            token.registered = true;
            if let Err(error) = keep::save_agent_token(&self.dir, &token) {
                tracing::warn!(%error, "cannot note the registration; will register again");
            }
        }
        tokio::select! {
            never = self.follow(&token.token, desired) => never,
            never = self.report(&token.token, observed) => never,
        }
    }

    async fn register(&self, token: &str) {
        let mut pace = Pace::new("register");
        loop {
            let call = self
                .control
                .register(self.machine_id, &self.bootstrap_token, token);
            match call.await {
                Ok(()) => {
                    tracing::info!("registered");
                    return;
                }
                Err(error) => pace.after(&error).await,
            }
        }
    }

    /// Hands on each newer desired state, and keeps it for a reboot. Handed on first, since
    /// somebody waits; one that is lost before it is on disk is sent again.
    async fn follow(
        &self,
        token: &str,
        desired: watch::Sender<Option<DesiredState>>,
    ) -> Infallible {
        let mut pace = Pace::new("ask for the desired state");
        loop {
            let generation = desired
                .borrow()
                .as_ref()
                .map_or(0, |known| known.generation);
            match self.control.desired(token, generation).await {
                Ok(None) => pace.well(),
                Ok(Some(newer)) if newer.generation > generation => {
                    pace.well();
                    tracing::info!(generation = newer.generation, "something else is desired");
                    desired.send_replace(Some(newer.clone()));
                    // Lets the supervisor begin before this thread waits for the disk.
                    tokio::task::yield_now().await;
                    if let Err(error) = keep::save_desired(&self.dir, &newer) {
                        tracing::warn!(%error, "cannot keep the desired state for a reboot");
                    }
                }
                // Not newer, against the protocol. Asking again at once would be a busy loop.
                Ok(Some(_)) => sleep(Duration::from_secs(1)).await,
                Err(error) => pace.after(&error).await,
            }
        }
    }

    /// Each change, and a sign of life at least every 20 seconds.
    async fn report(&self, token: &str, mut observed: watch::Receiver<Observed>) -> Infallible {
        let mut pace = Pace::new("report");
        loop {
            let seen = observed.borrow_and_update().clone();
            let report = ReportRequest {
                generation: seen.generation,
                state: seen.state,
                restarts: seen.restarts,
                backend_version: seen.backend_version,
                message: seen.message,
                agent_version: crate::VERSION.to_owned(),
            };
            match self.control.report(token, &report).await {
                Ok(()) => {
                    pace.well();
                    // Either way there is something to say.
                    let _ = timeout(REPORT_EVERY, observed.changed()).await;
                }
                Err(error) => pace.after(&error).await,
            }
        }
    }
}

/// How fast to try again, and logging a trouble once, not at each try.
struct Pace {
    what: &'static str,
    backoff: Backoff,
    in_trouble: bool,
}

impl Pace {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(5)),
            in_trouble: false,
        }
    }

    fn well(&mut self) {
        if self.in_trouble {
            tracing::info!("can {} again", self.what);
        }
        self.in_trouble = false;
        self.backoff.reset();
    }

    async fn after(&mut self, error: &ControlError) {
        if !self.in_trouble {
            tracing::warn!(%error, "cannot {}; trying again and serving on meanwhile", self.what);
        }
        self.in_trouble = true;
        let pause = self.backoff.next();
        match error {
            ControlError::Refused(_) => sleep(pause.max(REFUSED_PAUSE)).await,
            ControlError::Away(_) => sleep(pause).await,
        }
    }
}
