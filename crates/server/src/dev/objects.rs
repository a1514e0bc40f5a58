//! Objects in `dev`: a server of S3's protocol over a folder, inside this process, so that what
//! stores objects takes the same path as in production.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Context as _;
use cp_model::Region;
use cp_pg::Durability;
use cp_provider::s3::folder::FolderServer;
use cp_provider::{S3Bucket, SharedObjects};

use super::DevFolder;
use crate::config::aws::usual_name;
use crate::config::objects::Objects;

/// The server of this `dev`, and its client.
pub(super) struct Private {
    server: FolderServer,
    pub(super) objects: SharedObjects,
}

impl Private {
    /// Takes milliseconds: nothing outside this process is waited for.
    pub(super) async fn start(folder: &DevFolder, config: &Objects) -> anyhow::Result<Self> {
        let root = folder.objects();
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let server = FolderServer::start(&root, listen, Durability::Full)
            .await
            .with_context(|| format!("objects cannot be kept in {}", root.display()))?;
        let buckets = Region::ALL.iter().map(|region| (*region, bucket(*region)));
        let objects = config.open_these(&server.access(), buckets.collect());
        if let Err(error) = objects.create_buckets().await {
            server.stop().await;
            return Err(error).context("the buckets of this folder cannot be made");
        }
        tracing::debug!(
            endpoint = server.endpoint(),
            "objects are kept in the folder"
        );
        Ok(Self {
            server,
            objects: Arc::new(objects),
        })
    }

    pub(super) async fn stop(self) {
        self.server.stop().await;
    }
}

fn bucket(region: Region) -> S3Bucket {
    S3Bucket {
        aws_region: usual_name(region).to_owned(),
        name: region.to_string(),
        kms_key: None,
        endpoint: None,
    }
}

#[cfg(test)]
mod tests {
    use cp_provider::objects::ObjectPrefix;

    use super::*;

    #[tokio::test]
    async fn what_was_stored_is_there_after_the_next_start_in_its_own_region() {
        let dir = tempfile::tempdir().unwrap();
        let folder = DevFolder::open(dir.path()).unwrap();
        let prefix = ObjectPrefix::new("snapshots").unwrap();
        let key = prefix.attempt().unwrap();

        let first = Private::start(&folder, &Objects::default()).await.unwrap();
        let mut dump = &b"dump"[..];
        let put = first.objects.put(Region::EuCentral, &key, &mut dump);
        put.await.unwrap();
        first.stop().await;

        let second = Private::start(&folder, &Objects::default()).await.unwrap();
        assert_eq!(second.objects.regions(), Region::ALL);
        for region in second.objects.regions() {
            let found = second.objects.head(region, &key).await.unwrap();
            assert_eq!(found.is_some(), region == Region::EuCentral, "{region}");
        }
        second.stop().await;
    }
}
