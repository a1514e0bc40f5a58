//! The agent's tasks. One follows the control plane, one supervises the machine, one reports; the
//! end comes by a signal, or because the machine's folder is gone.

use std::{convert::Infallible, path::Path, pin::Pin, time::Duration};

use anyhow::Context;
use cp_model::agent_protocol::{DesiredState, MachineSample, ReportRequest};
use cp_pg::RunAs;
use reqwest::{Client, StatusCode};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::Launcher,
    backoff::Backoff,
    command::Programs,
    compose::{self, Limits},
    config::{Config, MachineDir, Program, Runtime},
    control::{ControlError, ControlPlane},
    disk::Disks,
    keep::{self, AgentToken},
    meter::Meter,
    observed::{Observed, message},
    postgres::Postgres,
    supervise::Supervisor,
};

const REPORT_EVERY: Duration = Duration::from_secs(20);
const LOOK_AT_FOLDER_EVERY: Duration = Duration::from_secs(1);
/// Between calls that the control plane refuses: a person must act first.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// Looks after the machine until it is told to stop.
type Supervise = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs until SIGTERM, SIGINT or the end of the machine's folder.
pub async fn run(config: &Path) -> anyhow::Result<()> {
    run_within(config, Limits::default()).await
}

pub(crate) async fn run_within(config: &Path, limits: Limits) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let on_signal = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
        tracing::info!("the agent is ending");
        on_signal.cancel();
    });
    run_until(config, limits, stop).await
}

/// Runs until `stop`. When it returns, neither backend nor Postgres runs, if they are processes;
/// containers run on.
pub(crate) async fn run_until(
    config: &Path,
    limits: Limits,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (config, dir) = Config::load(config)?;
    tracing::info!(machine = %config.machine_id, version = crate::VERSION, "agent started");
    let http = Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .pool_max_idle_per_host(1)
        // Loopback and one known host; a proxy of the environment is for neither.
        .no_proxy()
        .build()
        .context("cannot make an HTTP client")?;
    let token =
        keep::agent_token(&dir, config.machine_id).context("cannot keep the agent's token")?;
    let desired = keep::desired(&dir).context("cannot read the last desired state")?;

    let generation = desired.as_ref().map_or(0, |desired| desired.generation);
    let (desired_in, desired_out) = watch::channel(desired);
    let (observed_in, observed_out) = watch::channel(Observed::starting(generation));
    let (trouble_in, trouble_out) = watch::channel(None);
    let (samples_in, samples) = watch::channel(None);
    let link = Link {
        machine_id: config.machine_id,
        bootstrap_token: config.bootstrap_token,
        control: ControlPlane::new(http.clone(), &config.control_url),
        dir: dir.clone(),
        token_lifetime: limits.token_lifetime,
        refused: Notify::new(),
    };
    let sample_every = limits.sample_every;
    let (desired, observed) = (desired_out, observed_in);
    let supervise: Supervise = match config.runtime {
        Runtime::Processes { postgres, program } => {
            let launcher = Launcher::new(&program, RunAs::detect().await?, &dir, config.port)
                .context("cannot prepare the backend's folders")?;
            launcher.clear().await?;
            let supervisor = Supervisor {
                postgres: Postgres::open(postgres, &dir).await?,
                launcher,
                migrates: program == Program::Builtin,
                port: config.port,
                http,
                desired,
                observed,
                running: None,
                prepared: false,
            };
            Box::pin(supervisor.run(stop.clone()))
        }
        Runtime::Compose(compose) => {
            let paths = if compose.grow_file_systems {
                vec!["/".into(), compose.data_dir.clone()]
            } else {
                Vec::new()
            };
            let disks = Disks::new(Programs, paths);
            let supervisor = compose::Supervisor::open(
                compose,
                limits,
                &dir,
                config.port,
                http,
                desired,
                observed,
            )
            .context("cannot read what is kept of the containers")?;
            let until_stop = supervisor.run(stop.clone());
            Box::pin(async move {
                tokio::select! {
                    () = until_stop => {}
                    never = disks.keep_grown(&trouble_in) => match never {},
                }
            })
        }
    };
    let measured = measure(&dir, sample_every, samples_in);
    tokio::select! {
        // Ends by `stop`, and the others with it.
        () = supervise => Ok(()),
        never = link.keep(token, desired_in, Sights { observed: observed_out, trouble: trouble_out, samples }) => match never {},
        never = watch_folder(&dir, &stop) => match never {},
        never = measured => match never {},
    }
}

/// A computer that does not tell how busy it is runs backends all the same.
async fn measure(
    dir: &MachineDir,
    every: Duration,
    samples: watch::Sender<Option<MachineSample>>,
) -> Infallible {
    match Meter::new(&dir.file("")) {
        Ok(meter) => meter.keep(every, samples).await,
        Err(error) => {
            tracing::warn!(%error, "this computer does not tell how busy it is; there are no metrics");
            std::future::pending().await
        }
    }
}

/// What is reported.
struct Sights {
    observed: watch::Receiver<Observed>,
    trouble: watch::Receiver<Option<String>>,
    samples: watch::Receiver<Option<MachineSample>>,
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
    token_lifetime: Duration,
    /// The token was refused.
    refused: Notify,
}

impl Link {
    async fn keep(
        &self,
        mut token: AgentToken,
        desired: watch::Sender<Option<DesiredState>>,
        mut sights: Sights,
    ) -> Infallible {
        if !token.registered {
            // A machine that registers is taken for warm, so be warm first (or know why not).
            let _ = sights.observed.changed().await;
            self.register(&token.token).await;
            token.registered = true;
            if let Err(error) = keep::save_agent_token(&self.dir, &token) {
                tracing::warn!(%error, "cannot note the registration; will register again");
            }
        }
        let current = watch::Sender::new(token.token.clone());
        tokio::select! {
            never = self.follow(&current, desired) => never,
            never = self.report(&current, sights) => never,
            never = self.renew(&current, token) => never,
        }
    }

    /// A token that leaked is good until its agent has another one.
    async fn renew(&self, current: &watch::Sender<String>, mut token: AgentToken) -> Infallible {
        let mut pace = Pace::new("renew the token");
        loop {
            let is_new = token.next.is_none();
            if is_new {
                tokio::select! {
                    () = sleep(token.renewed_in(self.token_lifetime)) => {}
                    () = self.refused.notified() => {
                        self.go_back(&token).await;
                        sleep(REFUSED_PAUSE).await;
                        continue;
                    }
                }
            }
            // On disk before it is asked for: what the control plane takes must not be lost. One that
            // was asked for before is there.
            let next = token.next();
            if is_new && let Err(error) = keep::save_agent_token(&self.dir, &token) {
                tracing::warn!(%error, "cannot keep a new token; the old one stays");
                token.next = None;
                sleep(REFUSED_PAUSE).await;
                continue;
            }
            match self.control.renew(&token.token, &next).await {
                Ok(()) => tracing::info!("the token is renewed"),
                // Refused, since the next one was taken long ago and its answer lost? Then that is
                // the good one; and if not, neither is.
                Err(ControlError::Refused(StatusCode::UNAUTHORIZED)) => {
                    tracing::warn!("the token is not good any more; the next one may be");
                }
                Err(error) => {
                    pace.after(&error).await;
                    continue;
                }
            }
            pace.well();
            token.step();
            if let Err(error) = keep::save_agent_token(&self.dir, &token) {
                tracing::warn!(%error, "cannot note the renewal; it is found out at the next start");
            }
            current.send_replace(token.token.clone());
        }
    }

    /// The control plane does not know the token. One whose database was set back to before the last
    /// renewal knows the one before, and takes this one for it again.
    async fn go_back(&self, token: &AgentToken) {
        let Some(previous) = &token.previous else {
            return;
        };
        match self.control.renew(previous, &token.token).await {
            Ok(()) => tracing::warn!("the control plane had forgotten the last renewal"),
            Err(error) => tracing::debug!(%error, "nor does it know the token before"),
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
        token: &watch::Sender<String>,
        desired: watch::Sender<Option<DesiredState>>,
    ) -> Infallible {
        let mut pace = Pace::new("ask for the desired state");
        loop {
            let generation = desired
                .borrow()
                .as_ref()
                .map_or(0, |known| known.generation);
            let token = token.borrow().clone();
            match self.control.desired(&token, generation).await {
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
                Err(error) => {
                    self.note_refusal(&error);
                    pace.after(&error).await;
                }
            }
        }
    }

    fn note_refusal(&self, error: &ControlError) {
        if matches!(error, ControlError::Refused(StatusCode::UNAUTHORIZED)) {
            self.refused.notify_one();
        }
    }

    /// Each change, and a sign of life at least every 20 seconds.
    async fn report(&self, token: &watch::Sender<String>, mut sights: Sights) -> Infallible {
        let mut pace = Pace::new("report");
        let mut sample = None;
        loop {
            let seen = sights.observed.borrow_and_update().clone();
            let trouble_seen = sights.trouble.borrow_and_update().clone();
            if sights.samples.has_changed().unwrap_or(false) {
                sample = *sights.samples.borrow_and_update();
            }
            let said: Vec<String> = seen.message.into_iter().chain(trouble_seen).collect();
            let report = ReportRequest {
                generation: seen.generation,
                state: seen.state,
                restarts: seen.restarts,
                backend_version: seen.backend_version,
                backend_release: seen.backend_release,
                rolled_back_from: seen.rolled_back_from,
                message: (!said.is_empty()).then(|| message(&said.join("; "))),
                agent_version: crate::VERSION.to_owned(),
                sample,
            };
            let token = token.borrow().clone();
            match self.control.report(&token, &report).await {
                Ok(()) => {
                    pace.well();
                    sample = None;
                    // Either way there is something to say.
                    tokio::select! {
                        _ = sights.observed.changed() => {}
                        Ok(()) = sights.trouble.changed() => {}
                        Ok(()) = sights.samples.changed() => sample = *sights.samples.borrow(),
                        () = sleep(REPORT_EVERY) => {}
                    }
                }
                Err(error) => {
                    self.note_refusal(&error);
                    pace.after(&error).await;
                }
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
