//! Makes the containers match the desired state. One loop, as for plain processes: reconcile,
//! then wait until something changed. What it finds is its own and docker's memory of an earlier
//! agent's work, so each step first looks whether it is done.

mod database;
mod start;

use std::{convert::Infallible, io, time::Duration};

use cp_model::{
    ProjectId,
    agent_protocol::{DesiredBackend, DesiredState, ObservedState},
};
use reqwest::Client;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use self::start::Reached;
use super::{
    Limits,
    docker::Docker,
    failure::Failure,
    files::Files,
    images::ImageStore,
    memory::Memory,
    notes::{GivenUp, Notes},
    release::{self, Target},
    stack::Stack,
};
use crate::{
    backoff::Backoff,
    config::{ComposeConfig, MachineDir},
    observed::{Observed, message},
    probe::{NotServing, probe},
};

/// So many failed looks in a row, and the backend is restarted.
const FAILED_LOOKS: u32 = 3;
/// Is a warm machine's docker still up?
const WARM_LOOK: Duration = Duration::from_mins(1);

pub(crate) struct Supervisor {
    config: ComposeConfig,
    limits: Limits,
    port: u16,
    http: Client,
    docker: Docker,
    images: ImageStore,
    files: Files,
    notes: Notes,
    memory: Memory,
    desired: watch::Receiver<Option<DesiredState>>,
    observed: watch::Sender<Observed>,
    /// Nothing of another project is on this machine.
    is_clean: bool,
    /// What is looked at from time to time: a backend that serves, or its database alone.
    reached: Option<DesiredBackend>,
    /// What this agent has noted as begun.
    begun: Option<Stack>,
    /// A look at it failed for too long: `docker compose up` alone would change nothing.
    must_restart: bool,
    /// The release after which old images were removed.
    tidied: Option<String>,
}

impl Supervisor {
    pub(crate) fn open(
        config: ComposeConfig,
        limits: Limits,
        dir: &MachineDir,
        port: u16,
        http: Client,
        desired: watch::Receiver<Option<DesiredState>>,
        observed: watch::Sender<Observed>,
    ) -> io::Result<Self> {
        let files = Files::new(dir, port, &config);
        Ok(Self {
            port,
            http,
            docker: Docker::new(&config, &limits),
            images: ImageStore::new(&config.images, files.has_functions(), &limits),
            files,
            notes: Notes::open(dir)?,
            memory: Memory::detect(),
            desired,
            observed,
            is_clean: false,
            reached: None,
            begun: None,
            must_restart: false,
            tidied: None,
            config,
            limits,
        })
    }

    /// Until `stop`; the containers run on (see the module's documentation).
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            never = self.supervise() => match never {},
        }
    }

    async fn supervise(&mut self) -> Infallible {
        let mut backoff = Backoff::new(self.limits.pause, self.limits.longest_pause);
        loop {
            let desired = self.desired.borrow_and_update().clone();
            match self.reconcile(desired.as_ref()).await {
                Ok(()) => {
                    backoff.reset();
                    self.until_something_changes().await;
                }
                Err(failure) => {
                    tracing::warn!(error = %failure, "the desired state is not reached");
                    self.observe_failure(desired.as_ref(), &failure);
                    tokio::select! {
                        _ = self.desired.changed() => {}
                        () = sleep(backoff.next()) => {}
                    }
                }
            }
        }
    }

    async fn reconcile(&mut self, desired: Option<&DesiredState>) -> Result<(), Failure> {
        self.reached = None;
        match desired {
            Some(DesiredState {
                generation,
                backend: Some(backend),
            }) => {
                self.refuse_data_of_others(backend)?;
                if backend.database_only {
                    self.run_database_alone(*generation, backend).await
                } else {
                    self.serve(*generation, backend).await
                }
            }
            // A machine that has not been told yet, or whose note of it was lost.
            None if self.notes.project_id().is_some() => {
                self.observe(Observed {
                    message: Some("waiting to be told what this machine shall be".to_owned()),
                    ..Observed::starting(0)
                });
                Ok(())
            }
            None => self.stay_warm(0).await,
            Some(DesiredState { generation, .. }) => self.stay_warm(*generation).await,
        }
    }

    /// Docker is up, the images are there, and nothing with an identity runs.
    async fn stay_warm(&mut self, generation: i64) -> Result<(), Failure> {
        if let Some(held) = self.notes.project_id() {
            if self.notes.written().is_some() {
                self.docker.down().await?;
                self.files.remove()?;
                self.notes.clear()?;
            }
            return Err(Failure::HoldsData(held));
        }
        self.docker.check().await?;
        self.refuse_left_overs(None).await?;
        let mut desired = self.desired.clone();
        tokio::select! {
            pulled = self.images.ensure(&self.docker, &self.config.release) => pulled?,
            // A project came: what it needs is pulled for it.
            _ = desired.changed() => return Ok(()),
        }
        self.observe(Observed::idle(generation));
        Ok(())
    }

    /// Containers or volumes that we never made: an image that was taken of a used machine, or
    /// somebody's experiment. Whose data it is cannot be known, so nobody may get it.
    async fn refuse_left_overs(&mut self, project: Option<ProjectId>) -> Result<(), Failure> {
        if self.is_clean {
            return Ok(());
        }
        let project = project.map(|id| id.to_string());
        for owner in self.docker.projects_with_data().await? {
            if Some(&owner) != project.as_ref() {
                return Err(Failure::LeftOver(format!("a volume of project `{owner}`")));
            }
        }
        let containers = self.docker.containers().await?;
        if project.is_none()
            && let Some(container) = containers.first()
        {
            return Err(Failure::LeftOver(format!("the container {container}")));
        }
        self.is_clean = true;
        Ok(())
    }

    fn refuse_data_of_others(&self, desired: &DesiredBackend) -> Result<(), Failure> {
        match self.notes.project_id() {
            Some(held) if held != desired.project_id => Err(Failure::HoldsData(held)),
            _ => Ok(()),
        }
    }

    /// What shall run, of which release. From here on docker's words leave without its secrets.
    fn choose(&mut self, desired: &DesiredBackend) -> (Target, Stack) {
        let target = release::choose(desired, &self.config.release, &self.notes);
        let written = self.notes.written().map(|written| written.stack.memory);
        let memory = self.memory.or_before(written);
        let stack = Stack::new(desired, &target.release, memory);
        self.docker.hide(&stack.secrets());
        (target, stack)
    }

    async fn serve(&mut self, generation: i64, desired: &DesiredBackend) -> Result<(), Failure> {
        loop {
            let (target, stack) = self.choose(desired);
            let is_rollback = target.in_place_of.is_some();
            let failure = match self
                .bring_up(generation, desired, &stack, is_rollback)
                .await
            {
                Ok(Reached::Overtaken) => return Ok(()),
                Ok(Reached::Serving(version)) => {
                    if !is_rollback {
                        self.notes.forget_given_up()?;
                    }
                    self.reached = Some(desired.clone());
                    self.observe(serving(generation, desired, target, version));
                    return Ok(());
                }
                Err(failure) => failure,
            };
            match failure {
                Failure::Release(failure) if self.served_other_than(&stack.release) => {
                    tracing::error!(release = stack.release, reason = %failure, "rolling back");
                    // Its containers are made anew anyway.
                    self.must_restart = false;
                    self.notes.give_up(GivenUp {
                        release: stack.release,
                        restarts: desired.restarts,
                        reason: message(&failure.to_string()),
                    })?;
                }
                failure => {
                    return Err(match target.in_place_of {
                        None => failure,
                        Some(given_up) => Failure::NeitherNor {
                            wanted: given_up.release,
                            // Leaves room for the other reason.
                            reason: given_up.reason.chars().take(200).collect(),
                            served: target.release,
                            failure: Box::new(failure),
                        },
                    });
                }
            }
        }
    }

    async fn until_something_changes(&mut self) {
        let Some(reached) = self.reached.clone() else {
            tokio::select! {
                _ = self.desired.changed() => {}
                () = sleep(WARM_LOOK) => {}
            }
            return;
        };
        let mut newer = self.desired.clone();
        tokio::select! {
            () = self.see_to_images(&reached) => {}
            _ = newer.changed() => return,
        }
        let mut failed_looks = 0;
        while failed_looks < FAILED_LOOKS {
            let pause = match failed_looks {
                0 => self.limits.look,
                _ => self.limits.look_again,
            };
            tokio::select! {
                _ = self.desired.changed() => return,
                () = sleep(pause) => {}
            }
            match self.look_at(&reached).await {
                Ok(()) => failed_looks = 0,
                Err(error) => {
                    failed_looks += 1;
                    tracing::warn!(%error, failed_looks, "what was reached is not there any more");
                }
            }
        }
        // A database is left to docker: it may be recovering.
        self.must_restart = !reached.database_only;
        self.observed.send_modify(|observed| {
            *observed = Observed {
                restarts: observed.restarts,
                ..Observed::starting(observed.generation)
            };
        });
    }

    /// What can be done about them while all is well.
    async fn see_to_images(&mut self, reached: &DesiredBackend) {
        if reached.database_only {
            self.fetch_the_rest().await;
        } else {
            self.tidy().await;
        }
    }

    /// Once a release serves, those before the one before it go.
    async fn tidy(&mut self) {
        let Some(served) = self.notes.served() else {
            return;
        };
        if self.tidied.as_deref() == Some(served) {
            return;
        }
        let mut releases = vec![served, self.config.release.as_str()];
        releases.extend(self.notes.served_before());
        self.images.keep_only(&self.docker, &releases).await;
        self.tidied = Some(served.to_owned());
    }

    /// The backend, or its database where that runs alone; else why not.
    async fn look_at(&self, reached: &DesiredBackend) -> Result<(), String> {
        if reached.database_only {
            return self.look_at_database().await.map_err(|why| why.to_string());
        }
        let looked = self.look(reached).await;
        looked.map(drop).map_err(|why| why.to_string())
    }

    async fn look(&self, desired: &DesiredBackend) -> Result<Option<String>, NotServing> {
        probe(&self.http, self.port, desired).await
    }

    fn served_other_than(&self, release: &str) -> bool {
        self.notes.served().is_some_and(|served| served != release)
    }

    fn observe(&self, observed: Observed) {
        self.observed.send_if_modified(|seen| {
            let news = *seen != observed;
            *seen = observed;
            news
        });
    }

    fn observe_failure(&self, desired: Option<&DesiredState>, failure: &Failure) {
        let backend = desired.and_then(|desired| desired.backend.as_ref());
        self.observe(Observed::failing(
            desired.map_or(0, |desired| desired.generation),
            backend.map_or(0, |backend| backend.restarts),
            failure,
        ));
    }
}

/// What is seen when the backend serves. A release that stands in for another is not what was
/// desired: the state says so, and the rest that the backend serves all the same.
fn serving(
    generation: i64,
    desired: &DesiredBackend,
    target: Target,
    version: Option<String>,
) -> Observed {
    let seen = Observed {
        state: ObservedState::Serving,
        restarts: desired.restarts,
        backend_version: version,
        backend_release: Some(target.release.clone()),
        ..Observed::starting(generation)
    };
    match target.in_place_of {
        None => seen,
        Some(given_up) => Observed {
            state: ObservedState::Failing,
            message: Some(message(&format!(
                "release {} did not become healthy; running {} again: {}",
                given_up.release, target.release, given_up.reason
            ))),
            rolled_back_from: Some(given_up.release),
            ..seen
        },
    }
}
