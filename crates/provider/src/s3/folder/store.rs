//! What is in the folder, and the only code that changes it.
//!
//! Reads look at an index in memory, made at the start. Every change of it is made under `changes`
//! and is on disk before it is in the index.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use s3s::{S3Error, S3Result, s3_error};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex as AsyncMutex;
use uuid::Uuid;

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
    pub(super) uploads: BTreeMap<(String, String), Upload>,
}

/// Where an upload is: bucket, key, upload id.
pub(super) type UploadAt<'a> = (&'a str, &'a str, &'a str);

pub(crate) struct Store {
    root: PathBuf,
    pub(super) disk: Disk,
    /// The smallest part but the last, in bytes.
    pub(super) min_part: u64,
    changes: AsyncMutex<()>,
    buckets: Mutex<HashMap<String, Bucket>>,
}

impl Store {
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
            changes: AsyncMutex::new(()),
            buckets: Mutex::new(buckets),
        })
    }

    pub(super) async fn create_bucket(&self, name: &str) -> S3Result<()> {
        let _change = self.changes.lock().await;
        if self.buckets().contains_key(name) {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        let (disk, dir) = (self.disk, self.root.join(name));
        on_disk(move || {
            fs::create_dir_all(dir.join("objects"))?;
            fs::create_dir_all(dir.join("data"))?;
            disk.sync_dir(&dir)?;
            disk.sync_parent(&dir)
        })
        .await?;
        self.buckets().insert(name.to_owned(), Bucket::default());
        Ok(())
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

    /// A new id and the folder of its data.
    pub(super) async fn draft(&self, bucket: &str) -> S3Result<(String, Draft)> {
        self.bucket(bucket, |_| Ok(()))?;
        let id = Uuid::new_v4().simple().to_string();
        let draft = Draft::begin(self.data(bucket, &id)).await;
        Ok((id, draft.map_err(S3Error::internal_error)?))
    }

    pub(super) fn data(&self, bucket: &str, id: &str) -> PathBuf {
        self.root.join(bucket).join("data").join(id)
    }

    /// Makes an object what its key names. Its data lies in [`Store::data`] already. `upload` ends
    /// with it, and has to be there still.
    pub(super) async fn commit(
        &self,
        bucket: &str,
        object: Object,
        may_replace: bool,
        upload: Option<&(String, String)>,
    ) -> S3Result<Arc<Object>> {
        let _change = self.changes.lock().await;
        let replaced = self.bucket(bucket, |bucket| {
            let replaced = bucket.objects.get(&object.key).cloned();
            if replaced.is_some() && !may_replace {
                return Err(s3_error!(PreconditionFailed));
            }
            if upload.is_some_and(|upload| !bucket.uploads.contains_key(upload)) {
                return Err(s3_error!(NoSuchUpload));
            }
            Ok(replaced)
        })?;
        let object = Arc::new(object);
        let (record, data) = (
            self.record(bucket, &object.key),
            self.data(bucket, &object.id),
        );
        let disk = self.disk;
        on_disk({
            let object = object.clone();
            move || {
                disk.sync_dir(&data)?;
                disk.sync_parent(&data)?;
                disk.write_json(&record, &*object)
            }
        })
        .await?;
        self.bucket(bucket, |bucket| {
            bucket.objects.insert(object.key.clone(), object.clone());
            upload.map(|upload| bucket.uploads.remove(upload));
            Ok(())
        })?;
        if let Some(replaced) = replaced {
            self.remove_data(bucket, &replaced.id).await;
        }
        Ok(object)
    }

    /// Ok when there is none.
    pub(super) async fn delete(&self, bucket: &str, key: &str) -> S3Result<()> {
        let _change = self.changes.lock().await;
        let Some(object) = self.bucket(bucket, |bucket| Ok(bucket.objects.get(key).cloned()))?
        else {
            return Ok(());
        };
        let (disk, record) = (self.disk, self.record(bucket, key));
        on_disk(move || {
            disk::remove(&record)?;
            disk.sync_parent(&record)
        })
        .await?;
        self.bucket(bucket, |bucket| Ok(bucket.objects.remove(key)))?;
        self.remove_data(bucket, &object.id).await;
        Ok(())
    }

    /// Ends an upload without an object.
    pub(super) async fn abort(&self, (bucket, key, id): UploadAt<'_>) -> S3Result<()> {
        let _change = self.changes.lock().await;
        self.bucket(bucket, |bucket| {
            let removed = bucket.uploads.remove(&(key.to_owned(), id.to_owned()));
            removed.ok_or_else(|| s3_error!(NoSuchUpload))
        })?;
        self.remove_data(bucket, id).await;
        Ok(())
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
    async fn remove_data(&self, bucket: &str, id: &str) {
        let dir = self.data(bucket, id);
        if let Err(error) = on_disk(move || disk::remove(&dir)).await {
            tracing::warn!(%error, %bucket, %id, "data was left behind");
        }
    }
}

fn read_bucket(dir: &Path) -> io::Result<Bucket> {
    let (mut objects, mut used) = (BTreeMap::new(), HashSet::new());
    for entry in fs::read_dir(dir.join("objects"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            disk::remove(&path)?;
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

/// Runs file work where it holds nobody up.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> S3Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(S3Error::internal_error)?
        .map_err(S3Error::internal_error)
}
