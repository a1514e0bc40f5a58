//! Makes a machine of plain processes match the desired state: Postgres runs, the right backend
//! runs, or none (the machine is warm, or its database is to run alone). One loop: reconcile, then wait until something changed (the desired state, an exit, a failed look).

use std::time::Duration;

use cp_model::agent_protocol::{DesiredBackend, DesiredState, ObservedState};
use reqwest::Client;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::{Backend, Launcher, describe_end},
    backoff::Backoff,
    observed::Observed,
    postgres::{self, Postgres, PostgresError},
    probe::{NotServing, probe},
};

/// How long a backend may take until it serves: the real server migrates before it listens.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// While it starts. Short: somebody is waiting for their project.
const QUICK_LOOK: Duration = Duration::from_millis(20);
/// After the first seconds of a start.
const SLOW_LOOK: Duration = Duration::from_millis(200);
const POSTGRES_LOOK: Duration = Duration::from_secs(2);
const SERVING_LOOK: Duration = Duration::from_secs(10);
/// So many failed looks in a row, and the backend is restarted.
const FAILED_LOOKS: u32 = 3;
/// A backend that served so long may fail at once again without being made to wait.
const SETTLED: Duration = Duration::from_secs(30);

/// Why the desired state was not reached this time. The text is reported.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Postgres(#[from] PostgresError),
    #[error("cannot prepare the database: {0}")]
    Migrate(#[from] cp_devbackend::Error),
    #[error("cannot start the backend: {0}")]
    Spawn(#[from] std::io::Error),
    #[error("{0}")]
    Ended(String),
    #[error("{0}, {seconds} seconds after its start", seconds = START_TIMEOUT.as_secs())]
    NotServing(NotServing),
}

pub(crate) struct Supervisor {
    pub postgres: Postgres,
    pub launcher: Launcher,
    /// The backend's schema is ours: applied before a project comes.
    pub migrates: bool,
    pub port: u16,
    pub http: Client,
    pub desired: watch::Receiver<Option<DesiredState>>,
    pub observed: watch::Sender<Observed>,
    pub running: Option<Running>,
    /// Set when the machine is as warm as it gets.
    pub prepared: bool,
}

pub(crate) struct Running {
    backend: Backend,
    started_from: DesiredBackend,
    serving_since: Option<Instant>,
    version: Option<String>,
}

impl Supervisor {
    /// Until `stop`; then nothing runs any more.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        while !stop.is_cancelled() {
            let desired = self.desired.borrow_and_update().clone();
            let outcome = tokio::select! {
                () = stop.cancelled() => break,
                outcome = self.reconcile(desired.as_ref()) => outcome,
            };
            let pause = match outcome {
                Ok(()) => tokio::select! {
                    () = stop.cancelled() => break,
                    pause = self.until_something_changes(&mut backoff) => pause,
                },
                Err(failure) => {
                    tracing::warn!(error = %failure, "the desired state is not reached");
                    self.observe_failure(desired.as_ref(), &failure);
                    backoff.next()
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                // Something else is desired: no reason to wait for the old.
                _ = self.desired.changed(), if !pause.is_zero() => {}
                () = sleep(pause) => {}
            }
        }
        self.stop_backend().await;
        self.postgres.stop().await;
    }

    async fn reconcile(&mut self, desired: Option<&DesiredState>) -> Result<(), Failure> {
        self.postgres.ensure().await?;
        let generation = desired.map_or(0, |desired| desired.generation);
        match desired.and_then(|desired| desired.backend.as_ref()) {
            None => self.stay_warm(generation).await,
            Some(backend) if backend.database_only => {
                self.run_database_alone(generation, backend).await
            }
            Some(backend) => self.serve(generation, backend).await,
        }
    }

    async fn stay_warm(&mut self, generation: i64) -> Result<(), Failure> {
        self.stop_backend().await;
        if !self.prepared {
            self.postgres.prepare().await?;
            if self.migrates {
                cp_devbackend::migrate(&self.postgres.url(postgres::DATABASE)?).await?;
            }
            self.prepared = true;
        }
        self.observed.send_replace(Observed::idle(generation));
        Ok(())
    }

    async fn run_database_alone(
        &mut self,
        generation: i64,
        desired: &DesiredBackend,
    ) -> Result<(), Failure> {
        let alone = Observed::database_only(generation, desired.restarts);
        if self.observed.borrow().state != alone.state
            || self.observed.borrow().restarts != alone.restarts
        {
            self.observed.send_replace(Observed {
                restarts: desired.restarts,
                ..Observed::starting(generation)
            });
        }
        self.stop_backend().await;
        // Whatever it has of the schema by now is thrown away, or restored over.
        self.prepared = false;
        self.postgres.adapt_alone(desired).await?;
        self.observed.send_replace(alone);
        Ok(())
    }

    async fn serve(&mut self, generation: i64, desired: &DesiredBackend) -> Result<(), Failure> {
        let runs_already = self.running.as_mut().is_some_and(|running| {
            is_same(&running.started_from, desired) && running.backend.has_ended().is_none()
        });
        if !runs_already {
            self.observed.send_replace(Observed {
                restarts: desired.restarts,
                ..Observed::starting(generation)
            });
            self.stop_backend().await;
            self.postgres.adapt(desired).await?;
            let url = self.postgres.url(postgres::database_of(desired))?;
            let environment = self
                .launcher
                .environment(desired, self.postgres.port(), &url);
            self.running = Some(Running {
                backend: self.launcher.spawn(&environment)?,
                started_from: desired.clone(),
                serving_since: None,
                version: None,
            });
        }
        if !self.until_serving(desired).await? {
            // Something else is desired by now; `run` takes it up.
            return Ok(());
        }
        let version = self
            .running
            .as_ref()
            .and_then(|running| running.version.clone());
        self.observed.send_replace(Observed {
            state: ObservedState::Serving,
            restarts: desired.restarts,
            backend_version: version,
            ..Observed::starting(generation)
        });
        Ok(())
    }

    /// False when the desired state changed meanwhile.
    async fn until_serving(&mut self, desired: &DesiredBackend) -> Result<bool, Failure> {
        let Some(running) = &mut self.running else {
            return Ok(false);
        };
        if running.serving_since.is_some() {
            return Ok(true);
        }
        let begin = Instant::now();
        loop {
            if let Some(status) = running.backend.has_ended() {
                self.running = None;
                return Err(Failure::Ended(describe_end(status)));
            }
            let why = match probe(&self.http, self.port, desired).await {
                Ok(version) => {
                    tracing::info!(
                        milliseconds = begin.elapsed().as_millis(),
                        "the backend serves"
                    );
                    running.version = version;
                    running.serving_since = Some(Instant::now());
                    return Ok(true);
                }
                Err(why) => why,
            };
            if self.desired.has_changed().unwrap_or(false) {
                return Ok(false);
            }
            if begin.elapsed() > START_TIMEOUT {
                // An instance whose first seeding failed accepts no key until it is restarted.
                self.stop_backend().await;
                return Err(Failure::NotServing(why));
            }
            let quick = begin.elapsed() < Duration::from_secs(5);
            sleep(if quick { QUICK_LOOK } else { SLOW_LOOK }).await;
        }
    }

    /// Returns how long to pause before the next reconciliation.
    async fn until_something_changes(&mut self, backoff: &mut Backoff) -> Duration {
        let mut failed_looks = 0;
        let mut looked = Instant::now();
        loop {
            tokio::select! {
                _ = self.desired.changed() => return Duration::ZERO,
                status = ended(self.running.as_mut()) => {
                    tracing::warn!("{}", status);
                    return self.note_end(backoff);
                }
                () = sleep(POSTGRES_LOOK) => {}
            }
            if !self.postgres.is_running().await {
                tracing::warn!("postgres is down");
                self.observe_trouble();
                if let Some(running) = &mut self.running {
                    // To be looked at again before it is called serving.
                    running.serving_since = None;
                }
                return Duration::ZERO;
            }
            let Some(running) = &self.running else {
                continue;
            };
            if looked.elapsed() < SERVING_LOOK {
                continue;
            }
            looked = Instant::now();
            match probe(&self.http, self.port, &running.started_from).await {
                Ok(_) => failed_looks = 0,
                Err(error) => {
                    failed_looks += 1;
                    tracing::warn!(%error, failed_looks, "the backend does not serve");
                }
            }
            if failed_looks == FAILED_LOOKS {
                self.stop_backend().await;
                return self.note_end(backoff);
            }
        }
    }

    /// A backend that served has ended. Long served: start it again at once.
    fn note_end(&mut self, backoff: &mut Backoff) -> Duration {
        let served = self
            .running
            .take()
            .and_then(|running| running.serving_since);
        if served.is_some_and(|since| since.elapsed() > SETTLED) {
            backoff.reset();
        }
        self.observe_trouble();
        backoff.next()
    }

    /// Not there any more, and working to be there again.
    fn observe_trouble(&self) {
        self.observed.send_modify(|observed| {
            observed.state = ObservedState::Starting;
            observed.backend_version = None;
        });
    }

    fn observe_failure(&self, desired: Option<&DesiredState>, failure: &Failure) {
        let backend = desired.and_then(|desired| desired.backend.as_ref());
        self.observed.send_replace(Observed::failing(
            desired.map_or(0, |desired| desired.generation),
            backend.map_or(0, |backend| backend.restarts),
            failure,
        ));
    }

    async fn stop_backend(&mut self) {
        if let Some(running) = &mut self.running {
            running.backend.stop().await;
        }
        self.running = None;
    }
}

/// Never resolves when nothing runs.
async fn ended(running: Option<&mut Running>) -> String {
    match running {
        Some(running) => match running.backend.ended().await {
            Ok(status) => describe_end(status),
            Err(error) => format!("the backend cannot be watched: {error}"),
        },
        None => std::future::pending().await,
    }
}

/// Whether a backend started from `one` is what `other` desires.
fn is_same(one: &DesiredBackend, other: &DesiredBackend) -> bool {
    one.project_id == other.project_id
        && one.restarts == other.restarts
        && one.release == other.release
        && one.database_password == other.database_password
        && one.env == other.env
}
