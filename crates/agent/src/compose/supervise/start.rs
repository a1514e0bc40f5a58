//! From a stack to a backend that serves: look, pull, note, write, `docker compose up`, wait.

use std::time::Duration;

use cp_model::agent_protocol::DesiredBackend;
use tokio::time::{Instant, sleep};

use super::Supervisor;
use crate::{
    backoff::Backoff,
    compose::{
        docker::DockerError,
        failure::{Failure, MOST_STARTS, ReleaseFailure},
        stack::Stack,
    },
    config::is_image_tag,
    observed::Observed,
    probe::NotServing,
};

/// While a backend starts: at first somebody may be waiting for their project.
const QUICK_LOOK: Duration = Duration::from_millis(50);
const SLOW_LOOK: Duration = Duration::from_millis(500);
const QUICK_TIME: Duration = Duration::from_secs(10);

/// How far a stack came.
pub(super) enum Reached {
    /// With the version that it tells.
    Serving(Option<String>),
    /// Something else is desired by now.
    Overtaken,
}

impl Supervisor {
    /// Everything from a look whether it serves already to a backend that does.
    pub(super) async fn bring_up(
        &mut self,
        generation: i64,
        desired: &DesiredBackend,
        stack: &Stack,
        is_rollback: bool,
    ) -> Result<Reached, Failure> {
        if is_rollback {
            self.adopt_if_untouched(stack)?;
        }
        if self.notes.is_settled(stack)
            && let Ok(version) = self.look(desired).await
        {
            self.must_restart = false;
            return Ok(Reached::Serving(version));
        }
        self.observe(Observed {
            restarts: desired.restarts,
            ..Observed::starting(generation)
        });
        if !is_image_tag(&stack.release) {
            let name = stack.release.clone();
            return Err(Failure::Release(ReleaseFailure::NotAName(name)));
        }
        self.docker.check().await?;
        self.refuse_left_overs(Some(stack.project_id)).await?;
        // Until all of it is here, what serves serves on.
        let mut newer = self.desired.clone();
        tokio::select! {
            pulled = self.images.ensure(&self.docker, &stack.release) => {
                pulled.map_err(|error| Failure::Release(ReleaseFailure::Pull(error)))?;
            }
            _ = newer.changed() => return Ok(Reached::Overtaken),
        }
        if !self.notes.is_settled(stack) || !self.files.are_there() {
            self.begin(stack)?;
            self.files.write(stack)?;
        }
        self.start(desired, stack).await
    }

    /// The new release came to nothing before the old one was touched: no reason to restart it.
    fn adopt_if_untouched(&mut self, stack: &Stack) -> Result<(), Failure> {
        let untouched = self.notes.written().is_some_and(|written| {
            written.settled && written.stack != *stack && written.stack.is_same_but_restarted(stack)
        });
        if untouched {
            self.notes.adopt(stack)?;
        }
        Ok(())
    }

    /// Notes, once per agent, that the stack is about to be started. Refuses a new release over
    /// which too many agents were killed.
    pub(super) fn begin(&mut self, stack: &Stack) -> Result<(), Failure> {
        let is_noted = self
            .notes
            .written()
            .is_some_and(|written| written.stack == *stack);
        if is_noted && self.begun.as_ref() == Some(stack) {
            return Ok(());
        }
        // What a database does tells nothing of the release.
        let is_release = !stack.database_only && self.served_other_than(&stack.release);
        if self.notes.starts(stack) >= MOST_STARTS && is_release {
            return Err(Failure::Release(ReleaseFailure::NeverLived));
        }
        self.notes.begin(stack)?;
        self.begun = Some(stack.clone());
        Ok(())
    }

    /// `docker compose up`, and the wait until the backend serves; in a bounded time.
    async fn start(&mut self, desired: &DesiredBackend, stack: &Stack) -> Result<Reached, Failure> {
        let begin = Instant::now();
        let mut backoff = Backoff::new(self.limits.pause, self.limits.longest_pause);
        loop {
            let error = match self.up(stack).await {
                Ok(()) => break,
                Err(Failure::Docker(error)) => error,
                Err(failure) => return Err(failure),
            };
            if begin.elapsed() > self.limits.start {
                return Err(Failure::Release(ReleaseFailure::Up(error)));
            }
            if self.desired.has_changed().unwrap_or(false) {
                return Ok(Reached::Overtaken);
            }
            tracing::warn!(%error, "the containers do not start yet");
            sleep(backoff.next()).await;
        }
        self.until_serving(desired, begin).await
    }

    async fn until_serving(
        &mut self,
        desired: &DesiredBackend,
        begin: Instant,
    ) -> Result<Reached, Failure> {
        let mut refused_since = None;
        let mut restarted = false;
        loop {
            let why = match self.look(desired).await {
                Ok(version) => {
                    let milliseconds = begin.elapsed().as_millis();
                    tracing::info!(milliseconds, "the backend serves");
                    self.notes.settle()?;
                    return Ok(Reached::Serving(version));
                }
                Err(why) => why,
            };
            if self.desired.has_changed().unwrap_or(false) {
                return Ok(Reached::Overtaken);
            }
            if begin.elapsed() > self.limits.start {
                self.must_restart = true;
                return Err(Failure::Release(ReleaseFailure::NotServing {
                    why,
                    seconds: begin.elapsed().as_secs(),
                    containers: self.describe_containers().await,
                }));
            }
            if matches!(why, NotServing::KeyRefused(_)) {
                let since = *refused_since.get_or_insert_with(Instant::now);
                if !restarted && since.elapsed() > self.limits.key_refused {
                    restarted = self.restart_server().await.is_ok();
                    refused_since = None;
                }
            } else {
                refused_since = None;
            }
            let quick = begin.elapsed() < QUICK_TIME;
            sleep(if quick { QUICK_LOOK } else { SLOW_LOOK }).await;
        }
    }

    async fn up(&mut self, stack: &Stack) -> Result<(), Failure> {
        self.adapt_password(stack).await?;
        self.docker.up(&self.files).await?;
        if self.must_restart {
            self.restart_server().await?;
            self.must_restart = false;
        }
        Ok(())
    }

    /// The image sets a password at its first start only.
    pub(super) async fn adapt_password(&mut self, stack: &Stack) -> Result<(), Failure> {
        let wanted = &stack.database_password;
        if self.notes.database_password() == Some(wanted) {
            return Ok(());
        }
        self.docker.up_postgres(&self.files).await?;
        self.docker
            .set_password(&self.files, stack.superuser(), wanted)
            .await?;
        self.notes.note_password(wanted)?;
        Ok(())
    }

    async fn restart_server(&self) -> Result<(), DockerError> {
        tracing::warn!("restarting the server's container");
        self.docker.restart(&self.files, "insforge").await
    }

    async fn describe_containers(&self) -> String {
        match self.docker.containers().await {
            Ok(containers) if containers.is_empty() => "no container runs".to_owned(),
            Ok(containers) => containers.join(", "),
            Err(error) => error.to_string(),
        }
    }
}
