//! Content on its way between requests and files.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use futures::{TryStreamExt, stream};
use s3s::{S3Error, S3ErrorCode, S3Result, TrailingHeaders, dto::StreamingBlob, s3_error};
use tokio::{io::AsyncWriteExt, sync::mpsc};
use uuid::Uuid;

use super::{
    super::encode_crc32,
    disk::{self, Disk},
    shelf::Part,
};

/// How many bytes of a file are read at once.
const PIECE: usize = 256 * 1024;
/// How many pieces are read ahead of the client.
const PIECES_AHEAD: usize = 4;

/// A file or a folder that is removed again unless it is kept.
pub(super) struct Draft {
    pub(super) path: PathBuf,
    kept: bool,
}

impl Draft {
    /// Does not wait: what is made while nobody holds the draft would stay.
    pub(super) fn begin(dir: PathBuf) -> io::Result<Self> {
        std::fs::create_dir(&dir)?;
        Ok(Self {
            path: dir,
            kept: false,
        })
    }

    pub(super) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = disk::remove(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "data was left behind");
        }
    }
}

/// Writes a body to a file of its own in `dir` and checks it against the CRC-32 that the request
/// claims in a header, or behind its body.
pub(super) async fn receive(
    disk: Disk,
    dir: PathBuf,
    body: Option<StreamingBlob>,
    claimed: Option<&str>,
    trailers: Option<TrailingHeaders>,
) -> S3Result<Part> {
    let mut body = body.ok_or_else(|| s3_error!(IncompleteBody))?;
    let name = Uuid::new_v4().simple().to_string();
    // Removed again when this is dropped or fails.
    let mut draft = Draft {
        path: dir.join(&name),
        kept: false,
    };
    let file = File::create_new(&draft.path).map_err(S3Error::internal_error)?;
    let mut file = tokio::fs::File::from_std(file);
    let (mut crc, mut size) = (crc32fast::Hasher::new(), 0);
    while let Some(piece) = body
        .try_next()
        .await
        .map_err(|error| S3Error::with_source(S3ErrorCode::IncompleteBody, error))?
    {
        crc.update(&piece);
        size += piece.len() as u64;
        file.write_all(&piece)
            .await
            .map_err(S3Error::internal_error)?;
    }
    file.flush().await.map_err(S3Error::internal_error)?;
    let file = file.into_std().await;
    tokio::task::spawn_blocking(move || disk.sync(&file))
        .await
        .map_err(S3Error::internal_error)?
        .map_err(S3Error::internal_error)?;

    let part = Part {
        file: name,
        size,
        crc32: crc.finalize(),
    };
    let trailer = trailers
        .and_then(|trailers| trailers.take())
        .and_then(|headers| headers.get("x-amz-checksum-crc32").cloned());
    let claims = claimed
        .map(str::as_bytes)
        .into_iter()
        .chain(trailer.as_ref().map(hyper::header::HeaderValue::as_bytes));
    for claim in claims {
        if claim != encode_crc32(part.crc32).as_bytes() {
            return Err(s3_error!(BadDigest, "the CRC32 of the body is another one"));
        }
    }
    draft.keep();
    Ok(part)
}

/// The bytes of that range of the files' content. A thread reads them, a little ahead.
pub(super) fn send(files: Vec<(PathBuf, u64)>, range: Range<u64>) -> StreamingBlob {
    let (pieces, mut taken) = mpsc::channel::<io::Result<Bytes>>(PIECES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut begin = 0;
        for (path, size) in files {
            let (from, to) = (range.start.max(begin), range.end.min(begin + size));
            if from < to {
                let sent = send_file(&pieces, &path, (from - begin)..(to - begin));
                if let Err(error) = sent {
                    // The client may have gone.
                    let _ = pieces.blocking_send(Err(error));
                    return;
                }
            }
            begin += size;
        }
    });
    StreamingBlob::wrap(stream::poll_fn(move |cx| taken.poll_recv(cx)))
}

fn send_file(
    pieces: &mpsc::Sender<io::Result<Bytes>>,
    path: &Path,
    range: Range<u64>,
) -> io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(range.start))?;
    let mut left = range.end - range.start;
    while left > 0 {
        let mut piece = BytesMut::zeroed(usize::try_from(left).unwrap_or(PIECE).min(PIECE));
        file.read_exact(&mut piece)?;
        left -= piece.len() as u64;
        if pieces.blocking_send(Ok(piece.freeze())).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
