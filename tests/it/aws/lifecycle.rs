//! The life of a project whose machine is an instance.

use std::time::Duration;

use cp_model::Region;
use cp_tests::eventually;

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

    story.partner.delete_project(&project).await;
    eventually("nothing costs money any more", SOON, async || {
        story.alive().await.is_empty().then_some(())
    })
    .await;
    assert_eq!(story.cloud.volumes().await, 0);
    let launches = story.cloud.chaos().calls_of("RunInstances");
    assert_eq!(launches, 1);
}
