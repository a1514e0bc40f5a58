//! Objects: snapshots and whatever else is too big for a database. The worker asks [`Objects`] and
//! knows nothing of what is behind it: [`S3Objects`](crate::s3::S3Objects) on S3, or on the server
//! in [`s3::folder`](crate::s3::folder) on a laptop.
//!
//! **Crashes.** A key is written once. A put is all or nothing: either the whole object is there
//! under its key or no object is. So whoever may crash in the middle
//!
//! 1. takes a new key for each attempt ([`ObjectPrefix::attempt`]) and records it,
//! 2. puts,
//! 3. records the [`Stored`] that came back, which makes this attempt the one that counts,
//! 4. and deletes by prefix when the owner is done for, which takes the other attempts along.
//!
//! A put under a key that is taken fails with [`ObjectError::Exists`]; nothing is ever replaced, so
//! a zombie's late write cannot change what was recorded. What a crash leaves half sent costs money
//! and shows in no listing: [`Objects::abort_leftovers`], from time to time.

mod ending;
mod key;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use cp_model::Region;
use futures::stream::BoxStream;
use secrecy::SecretString;
use tokio::io::AsyncRead;

pub use ending::ending_with;
pub use key::{InvalidKey, ObjectKey, ObjectPrefix};

pub type SharedObjects = Arc<dyn Objects>;

/// The longest life of a presigned URL (S3's limit for signature version 4).
pub const MAX_PRESIGNED_LIFETIME: Duration = Duration::from_hours(7 * 24);

/// A store with one bucket per region. Every verb may be repeated at any time, by any process.
#[async_trait]
pub trait Objects: Send + Sync {
    /// Where it has a bucket. Whoever looks after objects does so region by region: one that is
    /// down must not hold up the others.
    fn regions(&self) -> Vec<Region>;

    /// Stores all that `content` gives under a key that nothing is stored under yet; encrypted at
    /// rest. Length need not be known; at most 484 GiB. The memory it takes is bounded (see
    /// [`S3Objects`](crate::s3::S3Objects)).
    ///
    /// The end of `content` is taken for its success. Where that is told later, as by the exit
    /// code of a program, wrap it with [`ending_with`].
    ///
    /// On any error, and when it is dropped, what was sent is taken back where that is possible.
    /// After [`ObjectError::Transient`] the object may be there all the same: try again under
    /// another key.
    async fn put(
        &self,
        region: Region,
        key: &ObjectKey,
        content: &mut (dyn AsyncRead + Unpin + Send),
    ) -> Result<Stored, ObjectError>;

    /// The content, in order, in pieces of any size. Connections that break meanwhile are resumed.
    ///
    /// The last piece is handed out only when size and checksum are as `expected`, so whoever
    /// reads to the end without an error has what was put; whoever gets
    /// [`ObjectError::Corrupt`] got too little, never something wrong that looks complete.
    async fn get(
        &self,
        region: Region,
        key: &ObjectKey,
        expected: &Stored,
    ) -> Result<ObjectStream, ObjectError>;

    /// A URL under which anyone may GET the object for `lifetime` (1 s to
    /// [`MAX_PRESIGNED_LIFETIME`]; not longer than the credentials that sign it, a role's live for
    /// hours). It is made without a look at the store: there need not be such an object.
    async fn presign_get(
        &self,
        region: Region,
        key: &ObjectKey,
        lifetime: Duration,
    ) -> Result<SecretString, ObjectError>;

    /// What is stored under the key; none when nothing is.
    async fn head(
        &self,
        region: Region,
        key: &ObjectKey,
    ) -> Result<Option<ObjectInfo>, ObjectError>;

    /// Ok when it is gone already.
    async fn delete(&self, region: Region, key: &ObjectKey) -> Result<(), ObjectError>;

    /// Deletes every object under the prefix and aborts every upload under it. Answers how many
    /// objects there were.
    async fn delete_prefix(
        &self,
        region: Region,
        prefix: &ObjectPrefix,
    ) -> Result<u64, ObjectError>;

    /// Some objects under the prefix (on S3 up to 1,000) in the order of their keys, those behind
    /// `after` (a page's `next`).
    async fn list(
        &self,
        region: Region,
        prefix: &ObjectPrefix,
        after: Option<&str>,
    ) -> Result<ObjectPage, ObjectError>;

    /// Aborts every upload of the bucket that was begun before that time (the store's clock) and
    /// never ended. Take a time so long ago that no put of today can be meant: a day. Answers how
    /// many there were.
    async fn abort_leftovers(
        &self,
        region: Region,
        before: DateTime<Utc>,
    ) -> Result<u64, ObjectError>;
}

/// The content of an object. After an error nothing more comes.
pub type ObjectStream = BoxStream<'static, Result<Bytes, ObjectError>>;

/// What a put stored: to be recorded, and shown to [`Objects::get`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// In bytes.
    pub size: u64,
    /// CRC-32 (ISO-HDLC, that of zip and of S3) of the whole content.
    pub crc32: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// In bytes.
    pub size: u64,
    /// Of the whole content, where the store knows it.
    pub crc32: Option<u32>,
    /// By the store's clock.
    pub modified_at: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectPage {
    pub objects: Vec<ListedObject>,
    /// What to ask for next; none: that was all.
    pub next: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    pub key: ObjectKey,
    /// In bytes.
    pub size: u64,
    /// By the store's clock.
    pub modified_at: DateTime<Utc>,
}

/// Why a store did not do it, by what the caller does next. The texts are for operators and hold
/// no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// It failed for now; try again later, a put under another key.
    #[error("the object store failed for now: {0}")]
    Transient(String),
    /// Trying again cannot help: a permission, a bucket or a configuration is missing.
    #[error("the object store refused: {0}")]
    Permanent(String),
    /// Nothing is stored under that key.
    #[error("no such object")]
    NotFound,
    /// Something else is stored under that key, and stays. Take another.
    #[error("another object has that key")]
    Exists,
    /// What is stored is not what was put. Reading it once more tells whether it is so or only
    /// came so.
    #[error("the object is damaged: {0}")]
    Corrupt(String),
    /// The content to put could not be read to its end; nothing was stored.
    #[error("the content could not be read: {0}")]
    Source(String),
}
