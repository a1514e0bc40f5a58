//! Taking an archive: pg_dump's output as a stream, while it runs.

use std::{
    io,
    pin::Pin,
    process::Stdio,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures::{
    Stream,
    stream::{self, BoxStream, StreamExt},
};
use sqlx::Connection;
use tokio::{io::AsyncReadExt, process::ChildStdout};

use crate::{
    contents::Contents,
    database::Database,
    error::Error,
    exported::{Exported, join, server_version},
    meter::Meter,
    process::Process,
    programs::{PG_DUMP, Programs},
    tables::Tables,
};

/// Pieces are cut from buffers of this size; a pipe holds a quarter of it.
const BUFFER: usize = 256 * 1024;

/// With less room left a new buffer is taken. A piece keeps its whole buffer alive, so none is left almost unused.
const LEAST: usize = 16 * 1024;

/// The fastest that shrinks at all. Levels above 1 cost two to three times the time for a tenth of the size, and a branch
/// waits for the dump before it can be restored from the store.
const COMPRESSION: &str = "--compress=1";

/// A migration of the parent that holds a table this long lets the dump fail; it is tried again later. Meanwhile nobody
/// waits behind us but who wants that table for himself alone.
const LOCK_WAIT: &str = "--lock-wait-timeout=60s";

/// The bytes of an archive. It ends well only after pg_dump said that all went well; else the last item is an error,
/// with [`Error`] inside. Dropping it ends pg_dump.
pub struct DumpStream(BoxStream<'static, io::Result<Bytes>>);

impl Stream for DumpStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

/// Starts pg_dump. With the name of an [`Exported`] snapshot the archive shows the database as that does; without, as it
/// is now. The database's users are not disturbed, except that none of its tables can be altered or dropped meanwhile.
pub async fn dump(
    database: &Database,
    programs: &Programs,
    contents: Contents,
    snapshot: Option<&str>,
    meter: Meter,
) -> Result<DumpStream, Error> {
    // The list of tables must fit what pg_dump sees, so there is always one snapshot for both.
    let own = match snapshot {
        Some(_) => None,
        None => Some(Exported::open(database).await?),
    };
    let name = own
        .as_ref()
        .map(Exported::name)
        .or(snapshot)
        .unwrap_or_default();
    let mut connection = join(database, Some(name)).await?;
    let program = programs.pg_dump(server_version(&mut connection).await?)?;
    let tables = Tables::read(&mut connection).await?;
    // Nothing is lost if the farewell is.
    let _ = connection.close().await;

    let mut process = Process::start(PG_DUMP, &program, database, |command| {
        command
            .args(["--format=custom", COMPRESSION, LOCK_WAIT])
            .arg(format!("--snapshot={name}"))
            .args(contents.arguments(&tables))
            .stdout(Stdio::piped());
    })?;
    let Some(output) = process.child.stdout.take() else {
        return Err(Error::Archive("pg_dump has no output"));
    };
    let dumping = Dumping {
        process,
        output,
        _own: own,
        buffer: BytesMut::new(),
        meter,
    };
    let pieces = stream::unfold(Some(dumping), |dumping| async {
        let mut dumping = dumping?;
        match dumping.next().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(dumping))),
            Ok(None) => match dumping.finish().await {
                Ok(()) => None,
                Err(error) => Some((Err(io::Error::other(error)), None)),
            },
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(DumpStream(pieces.boxed()))
}

struct Dumping {
    process: Process,
    output: ChildStdout,
    /// The snapshot, if it is ours, for as long as pg_dump may ask for it.
    _own: Option<Exported>,
    buffer: BytesMut,
    meter: Meter,
}

impl Dumping {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.buffer.capacity() < LEAST {
            self.buffer = BytesMut::with_capacity(BUFFER);
        }
        let read = self.output.read_buf(&mut self.buffer).await?;
        self.meter.add(read);
        Ok((read > 0).then(|| self.buffer.split().freeze()))
    }

    async fn finish(self) -> Result<(), Error> {
        drop(self.output);
        self.process.finish().await
    }
}
