//! What is in the folder, and the only code that changes it.
//!
//! Reads look at an index in memory, made at the start. Every change of it is made under `changes`
//! and is on disk before it is in the index. Changes block: see [`Store`](super::Store), which runs
//! them to their end whether or not the client waits for it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use s3s::{S3Error, S3Result, dto::ServerSideEncryption, s3_error};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    content::Draft,
    disk::{self, Disk},
};

/// One object: what its `.json` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Object {
    pub(super) key: String,
    /// The folder of its data, and its entity tag: another content has another one.
    pub(super) id: String,
    pub(super) parts: Vec<Part>,
    pub(super) size: u64,
    pub(super) crc32: u32,
    pub(super) created_at: DateTime<Utc>,
    pub(super) about: About,
}

/// A file of content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) file: String,
    pub(super) size: u64,
    pub(super) crc32: u32,
}

/// What a put says beside the content.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) content_type: Option<String>,
    pub(super) metadata: Option<HashMap<String, String>>,
    /// Told back; this disk is the developer's own and is not encrypted.
    pub(super) encryption: Option<String>,
    pub(super) kms_key: Option<String>,
}

impl About {
    pub(super) fn new(
        content_type: Option<String>,
        metadata: Option<HashMap<String, String>>,
        encryption: Option<ServerSideEncryption>,
        kms_key: Option<String>,
    ) -> Self {
        Self {
            content_type,
            metadata,
            encryption: encryption.map(|named| named.as_str().to_owned()),
            kms_key,
        }
    }
}

/// A multipart upload that is not completed.
pub(super) struct Upload {
    pub(super) begun_at: DateTime<Utc>,
    pub(super) about: About,
    pub(super) parts: BTreeMap<i32, Part>,
}

#[derive(Default)]
pub(super) struct Bucket {
    pub(super) objects: BTreeMap<String, Arc<Object>>,
    /// By key and upload id, as S3 lists them.
    pub(super) uploads: BTreeMap<UploadAt, Upload>,
}

/// Which upload of a bucket: its key and its id.
pub(super) type UploadAt = (String, String);

pub(super) struct Shelf {
    root: PathBuf,
    pub(super) disk: Disk,
    /// The smallest part but the last, in bytes.
    pub(super) min_part: u64,
    changes: Mutex<()>,
    buckets: Mutex<HashMap<String, Bucket>>,
}

impl Shelf {
    /// Reads the index and sweeps what a crash left.
    pub(super) fn open(root: PathBuf, disk: Disk, min_part: u64) -> io::Result<Self> {
        let mut buckets = HashMap::new();
        for entry in fs::read_dir(&root)? {
            let entry = entry?;
            if let (true, Ok(name)) = (entry.file_type()?.is_dir(), entry.file_name().into_string())
            {
                buckets.insert(name, read_bucket(&entry.path())?);
            }
        }
        Ok(Self {
            root,
            disk,
            min_part,
            changes: Mutex::new(()),
            buckets: Mutex::new(buckets),
        })
    }

    /// Looks at a bucket, or changes its uploads. Its objects are changed below only.
    pub(super) fn bucket<T>(
        &self,
        name: &str,
        look: impl FnOnce(&mut Bucket) -> S3Result<T>,
    ) -> S3Result<T> {
        match self.buckets().get_mut(name) {
            Some(bucket) => look(bucket),
            None => Err(s3_error!(NoSuchBucket)),
        }
    }

    pub(super) fn object(&self, bucket: &str, key: &str) -> S3Result<Arc<Object>> {
        self.bucket(bucket, |bucket| {
            let found = bucket.objects.get(key).cloned();
            found.ok_or_else(|| s3_error!(NoSuchKey))
        })
    }

    /// Objects whose keys begin with `prefix` and come behind `after`, and whether there are more
    /// than `limit`.
    pub(super) fn page(
        &self,
        bucket: &str,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> S3Result<(Vec<Arc<Object>>, bool)> {
        let from = if after < prefix {
            Bound::Included(prefix)
        } else {
            Bound::Excluded(after)
        };
        self.bucket(bucket, |bucket| {
            let mut found = bucket
                .objects
                .range::<str, _>((from, Bound::Unbounded))
                .map(|(_, object)| object)
                .take_while(|object| object.key.starts_with(prefix));
            let page = found.by_ref().take(limit).cloned().collect();
            Ok((page, found.next().is_some()))
        })
    }

    pub(super) fn data(&self, bucket: &str, id: &str) -> PathBuf {
        self.root.join(bucket).join("data").join(id)
    }

    pub(super) fn create_bucket(&self, name: &str) -> S3Result<()> {
        let _change = self.change();
        if self.buckets().contains_key(name) {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        let dir = self.root.join(name);
        let made = || {
            fs::create_dir_all(dir.join("objects"))?;
            fs::create_dir_all(dir.join("data"))?;
            self.disk.sync_dir(&dir)?;
            self.disk.sync_parent(&dir)
        };
        made().map_err(S3Error::internal_error)?;
        self.buckets().insert(name.to_owned(), Bucket::default());
        Ok(())
    }

    /// Makes an object of what was drafted.
    pub(super) fn put(
        &self,
        bucket: &str,
        object: Object,
        may_replace: bool,
        mut draft: Draft,
    ) -> S3Result<Arc<Object>> {
        let _change = self.change();
        let object = self.commit(bucket, object, may_replace)?;
        draft.keep();
        Ok(object)
    }

    /// Makes an object of an upload, which ends with it; on an error it goes on. From the moment
    /// that `build` has chosen its parts none is taken any more: one that was sent twice, and
    /// arrives late, must not replace a part that was chosen.
    pub(super) fn complete(
        &self,
        bucket: &str,
        at: UploadAt,
        may_replace: bool,
        build: impl FnOnce(&Upload) -> S3Result<Object>,
    ) -> S3Result<Arc<Object>> {
        let _change = self.change();
        let upload = self.bucket(bucket, |bucket| {
            let upload = bucket.uploads.remove(&at);
            upload.ok_or_else(|| s3_error!(NoSuchUpload))
        })?;
        let object = build(&upload).and_then(|object| self.commit(bucket, object, may_replace));
        if object.is_err() {
            self.bucket(bucket, |bucket| Ok(bucket.uploads.insert(at, upload)))?;
        }
        object
    }

    /// Makes an object what its key names. Its data lies in [`Shelf::data`] already.
    fn commit(&self, bucket: &str, object: Object, may_replace: bool) -> S3Result<Arc<Object>> {
        let replaced = self.bucket(bucket, |bucket| {
            Ok(bucket.objects.get(&object.key).cloned())
        })?;
        if replaced.is_some() && !may_replace {
            return Err(s3_error!(PreconditionFailed));
        }
        let data = self.data(bucket, &object.id);
        let written = || {
            self.disk.sync_dir(&data)?;
            self.disk.sync_parent(&data)?;
            self.disk
                .write_json(&self.record(bucket, &object.key), &object)
        };
        written().map_err(S3Error::internal_error)?;
        let object = Arc::new(object);
        self.bucket(bucket, |bucket| {
            bucket.objects.insert(object.key.clone(), object.clone());
            Ok(())
        })?;
        if let Some(replaced) = replaced {
            self.remove_data(bucket, &replaced.id);
        }
        Ok(object)
    }

    /// Ok when there is none.
    pub(super) fn delete(&self, bucket: &str, key: &str) -> S3Result<()> {
        let _change = self.change();
        let Some(object) = self.bucket(bucket, |bucket| Ok(bucket.objects.get(key).cloned()))?
        else {
            return Ok(());
        };
        let record = self.record(bucket, key);
        disk::remove(&record)
            .and_then(|()| self.disk.sync_parent(&record))
            .map_err(S3Error::internal_error)?;
        self.bucket(bucket, |bucket| Ok(bucket.objects.remove(key)))?;
        self.remove_data(bucket, &object.id);
        Ok(())
    }

    /// Ends an upload without an object.
    pub(super) fn abort(&self, bucket: &str, at: &UploadAt) -> S3Result<()> {
        let _change = self.change();
        self.bucket(bucket, |bucket| {
            let removed = bucket.uploads.remove(at);
            removed.ok_or_else(|| s3_error!(NoSuchUpload))
        })?;
        self.remove_data(bucket, &at.1);
        Ok(())
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn buckets(&self) -> MutexGuard<'_, HashMap<String, Bucket>> {
        // Nothing under this lock can leave it half changed.
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, bucket: &str, key: &str) -> PathBuf {
        let name = hex::encode(Sha256::digest(key));
        self.root
            .join(bucket)
            .join("objects")
            .join(format!("{name}.json"))
    }

    /// What stays is swept at the next start.
    fn remove_data(&self, bucket: &str, id: &str) {
        if let Err(error) = disk::remove(&self.data(bucket, id)) {
            tracing::warn!(%error, %bucket, %id, "data was left behind");
        }
    }
}

fn read_bucket(dir: &Path) -> io::Result<Bucket> {
    let (mut objects, mut used) = (BTreeMap::new(), HashSet::new());
    // Whoever made the bucket may have died over it.
    for part in ["objects", "data"] {
        fs::create_dir_all(dir.join(part))?;
    }
    for entry in fs::read_dir(dir.join("objects"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            disk::remove(&path)?;
            continue;
        }
        // What file managers leave everywhere.
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let object: Object = disk::read_json(&path)?;
        used.insert(object.id.clone());
        objects.insert(object.key.clone(), Arc::new(object));
    }
    for entry in fs::read_dir(dir.join("data"))? {
        let entry = entry?;
        if !entry
            .file_name()
            .to_str()
            .is_some_and(|id| used.contains(id))
        {
            disk::remove(&entry.path())?;
        }
    }
    Ok(Bucket {
        objects,
        uploads: BTreeMap::new(),
    })
}
