//! Why a machine is not what it shall be, in words for operators.

use std::io;

use cp_model::ProjectId;

use super::docker::DockerError;
use crate::probe::NotServing;

/// So many agents may be killed over a new release (it may be what takes the machine's memory).
pub(crate) const MOST_STARTS: u32 = 3;

/// Why the desired state was not reached this time. The text is reported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Docker(#[from] DockerError),
    #[error("cannot keep what is needed on disk: {0}")]
    Disk(#[from] io::Error),
    #[error(
        "this machine holds the data of project {0} and takes no other; it is to be terminated"
    )]
    HoldsData(ProjectId),
    #[error("docker has {0} on this machine, which nobody here made; it is to be terminated")]
    LeftOver(String),
    /// The release's own failures: another one may do better.
    #[error("{0}")]
    Release(ReleaseFailure),
    #[error("neither release {wanted} became healthy ({reason}), nor {served} again: {failure}")]
    NeitherNor {
        wanted: String,
        reason: String,
        served: String,
        failure: Box<Failure>,
    },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReleaseFailure {
    #[error("`{0}` is not the name of a release")]
    NotAName(String),
    #[error("its image is not to be had: {0}")]
    Pull(DockerError),
    #[error("its containers do not start: {0}")]
    Up(DockerError),
    #[error("{why}, {seconds} seconds after its start ({containers})")]
    NotServing {
        why: NotServing,
        seconds: u64,
        containers: String,
    },
    #[error("the machine or its agent was ended {MOST_STARTS} times before it served")]
    NeverLived,
}
