//! Machines that are processes on this computer, and a store over a folder: for workers in the test's own process, which it
//! can stop at any place.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use cp_model::Region;
use cp_pg::{Binaries, Durability};
use cp_provider::local::{LocalCompute, LocalConfig, Runtime};
use cp_provider::objects::ObjectPrefix;
use cp_provider::s3::folder::FolderServer;
use cp_provider::{Compute as _, S3Bucket, S3Objects, SharedObjects};
use uuid::Uuid;

use crate::programs::{Home, built};

/// What these machines are, and where copies are kept. Dropped, all of it is gone.
pub struct Local {
    pub compute: LocalCompute,
    pub objects: SharedObjects,
    _server: FolderServer,
    // Last: it kills what still runs.
    home: Home,
}

impl Local {
    /// # Panics
    /// When the folder, the template of Postgres or the store cannot be made.
    pub async fn start() -> Self {
        let home = Home::new();
        let config = LocalConfig {
            dir: home.path().join("machines"),
            agent_binary: built("insforge-agent"),
            binaries: Binaries::find().await.expect("Postgres is installed"),
            durability: Durability::Fast,
            runtime: Runtime::Builtin,
            control_url: None,
        };
        let compute = LocalCompute::open(config)
            .await
            .expect("a folder of ours can be opened");
        compute.prepare().await.expect("the template can be made");
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let server = FolderServer::start(&home.path().join("objects"), listen, Durability::Fast)
            .await
            .expect("a folder can be served");
        let bucket = |region: Region| S3Bucket {
            aws_region: "us-east-1".to_owned(),
            name: region.to_string(),
            kms_key: None,
            endpoint: None,
        };
        let buckets: BTreeMap<_, _> = Region::ALL.iter().map(|r| (*r, bucket(*r))).collect();
        let objects = S3Objects::new(&server.access(), buckets, Duration::from_secs(10));
        objects.create_buckets().await.expect("buckets can be made");
        Self {
            compute,
            objects: Arc::new(objects),
            _server: server,
            home,
        }
    }

    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The ids of the machines that there are.
    pub async fn machines(&self) -> Vec<Uuid> {
        let listed = self.compute.list(Region::UsEast).await;
        let listed = listed.expect("a folder can be listed");
        listed.iter().map(|machine| machine.machine_id.0).collect()
    }

    /// The keys of all that is stored under the prefix.
    pub async fn objects_under(&self, prefix: &str) -> Vec<String> {
        let prefix = ObjectPrefix::new(prefix).expect("a prefix is well-formed");
        let page = self.objects.list(Region::UsEast, &prefix, None).await;
        let page = page.expect("a folder can be listed");
        page.objects
            .into_iter()
            .map(|object| object.key.to_string())
            .collect()
    }
}
