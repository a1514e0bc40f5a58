//! Filling a database from an archive while it arrives.
//!
//! pg_restore reads the archive from a pipe, in the order in which pg_dump wrote it. Two things keep a part from being
//! taken for the whole:
//!
//! - The last piece of the archive is held back until its source has said that this was the end, so pg_restore cannot
//!   come to the end of the rows (and on to indexes, grants and the commit) with an archive that broke off.
//! - The database carries a mark from before the first change until all is done (see `mark`).
//!
//! Where the server can hold that many locks it is all one transaction, so that a failure also leaves nothing behind. A
//! schema of thousands of tables needs more than that, and is restored statement by statement; it then takes the mark
//! to know a half-filled database, and restoring again makes it anew.

use std::{error::Error as StdError, io, path::Path, pin::pin, process::Stdio};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use crate::{
    archive::{self, Head},
    database::Database,
    error::Error,
    exported::server_version,
    mark::{self, Mark},
    meter::Meter,
    prepare,
    process::Process,
    programs::{PG_RESTORE, Programs},
};

/// One entry of an archive takes at most three locks: a table, its overflow table and that one's index.
const LOCKS_PER_ENTRY: u64 = 3;

/// What is there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// A machine on which only Postgres runs, and nothing but the release's first-start script ever ran; the database need
    /// not exist. Contents that are not an earlier restore's are never touched: [`Error::NotEmpty`].
    NewMachine,
    /// Whatever is there goes: the database is dropped, with everybody's sessions, and made anew. For a reset, and for a
    /// machine whose server has made its tables already. The server, PostgREST and deno should be stopped.
    InPlace,
    /// As in place, but what is there at the first attempt of this id, if it is whole, is kept beside it until
    /// [`put_back`](crate::put_back) or [`discard_kept`](crate::discard_kept). Takes the space of both meanwhile.
    InPlaceKeeping(Uuid),
}

/// What is left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Postgres must be restarted (after the fix-ups, before the server starts), or pg_cron runs no job: the launcher
    /// ended with the old database (contract, 5.10).
    pub restart_postgres: bool,
}

/// Restores an archive that [`dump()`](crate::dump()) made (or any of pg_dump's custom format). Until it has returned well,
/// [`is_incomplete`](crate::is_incomplete) says so of the database; calling it again begins anew. Afterwards
/// [`fix_up_branch`](crate::fix_up_branch), or for a backup `SELECT system.sync_postgrest_exposed_schemas()`.
///
/// Nothing is changed before the archive's head has arrived and is good. Roles beyond the release's must be there already
/// ([`make_roles`](crate::make_roles())).
pub async fn restore<S, E>(
    database: &Database,
    programs: &Programs,
    archive: S,
    how: How,
    meter: Meter,
) -> Result<Restored, Error>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    let mut archive = Archive {
        pieces: pin!(archive),
        read: 0,
        meter,
    };
    let (head, begin) = archive.begin().await?;

    let maintenance = database.maintenance();
    let mut server = maintenance.connect().await?;
    let version = server_version(&mut server).await?;
    let program = programs.pg_restore(version, head.readable_since)?;
    let one_transaction =
        head.entries.saturating_mul(LOCKS_PER_ENTRY) <= prepare::lockable(&mut server).await?;
    let dropped = match how {
        How::NewMachine => prepare::new_machine(database).await?,
        How::InPlace => prepare::recreate(database, None).await?,
        How::InPlaceKeeping(id) => prepare::recreate(database, Some(id)).await?,
    };

    let process = start(&program, database, one_transaction)?;
    archive.feed(begin, process).await?;
    // The connection from before lay idle all the while, which not all that lies between us may have let pass.
    let mut server = maintenance.connect().await?;
    mark::set(&mut server, &database.name, Mark::Complete).await?;
    tracing::debug!(
        bytes = archive.read,
        entries = head.entries,
        one_transaction,
        "database restored"
    );
    Ok(Restored {
        restart_postgres: dropped && prepare::has_cron_launcher(&mut server).await?,
    })
}

fn start(program: &Path, database: &Database, one_transaction: bool) -> Result<Process, Error> {
    Process::start(PG_RESTORE, program, database, |command| {
        command
            .args(["--format=custom", "--exit-on-error"])
            // Places on the parent's disks.
            .arg("--no-tablespaces")
            .args(one_transaction.then_some("--single-transaction"))
            .stdin(Stdio::piped());
    })
}

struct Archive<S> {
    pieces: S,
    /// Bytes that came.
    read: u64,
    meter: Meter,
}

impl<S, E> Archive<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    /// The head, and all the bytes that had to be read for it.
    async fn begin(&mut self) -> Result<(Head, Bytes), Error> {
        let mut begin = Vec::new();
        loop {
            if let Some(head) = archive::head(&begin)? {
                return Ok((head, begin.into()));
            }
            match self.next().await? {
                Some(piece) => begin.extend_from_slice(&piece),
                None => return Err(Error::Archive("it ends within its head")),
            }
        }
    }

    /// Gives it all to pg_restore, and waits until that has ended well.
    async fn feed(&mut self, begin: Bytes, mut process: Process) -> Result<(), Error> {
        let Some(mut input) = process.child.stdin.take() else {
            return Err(Error::Archive("pg_restore has no input"));
        };
        let mut held = begin;
        loop {
            let next = match self.next().await {
                Ok(next) => next,
                Err(error) => {
                    process.stop().await;
                    return Err(error);
                }
            };
            let last = next.is_none();
            let piece = std::mem::replace(&mut held, next.unwrap_or_default());
            if let Err(source) = input.write_all(&piece).await {
                return Err(why_it_stopped_reading(process, source).await);
            }
            self.meter.add(piece.len());
            if last {
                break;
            }
        }
        drop(input);
        process.finish().await
    }

    /// The next piece with anything in it.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.pieces.next().await {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => {
                    self.read += piece.len() as u64;
                    return Ok(Some(piece));
                }
                Some(Err(source)) => {
                    return Err(Error::Stream {
                        bytes: self.read,
                        source: source.into(),
                    });
                }
                None => return Ok(None),
            }
        }
    }
}

/// pg_restore closed its end of the pipe: it has failed and says why, or it takes the archive to have ended here.
async fn why_it_stopped_reading(process: Process, source: io::Error) -> Error {
    if source.kind() != io::ErrorKind::BrokenPipe {
        process.stop().await;
        return Error::Run {
            program: PG_RESTORE,
            source,
        };
    }
    match process.finish().await {
        Ok(()) => Error::Archive("it goes on after its end"),
        Err(error) => error,
    }
}
