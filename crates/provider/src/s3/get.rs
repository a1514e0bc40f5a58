//! Get: a stream that survives broken connections and shows its end only when all is as expected.

use std::sync::Arc;

use aws_sdk_s3::{error::ProvideErrorMetadata, primitives::ByteStream};
use bytes::Bytes;
use futures::stream::{self, StreamExt};

use super::{Bucket, classify};
use crate::objects::{ObjectError, ObjectKey, ObjectStream, Stored};

/// Answers when the object is known to be there.
pub(super) async fn open(
    bucket: Arc<Bucket>,
    key: &ObjectKey,
    expected: Stored,
) -> Result<ObjectStream, ObjectError> {
    let mut reading = Reading {
        bucket,
        key: key.clone(),
        expected,
        body: None,
        e_tag: None,
        at: 0,
        crc: crc32fast::Hasher::new(),
        held: None,
        fruitless: 0,
        ended: false,
    };
    reading.connect().await?;
    let pieces = stream::try_unfold(reading, |mut reading| async move {
        let piece = reading.next().await?;
        Ok(piece.map(|piece| (piece, reading)))
    });
    Ok(pieces.boxed())
}

struct Reading {
    bucket: Arc<Bucket>,
    key: ObjectKey,
    expected: Stored,
    /// None between two connections.
    body: Option<ByteStream>,
    /// Of the object that we began with: another one under its key must not be mixed in.
    e_tag: Option<String>,
    /// How many bytes have come.
    at: u64,
    crc: crc32fast::Hasher,
    /// The last piece, not handed out yet: it may be the end of the content.
    held: Option<Bytes>,
    /// Connections in a row that brought nothing.
    fruitless: u32,
    ended: bool,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, ObjectError> {
        while !self.ended {
            let Some(body) = &mut self.body else {
                self.connect().await?;
                continue;
            };
            match body.try_next().await {
                Ok(Some(piece)) if piece.is_empty() => {}
                Ok(Some(piece)) => {
                    self.fruitless = 0;
                    self.at += piece.len() as u64;
                    if self.at > self.expected.size {
                        return Err(self.corrupt("it is longer"));
                    }
                    self.crc.update(&piece);
                    if let Some(ready) = self.held.replace(piece) {
                        return Ok(Some(ready));
                    }
                }
                // All of it is there, whatever became of the connection then.
                Ok(None) | Err(_) if self.at == self.expected.size => {
                    if self.crc.clone().finalize() != self.expected.crc32 {
                        return Err(self.corrupt("its checksum is another one"));
                    }
                    self.ended = true;
                }
                Ok(None) => self.broken("the content ended too early").await?,
                Err(error) => self.broken(&error.to_string()).await?,
            }
        }
        Ok(self.held.take())
    }

    /// Asks for the content from where we are.
    async fn connect(&mut self) -> Result<(), ObjectError> {
        let resumed = self.at > 0;
        let sent = self
            .bucket
            .client
            .get_object()
            .bucket(&self.bucket.name)
            .key(self.key.as_str())
            .set_range(resumed.then(|| format!("bytes={}-", self.at)))
            .set_if_match(self.e_tag.clone())
            .send()
            .await;
        let object = match sent {
            Ok(object) => object,
            Err(error) => match (error.code(), classify("GetObject", &error)) {
                (Some("PreconditionFailed"), _) => {
                    return Err(self.corrupt("it was replaced while it was read"));
                }
                (Some("InvalidRange"), _) => return Err(self.corrupt("it is shorter")),
                (_, failure @ ObjectError::Transient(_)) if resumed => {
                    return self.broken(&failure.to_string()).await;
                }
                (_, failure) => return Err(failure),
            },
        };
        if resumed {
            let from_here = format!("bytes {}-", self.at);
            let range = object.content_range().unwrap_or_default();
            if !range.starts_with(&from_here) {
                return self.broken("another range was answered").await;
            }
        } else {
            self.e_tag = object.e_tag().map(ToOwned::to_owned);
            // Less may be an answer that was cut: what is missing is asked for again.
            let size = object.content_length().unwrap_or_default();
            if u64::try_from(size).is_ok_and(|size| size > self.expected.size) {
                return Err(self.corrupt("it is longer"));
            }
        }
        self.body = Some(object.body);
        Ok(())
    }

    /// A connection brought no more. Waits, unless there were too many like it.
    async fn broken(&mut self, why: &str) -> Result<(), ObjectError> {
        self.body = None;
        self.fruitless += 1;
        if self.fruitless >= self.bucket.tuning.attempts {
            let text = format!("GetObject {}, byte {}: {why}", self.key, self.at);
            return Err(ObjectError::Transient(text));
        }
        tracing::debug!(key = %self.key, at = self.at, why, "reading an object goes on");
        self.bucket.back_off(self.fruitless).await;
        Ok(())
    }

    fn corrupt(&self, how: &str) -> ObjectError {
        ObjectError::Corrupt(format!("{}: {how}", self.key))
    }
}
