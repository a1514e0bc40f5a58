//! The database alone: a branch or a backup is restored into it while the server, PostgREST and the
//! function host must not be there (contract/project-backend.md section 5.10). The files are those
//! of the whole release, so that Postgres's container stays the same one when the rest is started.

use cp_model::agent_protocol::DesiredBackend;

use super::Supervisor;
use crate::{
    compose::{
        docker::DockerError,
        failure::{Failure, ReleaseFailure},
        stack::Stack,
    },
    config::is_image_tag,
    observed::Observed,
};

impl Supervisor {
    pub(super) async fn run_database_alone(
        &mut self,
        generation: i64,
        desired: &DesiredBackend,
    ) -> Result<(), Failure> {
        let (_, stack) = self.choose(desired);
        let is_there = self.notes.is_settled(&stack) && self.look_at_database().await.is_ok();
        if !is_there {
            self.observe(Observed {
                restarts: desired.restarts,
                ..Observed::starting(generation)
            });
            if !self.bring_up_database(&stack).await? {
                // Something else is desired by now.
                return Ok(());
            }
        }
        self.reached = Some(desired.clone());
        self.observe(Observed::database_only(generation, desired.restarts));
        Ok(())
    }

    /// False when something else is desired by now.
    async fn bring_up_database(&mut self, stack: &Stack) -> Result<bool, Failure> {
        if !is_image_tag(&stack.release) {
            let name = stack.release.clone();
            return Err(Failure::Release(ReleaseFailure::NotAName(name)));
        }
        self.docker.check().await?;
        self.refuse_left_overs(Some(stack.project_id)).await?;
        let mut newer = self.desired.clone();
        tokio::select! {
            pulled = self.images.ensure_database(&self.docker) => pulled?,
            _ = newer.changed() => return Ok(false),
        }
        if !self.notes.is_settled(stack) || !self.files.are_there() {
            self.begin(stack)?;
            self.files.write(stack)?;
        }
        self.docker.remove_all_but_postgres(&self.files).await?;
        // There is no server that could hang any more.
        self.must_restart = false;
        self.adapt_password(stack).await?;
        self.docker.up_postgres(&self.files).await?;
        // A count that grew is the database's here, as it is the backend's elsewhere. One that grew
        // before its first start asks for nothing.
        let known = self.notes.settled_restarts();
        if !self.notes.is_settled(stack) && known.is_some_and(|known| known < stack.restarts) {
            tracing::info!(stack.restarts, "restarting postgres");
            self.docker.restart(&self.files, "postgres").await?;
            self.docker.up_postgres(&self.files).await?;
        }
        self.notes.settle()?;
        Ok(true)
    }

    pub(super) async fn look_at_database(&self) -> Result<(), DockerError> {
        let superuser = self
            .notes
            .written()
            .map(|written| written.stack.superuser());
        self.docker
            .postgres_answers(&self.files, superuser.unwrap_or("postgres"))
            .await
    }

    /// The images of what will be started next, while the restore takes its time.
    pub(super) async fn fetch_the_rest(&mut self) {
        let Some(written) = self.notes.written() else {
            return;
        };
        let release = written.stack.release.clone();
        if let Err(error) = self.images.ensure(&self.docker, &release).await {
            tracing::warn!(%error, "an image is not there yet; it is pulled when it is needed");
        }
    }
}
