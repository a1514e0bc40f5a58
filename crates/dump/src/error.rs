//! What can go wrong with a copy, one variant per thing a caller can act on.

use std::{error::Error as StdError, io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection within the time, or it broke.
    #[error("database {database} cannot be reached: {why}")]
    Unreachable { database: String, why: String },

    /// The server is there and lets us not in: wrong password, missing database.
    #[error("database {database} refuses: {why}")]
    Refused { database: String, why: String },

    #[error(
        "no pg_dump and pg_restore in {}; install the PostgreSQL client programs, or set INSFORGE_PG_BIN to their folder",
        if .0.is_empty() { "any known folder".to_owned() } else { paths(.0) }
    )]
    NoPrograms(Vec<PathBuf>),

    #[error(
        "the server is Postgres {server} and the newest pg_dump here is {newest}, which may not dump a newer server; \
         install the client programs of Postgres {server}"
    )]
    ProgramTooOld { server: u32, newest: u32 },

    /// pg_restore 17 and newer set a parameter that older servers do not know (contract, 1.8).
    #[error(
        "the server is Postgres {server}, and no pg_dump and pg_restore here fit it: they must be {oldest} or newer{}; \
         install the client programs of Postgres {oldest}",
        if *server < 17 { ", but older than 17" } else { "" }
    )]
    NoFittingProgram { server: u32, oldest: u32 },

    /// More than any backend has; it would not fit into our memory.
    #[error("there is too much in {what} to be copied")]
    TooMuch { what: String },

    /// The transaction that exported it is over.
    #[error("the exported snapshot is gone; begin with a new one")]
    SnapshotGone,

    /// `said` is the end of what the program complained about, without statements, rows and passwords.
    #[error("{program} failed: {said}")]
    Program {
        program: &'static str,
        said: String,
        permanent: bool,
    },

    #[error("cannot run {program}: {source}")]
    Run {
        program: &'static str,
        source: io::Error,
    },

    /// These bytes are not an archive, or not all of it.
    #[error("not a whole archive of pg_dump: {0}")]
    Archive(&'static str),

    /// The source of the bytes failed.
    #[error("the archive broke off after {bytes} bytes: {source}")]
    Stream {
        bytes: u64,
        source: Box<dyn StdError + Send + Sync>,
    },

    /// Nothing was changed.
    #[error("database {0} has contents of its own; restore in place to replace them")]
    NotEmpty(String),

    /// A restore began and did not end; only another restore mends it.
    #[error("database {0} is half restored; restore it again")]
    Incomplete(String),

    #[error("cannot {doing}: {source}")]
    Sql {
        doing: &'static str,
        source: sqlx::Error,
    },
}

impl Error {
    /// Whether trying again as it is cannot help: something must be changed by hand first, or by the caller.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::SnapshotGone => false,
            Self::Refused { .. }
            | Self::NoPrograms(_)
            | Self::ProgramTooOld { .. }
            | Self::NoFittingProgram { .. }
            | Self::Archive(_)
            | Self::NotEmpty(_)
            | Self::TooMuch { .. }
            | Self::Incomplete(_) => true,
            Self::Program { permanent, .. } => *permanent,
            Self::Run { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ArgumentListTooLong
            ),
            // A dump joined directly to a restore: its own error counts.
            Self::Stream { source, .. } => inner(source.as_ref()).is_some_and(Self::is_permanent),
            Self::Sql { source, .. } => !is_transient(source),
        }
    }

    /// For `map_err`: names what was being done.
    pub(crate) fn sql(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Sql { doing, source }
    }
}

/// Our own error within a stream's.
fn inner<'a>(error: &'a (dyn StdError + Send + Sync + 'static)) -> Option<&'a Error> {
    if let Some(ours) = error.downcast_ref() {
        return Some(ours);
    }
    error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}

/// Broken connections, and the classes of SQLSTATE that pass by themselves: connection, transaction rollback,
/// resources, operator intervention, lock not available, system error.
pub(crate) fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(said) => said.code().is_some_and(|code| {
            ["08", "40", "53", "57", "58"]
                .iter()
                .any(|class| code.starts_with(class))
                || matches!(&*code, "55P03" | "55006")
        }),
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

fn paths(paths: &[PathBuf]) -> String {
    let texts: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    texts.join(", ")
}
