//! Two regions: what happens to the one is nothing to the other. And what people do to instances
//! behind our back.

use std::time::Duration;

use cp_model::{InstanceType, Region};
use cp_tests::eventually;
use cp_worker::PoolTarget;
use serde_json::json;

use super::Story;

const SOON: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_down_holds_up_nobody_in_another() {
    let warm = |region| PoolTarget {
        region,
        instance_type: InstanceType::Nano,
        floor: 1,
        ceiling: 2,
    };
    let pool = vec![warm(Region::EuCentral), warm(Region::UsEast)];
    let story = Story::start(&[Region::EuCentral, Region::UsEast], pool).await;
    eventually("both regions are warm", SOON, async || {
        (story.alive().await.len() == 2).then_some(())
    })
    .await;
    story.cloud.regions[&Region::EuCentral].shut_down();
    let create = async |name: &str, region: &str| {
        let body = json!({ "project_name": name, "region": region });
        story.partner.post("/sync-embedded-project", &body).await
    };
    for round in 0..3 {
        let made = create(&format!("east{round}"), "us-east").await.expect(200);
        assert_eq!(made["project"]["status"], "active", "{made}");
        let id = made["project"]["id"].as_str().unwrap();
        story.partner.pause(id).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_do_to_instances_by_hand_is_mended() {
    let story = Story::start(&[Region::UsEast], Vec::new()).await;
    let project = story.partner.create_active_project("shop").await;
    let [instance] = story.cloud.alive().await.try_into().unwrap();

    // Stopped in AWS's console: it is started again.
    story
        .cloud
        .by_hand(Region::UsEast, "StopInstances", &instance.id)
        .await;
    eventually("it runs again", SOON, async || {
        (story.alive().await == ["running"]).then_some(())
    })
    .await;
    // Terminated there: the project says so.
    story
        .cloud
        .by_hand(Region::UsEast, "TerminateInstances", &instance.id)
        .await;
    eventually("the project has failed", SOON, async || {
        let now = story.partner.metadata(&project).await.expect(200);
        (now["project"]["status"] == "failed").then_some(())
    })
    .await;
    assert!(story.alive().await.is_empty());
    story.app.settle().await;
}
