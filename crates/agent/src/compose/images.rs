//! The images of a release: pulled before anything is stopped for it, removed when no rollback can
//! want them any more. An image is there whole or not at all, so a pull that is cut short leaves
//! nothing but layers that the next one need not fetch again.

use std::{collections::HashSet, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    Limits,
    docker::{Docker, DockerError},
};
use crate::{backoff::Backoff, config::Images};

const LONGEST_PAUSE: Duration = Duration::from_secs(30);

pub(crate) struct ImageStore {
    names: Images,
    with_functions: bool,
    limits: Limits,
    /// Seen there. Whoever removes one by hand is helped by `docker compose up`, which pulls it.
    there: HashSet<String>,
}

impl ImageStore {
    pub(crate) fn new(names: &Images, with_functions: bool, limits: &Limits) -> Self {
        Self {
            names: names.clone(),
            with_functions,
            limits: limits.clone(),
            there: HashSet::new(),
        }
    }

    /// Pulls what the release needs and is not there.
    pub(crate) async fn ensure(
        &mut self,
        docker: &Docker,
        release: &str,
    ) -> Result<(), DockerError> {
        self.ensure_each(docker, self.of(release)).await
    }

    /// The same for the database, which knows no releases.
    pub(crate) async fn ensure_database(&mut self, docker: &Docker) -> Result<(), DockerError> {
        let image = self.names.postgres.clone();
        self.ensure_each(docker, vec![image]).await
    }

    async fn ensure_each(
        &mut self,
        docker: &Docker,
        images: Vec<String>,
    ) -> Result<(), DockerError> {
        for image in images {
            if self.there.contains(&image) {
                continue;
            }
            let mut backoff = Backoff::new(self.limits.pause, LONGEST_PAUSE);
            let begin = Instant::now();
            let mut tries = 1;
            while let Err(error) = pull_if_missing(docker, &image).await {
                // One that hung is tried once more, but not for hours.
                let hung = begin.elapsed() > self.limits.pull;
                let most = if hung { 2 } else { self.limits.pulls };
                if tries >= most {
                    return Err(error);
                }
                tracing::warn!(%error, tries, "an image is not there yet");
                tries += 1;
                sleep(backoff.next()).await;
            }
            self.there.insert(image);
        }
        Ok(())
    }

    /// Removes other releases of the server: each is a good part of a gigabyte.
    pub(crate) async fn keep_only(&self, docker: &Docker, releases: &[&str]) {
        let server = &self.names.insforge;
        let tags = match docker.tags(server).await {
            Ok(tags) => tags,
            Err(error) => return tracing::warn!(%error, "cannot look for old images"),
        };
        for tag in tags {
            // `<none>` is what docker calls an image that lost its tag.
            if tag == "<none>" || releases.contains(&tag.as_str()) {
                continue;
            }
            match docker.remove_image(&format!("{server}:{tag}")).await {
                Ok(()) => tracing::info!(tag, "removed an old release"),
                Err(error) => tracing::warn!(%error, tag, "cannot remove an old release"),
            }
        }
    }

    fn of(&self, release: &str) -> Vec<String> {
        let names = &self.names;
        let mut images = vec![
            names.postgres.clone(),
            names.postgrest.clone(),
            format!("{}:{release}", names.insforge),
        ];
        if self.with_functions {
            images.push(names.deno.clone());
        }
        images
    }
}

async fn pull_if_missing(docker: &Docker, image: &str) -> Result<(), DockerError> {
    if docker.has_image(image).await? {
        return Ok(());
    }
    tracing::info!(image, "pulling");
    docker.pull(image).await
}
