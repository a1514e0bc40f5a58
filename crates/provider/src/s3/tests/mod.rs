//! The S3 client against the folder's server, with faults between the two.

mod chaos;
mod crashes;
mod faults;
mod folder;
mod properties;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use cp_model::Region;
use cp_pg::Durability;
use futures::TryStreamExt;
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{S3Bucket, S3Objects, Tuning, folder as server};
use crate::{
    AwsAccess, Objects,
    objects::{ObjectError, ObjectKey, ObjectPrefix, Stored},
};
use chaos::Chaos;

const REGION: Region = Region::UsEast;
/// Small parts, so that a few thousand bytes are a multipart upload.
const PART: usize = 4096;

/// A store of its own, faults in front of it, and a client with little patience.
struct Rig {
    dir: TempDir,
    chaos: Chaos,
    objects: S3Objects,
    access: AwsAccess,
    _serving: DropGuard,
}

impl Rig {
    async fn start() -> Self {
        Self::start_with(impatient()).await
    }

    async fn start_with(tuning: Tuning) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, lock) = server::open(dir.path(), Durability::Fast, 1).await.unwrap();
        let mut service = S3ServiceBuilder::new(store);
        service.set_auth(SimpleAuth::from_single("key", "secret"));
        let chaos = Chaos::new(service.build());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn({
            let (chaos, stop) = (chaos.clone(), stop.clone());
            async move {
                server::serve(listener, chaos, stop).await;
                drop(lock);
            }
        });
        let access = AwsAccess::fixed(&format!("http://{address}"), "key", "secret");
        let objects = S3Objects::tuned(&access, buckets(), &tuning);
        objects.create_buckets().await.unwrap();
        Self {
            dir,
            chaos,
            objects,
            access,
            _serving: stop.drop_guard(),
        }
    }

    async fn put(&self, name: &str, content: &[u8]) -> Result<Stored, ObjectError> {
        let mut content = content;
        self.objects.put(REGION, &key(name), &mut content).await
    }

    async fn get(&self, name: &str, expected: &Stored) -> Result<Vec<u8>, ObjectError> {
        let pieces = self.objects.get(REGION, &key(name), expected).await?;
        let all = pieces.try_fold(Vec::new(), |mut all, piece: Bytes| async move {
            all.extend_from_slice(&piece);
            Ok(all)
        });
        all.await
    }

    async fn names(&self, prefix: &str) -> Vec<String> {
        let page = self.objects.list(REGION, &under(prefix), None).await;
        let objects = page.unwrap().objects.into_iter();
        objects.map(|object| object.key.to_string()).collect()
    }

    /// Aborts every upload and answers how many there were.
    async fn abort_all(&self) -> u64 {
        let later = Utc::now() + TimeDelta::hours(1);
        self.objects.abort_leftovers(REGION, later).await.unwrap()
    }

    /// Folders of content in the store's folder.
    fn data(&self) -> Vec<PathBuf> {
        let data = std::fs::read_dir(self.dir.path().join("bucket/data")).unwrap();
        data.map(|entry| entry.unwrap().path()).collect()
    }
}

fn buckets() -> BTreeMap<Region, S3Bucket> {
    let bucket = S3Bucket {
        aws_region: "us-east-1".to_owned(),
        name: "bucket".to_owned(),
        kms_key: None,
        endpoint: None,
    };
    BTreeMap::from([(REGION, bucket)])
}

fn impatient() -> Tuning {
    Tuning {
        part_size: PART,
        parts_in_flight: 3,
        page: 10,
        attempts: 3,
        backoff: Duration::from_millis(2),
        headers: Duration::from_millis(400),
        completion: Duration::from_millis(400),
        stall: Duration::from_millis(400),
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name).unwrap()
}

fn under(prefix: &str) -> ObjectPrefix {
    ObjectPrefix::new(prefix).unwrap()
}

/// Bytes that differ everywhere: a part in the wrong place is noticed.
fn content(size: usize, seed: u32) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..size).map(|_| next()).collect()
}
