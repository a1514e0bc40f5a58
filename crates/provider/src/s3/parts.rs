//! The content of a put, cut into parts.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Tuning;
use crate::objects::ObjectError;

/// S3's limit.
const MAX_PARTS: i32 = 10_000;
/// After so many parts they get twice as big: a small object takes little memory, and a big one
/// still fits into 10,000 parts. With 8 MiB: 2,000 each of 8, 16, 32, 64 and 128, 484 GiB in all.
const PARTS_PER_SIZE: i32 = 2_000;

pub(super) struct Part {
    /// From 1.
    pub(super) number: i32,
    pub(super) bytes: Bytes,
    pub(super) crc: crc32fast::Hasher,
}

/// Reads parts. [`Parts::next`] may be dropped at any time, nothing is lost.
pub(super) struct Parts<'a> {
    content: &'a mut (dyn AsyncRead + Unpin + Send),
    first_size: usize,
    number: i32,
    filling: Option<Buffer>,
    ended: bool,
    buffers: Buffers,
}

impl<'a> Parts<'a> {
    pub(super) fn new(
        content: &'a mut (dyn AsyncRead + Unpin + Send),
        tuning: &Tuning,
        buffers: &Buffers,
    ) -> Self {
        Self {
            content,
            first_size: tuning.part_size,
            number: 1,
            filling: None,
            ended: false,
            buffers: buffers.clone(),
        }
    }

    /// The next part, full unless it is the last; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, ObjectError> {
        while self.more().await? {
            if let Some(filled) = self.filling.take_if(|buffer| buffer.room() == 0) {
                return Ok(Some(self.cut(filled)));
            }
            self.read().await?;
        }
        Ok(self.filling.take().map(|rest| self.cut(rest)))
    }

    /// Whether a byte is left. Reads one if it does not know.
    pub(super) async fn more(&mut self) -> Result<bool, ObjectError> {
        while self.filling.is_none() && !self.ended {
            self.read().await?;
        }
        Ok(self.filling.is_some() && !self.ended)
    }

    async fn read(&mut self) -> Result<(), ObjectError> {
        let size = self.first_size << ((self.number - 1) / PARTS_PER_SIZE);
        let mut new = None;
        let buffer = match &mut self.filling {
            Some(buffer) => buffer,
            None => new.insert(self.buffers.take(size)),
        };
        let room = buffer.room();
        let read = self
            .content
            .read_buf(&mut (&mut buffer.bytes).limit(room))
            .await
            .map_err(|error| ObjectError::Source(error.to_string()))?;
        if read == 0 {
            self.ended = true;
        } else if let Some(new) = new {
            if self.number > MAX_PARTS {
                return Err(ObjectError::Permanent(
                    "the content is bigger than an object can be".to_owned(),
                ));
            }
            self.filling = Some(new);
        }
        Ok(())
    }

    fn cut(&mut self, buffer: Buffer) -> Part {
        let number = self.number;
        self.number += 1;
        Part::new(number, Bytes::from_owner(buffer))
    }
}

impl Part {
    pub(super) fn new(number: i32, bytes: Bytes) -> Self {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes);
        Self { number, bytes, crc }
    }
}

/// How many bytes of memory the parts of a bucket's puts take, now and at most.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Buffers {
    fn take(&self, size: usize) -> Buffer {
        let now = self.0.now.fetch_add(size, Ordering::Relaxed) + size;
        self.0.most.fetch_max(now, Ordering::Relaxed);
        Buffer {
            bytes: BytesMut::with_capacity(size),
            size,
            held: self.0.clone(),
        }
    }

    #[cfg(test)]
    pub(super) fn now(&self) -> usize {
        self.0.now.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn most(&self) -> usize {
        self.0.most.load(Ordering::Relaxed)
    }
}

/// Memory of one part, until the last who reads it is done with it.
struct Buffer {
    bytes: BytesMut,
    size: usize,
    held: Arc<Held>,
}

impl Buffer {
    fn room(&self) -> usize {
        self.size - self.bytes.len()
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.held.now.fetch_sub(self.size, Ordering::Relaxed);
    }
}
