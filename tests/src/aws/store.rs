//! S3 as far as it can be had here: a bucket per region in moto, and [`Chaos`] before each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cp_model::Region;
use cp_provider::{AwsAccess, S3Bucket, S3Objects};

use super::{Chaos, Hosts, Moto, aws_region};

/// How long a request may take until it counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Store {
    pub moto: Arc<Moto>,
    pub regions: BTreeMap<Region, Chaos>,
    pub buckets: BTreeMap<Region, S3Bucket>,
    hosts: Arc<Hosts>,
}

impl Store {
    /// With empty buckets.
    pub async fn start(regions: &[Region]) -> Self {
        let (moto, hosts) = (Arc::new(Moto::start().await), Hosts::start().await);
        Self::of(moto, hosts, "objects", regions).await
    }

    /// Further buckets in the same account, with faults of their own.
    pub async fn beside(&self, name: &str, regions: &[Region]) -> Self {
        Self::of(self.moto.clone(), self.hosts.clone(), name, regions).await
    }

    async fn of(moto: Arc<Moto>, hosts: Arc<Hosts>, name: &str, regions: &[Region]) -> Self {
        let (mut proxies, mut buckets) = (BTreeMap::new(), BTreeMap::new());
        for region in regions {
            let proxy = Chaos::listen(&moto.url, hosts.clone()).await;
            let bucket = S3Bucket {
                aws_region: aws_region(*region).to_owned(),
                name: format!("{name}-{region}"),
                kms_key: None,
                endpoint: Some(proxy.url.clone()),
            };
            proxies.insert(*region, proxy);
            buckets.insert(*region, bucket);
        }
        let this = Self {
            moto,
            regions: proxies,
            buckets,
            hosts,
        };
        let made = this.objects().create_buckets().await;
        made.expect("moto makes buckets");
        this
    }

    /// What a worker would use.
    pub fn objects(&self) -> S3Objects {
        let access = AwsAccess::fixed(&self.moto.url, "test", "test");
        S3Objects::new(&access, self.buckets.clone(), PATIENCE)
    }

    /// The proxy of the one region, or of the first.
    pub fn chaos(&self) -> &Chaos {
        self.regions.values().next().expect("there is a region")
    }

    /// The bucket of the one region, or of the first.
    pub fn bucket(&self) -> &str {
        let first = self.buckets.values().next();
        &first.expect("there is a region").name
    }
}
