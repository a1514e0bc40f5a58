//! AWS as far as it can be had here: moto speaks its protocol and keeps its state, [`Chaos`] stands
//! before it and fails as AWS and networks do, [`Hosts`] are the machines, whose agents begin with
//! the user-data that was really sent.

mod chaos;
mod hosts;
mod moto;
mod store;

pub use chaos::{Chaos, Fault};
pub use hosts::Hosts;
pub use moto::{Instance, Moto};
pub use store::Store;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cp_model::{InstanceType, Region};
use cp_provider::AwsAccess;
use cp_provider::ec2::Ec2Compute;
use cp_provider::ec2::config::{Ec2Config, Ec2Region, Image, Ration};

/// The profile that machines get.
const PROFILE: &str = "insforge-machine";

/// An account with one or more regions, and the machines in it.
pub struct Cloud {
    pub moto: Moto,
    pub hosts: Arc<Hosts>,
    pub regions: BTreeMap<Region, Arc<Chaos>>,
    pub config: Ec2Config,
}

impl Cloud {
    pub async fn start(regions: &[Region]) -> Self {
        let moto = Moto::start().await;
        moto.create_instance_profile(PROFILE).await;
        let hosts = Hosts::start().await;
        let mut chaos = BTreeMap::new();
        let mut configs = Vec::new();
        for region in regions {
            let aws_region = aws_region(*region);
            let proxy = Chaos::listen(&moto.url, hosts.clone()).await;
            configs.push(Ec2Region {
                region: *region,
                aws_region: aws_region.into(),
                endpoint: Some(proxy.url.clone()),
                subnets: moto.subnets(aws_region).await,
                security_groups: moto.security_groups(aws_region).await,
                image: Image::Id(moto.register_image(aws_region, "insforge-machine-1").await),
                instance_types: BTreeMap::from([
                    (
                        InstanceType::Nano,
                        vec!["t3.small".into(), "t3a.small".into()],
                    ),
                    (InstanceType::Micro, vec!["t3.medium".into()]),
                ]),
                launches: Ration {
                    interval: Duration::from_millis(5),
                    ..Ration::default()
                },
            });
            chaos.insert(*region, Arc::new(proxy));
        }
        let config = Ec2Config {
            deployment: "test".into(),
            access_host: format!("{}/{{address}}", hosts.url),
            instance_profile: Some(PROFILE.into()),
            hop_limit: 2,
            patience: Duration::from_millis(1500),
            regions: configs,
        };
        Self {
            moto,
            hosts,
            regions: chaos,
            config,
        }
    }

    /// What a worker would drive.
    pub fn compute(&self) -> Ec2Compute {
        let access = AwsAccess::fixed(&self.moto.url, "test", "test");
        Ec2Compute::new(&access, self.config.clone())
    }

    /// The proxy of the one region, or of the first.
    pub fn chaos(&self) -> &Chaos {
        self.regions.values().next().expect("there is a region")
    }

    /// The same, for whoever outlives this.
    pub fn chaos_handle(&self) -> Arc<Chaos> {
        let first = self.regions.values().next();
        first.expect("there is a region").clone()
    }

    /// Every instance that there ever was, in all regions.
    pub async fn launched(&self) -> Vec<Instance> {
        let mut launched = Vec::new();
        for region in self.regions.keys() {
            launched.extend(self.moto.instances(aws_region(*region)).await);
        }
        launched
    }

    /// Instances that cost money, in all regions.
    pub async fn alive(&self) -> Vec<Instance> {
        let mut alive = self.launched().await;
        alive.retain(|instance| instance.state != "terminated");
        alive
    }

    /// What people do in AWS's console: `StopInstances`, `TerminateInstances`.
    pub async fn by_hand(&self, region: Region, action: &str, instance: &str) {
        let region = aws_region(region);
        self.moto.by_hand(region, action, instance).await;
        self.hosts.stopped(instance);
    }

    /// Volumes that cost money, in all regions.
    pub async fn volumes(&self) -> usize {
        let mut count = 0;
        for region in self.regions.keys() {
            count += self.moto.count_volumes(aws_region(*region)).await;
        }
        count
    }
}

fn aws_region(region: Region) -> &'static str {
    match region {
        Region::UsEast => "us-east-1",
        Region::UsWest => "us-west-2",
        Region::ApSoutheast => "ap-southeast-1",
        Region::EuCentral => "eu-central-1",
    }
}
