//! The `compose` runtime: the InsForge release as docker compose containers (production).
//!
//! Docker, not the agent, keeps the containers alive (`restart: unless-stopped`), also over a
//! reboot and while the agent itself is upgraded. **The agent's end never stops them**: neither
//! SIGTERM nor a crash tells an upgrade of the agent from a machine that goes down, the first
//! must not take the customer's backend down, and at the second docker stops its containers
//! itself, with time to shut Postgres down, and starts them again with the machine. Containers
//! that `docker compose stop` had stopped would not come back by themselves.
//!
//! | module | what for |
//! |---|---|
//! | `stack` | which containers with which settings: what is compared to know whether something is to be done |
//! | `notes` | what must be known after a crash: whose data is here, what was written, what served |
//! | `release` | which release to run: the desired one, or the one before it when that failed |
//! | `memory` | what each container may take of the machine's memory |
//! | `environment` | the variables of each container |
//! | `files` | the files that docker compose and the containers read |
//! | `docker` | the calls of the docker program |
//! | `images` | pulls what is missing, removes what no project of this machine can need any more |
//! | `supervise` | desired state → running containers → observed state |
//! | `supervise::start` | its longest step: from what shall run to a backend that serves |
//! | `supervise::database` | the database alone, while somebody restores into it |
//! | `failure` | why a machine is not what it shall be |
//!
//! In the order of a change, with what a crash at that point leaves: images are pulled (nothing
//! changed yet), the change is noted as begun (it is begun again), files are written (written
//! again), `docker compose up` (does nothing where all is well), the backend serves, the change
//! is noted as done.

mod docker;
mod environment;
mod failure;
mod files;
mod images;
mod memory;
mod notes;
mod release;
mod stack;
mod supervise;

use std::time::Duration;

pub(crate) use supervise::Supervisor;

/// How long things may take.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// A call that only looks.
    pub call: Duration,
    pub pull: Duration,
    /// So often is an image tried before that counts as failed; fewer times when that takes long.
    pub pulls: u32,
    /// `docker compose up`, which waits for Postgres.
    pub up: Duration,
    /// From the first `up` until the backend serves, or the release counts as failed. The server
    /// migrates before it listens.
    pub start: Duration,
    /// How long a backend that is healthy may refuse its own key before it is restarted: one
    /// whose seeding failed accepts none until then (contract/project-backend.md section 4).
    pub key_refused: Duration,
    /// Between looks at a backend that serves, and at one that did not answer the last time.
    pub look: Duration,
    pub look_again: Duration,
    /// The first pause after a failure; later ones are longer.
    pub pause: Duration,
    pub longest_pause: Duration,
    /// Until the agent gives itself another token.
    pub token_lifetime: Duration,
    /// How often it is measured how busy the machine is.
    pub sample_every: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(30),
            pull: Duration::from_mins(10),
            pulls: 5,
            up: Duration::from_mins(2),
            start: Duration::from_mins(5),
            key_refused: Duration::from_secs(20),
            look: Duration::from_secs(10),
            look_again: Duration::from_secs(1),
            pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
            token_lifetime: Duration::from_hours(24),
            sample_every: Duration::from_mins(1),
        }
    }
}
