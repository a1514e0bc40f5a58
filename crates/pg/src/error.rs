//! What can go wrong with a cluster, one variant per thing a caller can act on.

use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "user {user} (which runs Postgres, since it refuses to run as root) may not enter {folder}; \
         run `chmod o+x {folder}` or choose another data folder",
        folder = folder.display()
    )]
    Unreachable { user: String, folder: PathBuf },

    #[error(
        "neither user `postgres` nor `nobody` exists; Postgres refuses to run as root, so create one: useradd --system postgres"
    )]
    NoUnprivilegedUser,

    #[error("{} already exists; remove it or choose another folder", .0.display())]
    AlreadyExists(PathBuf),

    #[error("{} is not a Postgres cluster (it has no PG_VERSION file)", .0.display())]
    NotACluster(PathBuf),

    #[error("{} was made by Postgres {cluster}, the binaries are version {binaries}; point INSFORGE_PG_BIN at Postgres {cluster}", dir.display())]
    WrongVersion {
        dir: PathBuf,
        cluster: String,
        binaries: u32,
    },

    #[error("template {} is running; stop it before copying it", .0.display())]
    TemplateRunning(PathBuf),

    #[error("cluster {} is running; stop it first", .0.display())]
    Running(PathBuf),

    #[error("cluster {} is running on port {actual}, not on {wanted}; stop it or open it on its port", dir.display())]
    OtherPort {
        dir: PathBuf,
        wanted: u16,
        actual: u16,
    },

    #[error("Postgres did not accept connections on port {port} in time; see {}", log.display())]
    NotReady { port: u16, log: PathBuf },

    #[error("setting {0:?} has a name that Postgres would not accept")]
    BadSetting(String),

    #[error("a password may not be empty or contain line breaks or NUL")]
    BadPassword,

    /// The program ran and refused; `output` is the end of what it (or the server log) said.
    #[error("{program} failed: {output}")]
    Program { program: String, output: String },

    #[error("{program} did not end in time")]
    TimedOut { program: String },

    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: names what was being done to which path.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
