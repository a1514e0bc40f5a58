//! Machines on EC2 and objects on S3, as far as that can be had here: moto for the protocol, a proxy
//! for what goes wrong, agents that begin with the user-data that was sent.

mod faults;
mod lifecycle;
mod objects;
mod objects_faults;
mod regions;
mod verbs;

use std::sync::Arc;
use std::time::Duration;

use cp_model::Region;
use cp_tests::aws::Cloud;
use cp_tests::{App, AppOptions, PartnerClient};
use cp_worker::PoolTarget;

/// A control plane whose machines are instances.
struct Story {
    app: App,
    partner: PartnerClient,
    cloud: Cloud,
}

impl Story {
    async fn start(regions: &[Region], pool: Vec<PoolTarget>) -> Self {
        let cloud = Cloud::start(regions).await;
        let app = App::start_with(AppOptions {
            compute: Some(Arc::new(cloud.compute())),
            pool,
            create_wait: Duration::from_secs(20),
            ..AppOptions::default()
        })
        .await;
        let partner = app.partner().await;
        Self {
            app,
            partner,
            cloud,
        }
    }

    /// Instances that cost money, by their state.
    async fn alive(&self) -> Vec<String> {
        let alive = self.cloud.alive().await;
        alive.into_iter().map(|instance| instance.state).collect()
    }
}
