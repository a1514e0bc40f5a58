//! The life of a project whose machine is an instance.

use std::time::Duration;

use cp_model::Region;
use cp_tests::eventually;
use serde_json::json;

use super::Story;

const SOON: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_lives_on_an_instance() {
    let story = Story::start(&[Region::UsEast], Vec::new()).await;
    let project = story.partner.create_active_project("shop").await;
    assert_eq!(story.alive().await, ["running"]);
    assert_eq!(story.cloud.volumes().await, 1);

    story.partner.pause(&project).await.expect(200);
    assert_eq!(story.alive().await, ["stopped"]);
    assert_eq!(story.cloud.volumes().await, 1, "the disk stays");

    story.partner.restore(&project).await.expect(200);
    assert_eq!(story.alive().await, ["running"]);

    let size = json!({
        "instance_type": "micro", "volume_size_gib": 20, "wait_for_completion": true
    });
    let path = format!("/{project}/upgrade");
    let upgraded = story.partner.post(&path, &size).await.expect(200);
    assert_eq!(upgraded["message"], "Project upgraded successfully");
    let alive = story.cloud.alive().await;
    let [instance] = alive.as_slice() else {
        panic!("one instance: {alive:?}");
    };
    assert_eq!(
        (instance.instance_type.as_str(), instance.state.as_str()),
        ("t3.medium", "running")
    );
    assert_eq!(story.cloud.volumes().await, 1);

    story.partner.delete_project(&project).await;
    eventually("nothing costs money any more", SOON, async || {
        story.alive().await.is_empty().then_some(())
    })
    .await;
    assert_eq!(story.cloud.volumes().await, 0);
    let launches = story.cloud.chaos().calls_of("RunInstances");
    assert_eq!(launches, 1);
}
