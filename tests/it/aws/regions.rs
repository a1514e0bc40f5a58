//! Two regions: what happens to the one is nothing to the other. And what people do to instances
//! behind our back.

use std::time::Duration;

use cp_model::{InstanceType, MachineId, ProjectId, ProjectStatus, Region};
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
        let id: ProjectId = made["project"]["id"].as_str().unwrap().parse().unwrap();
        story.app.wait_for_status(id, ProjectStatus::Active).await;
        story.partner.pause(&id.to_string()).await.expect(200);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_without_machines_refuses_at_once_and_its_projects_can_be_deleted() {
    let story = Story::start(&[Region::UsEast], Vec::new()).await;
    let body = json!({ "project_name": "far", "region": "eu-central" });
    let made = story.partner.post("/sync-embedded-project", &body).await;
    let id = made.body["project"]["id"].as_str().unwrap().to_owned();
    let project: ProjectId = id.parse().unwrap();
    story
        .app
        .wait_for_status(project, ProjectStatus::Failed)
        .await;
    let refused = story.app.newest_operation(project).await;
    let failure = refused.error.unwrap();
    assert_eq!(failure.code, "region_unavailable");
    assert!(
        failure.message.contains("eu-central"),
        "{}",
        failure.message
    );
    assert_eq!(refused.attempts, 0);
    story.partner.delete_project(&id).await.expect(200);
    story
        .app
        .wait_for_status(project, ProjectStatus::Deleted)
        .await;
}

/// As an earlier release left it: with the intent to launch, which nobody was ever asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intent_in_a_region_without_machines_does_not_hold_up_a_delete() {
    let story = Story::start(&[Region::UsEast], Vec::new()).await;
    let body = json!({ "project_name": "far", "region": "eu-central" });
    let made = story.partner.post("/sync-embedded-project", &body).await;
    let id = made.body["project"]["id"].as_str().unwrap().to_owned();
    let project: ProjectId = id.parse().unwrap();
    story
        .app
        .wait_for_status(project, ProjectStatus::Failed)
        .await;
    let control_plane = &story.app.control_plane;
    let plan = control_plane
        .plan_pool("ec2", Region::EuCentral, InstanceType::Nano, 1, 1)
        .await;
    sqlx::query("update machines set project_id = $2, held_data = true where id = $1")
        .bind(plan.unwrap().launch[0].0)
        .bind(project.0)
        .execute(&mut story.app.database.connect().await)
        .await
        .unwrap();
    story.partner.delete_project(&id).await.expect(200);
    story
        .app
        .wait_for_status(project, ProjectStatus::Deleted)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_aws_will_retire_is_moved_and_loose_volumes_are_deleted() {
    let story = Story::start(&[Region::UsEast], Vec::new()).await;
    let project = story.partner.create_active_project("shop").await;
    let [instance] = story.cloud.alive().await.try_into().unwrap();
    let volume = async |machine: &str| {
        let more = [
            ("AvailabilityZone", "us-east-1a"),
            ("Size", "8"),
            ("TagSpecification.1.ResourceType", "volume"),
            ("TagSpecification.1.Tag.1.Key", "insforge:managed"),
            ("TagSpecification.1.Tag.1.Value", "test"),
            ("TagSpecification.1.Tag.2.Key", "insforge:machine"),
            ("TagSpecification.1.Tag.2.Value", machine),
        ];
        story
            .cloud
            .moto
            .call("ec2", "us-east-1", "CreateVolume", &more)
            .await;
    };
    volume(&MachineId::generate().to_string()).await;
    volume(instance.machine.as_deref().unwrap()).await;
    assert_eq!(story.cloud.volumes().await, 3);
    eventually("what nobody can need is deleted", SOON, async || {
        (story.cloud.volumes().await == 2).then_some(())
    })
    .await;

    let chaos = story.cloud.chaos();
    chaos.answer("DescribeInstanceStatus", Some(retiring(&instance.id)));
    eventually("it was stopped", SOON, async || {
        (chaos.calls_of("StopInstances") == 1).then_some(())
    })
    .await;
    chaos.answer("DescribeInstanceStatus", Some(retired(&instance.id)));
    eventually("it runs again", SOON, async || {
        let runs = story.alive().await == ["running"];
        (runs && chaos.calls_of("StartInstances") == 1).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        chaos.calls_of("StopInstances"),
        1,
        "what is over moves nobody"
    );
    let now = story.partner.metadata(&project).await.expect(200);
    assert_eq!(now["project"]["status"], "active");
    assert_eq!(
        story.cloud.volumes().await,
        2,
        "its own and the one taken off"
    );
    assert_eq!(chaos.calls_of("DeleteVolume"), 1);
}

fn retiring(instance: &str) -> String {
    statuses(instance, "The instance is running on degraded hardware")
}

fn retired(instance: &str) -> String {
    statuses(
        instance,
        "[Completed] The instance is running on degraded hardware",
    )
}

/// As in the EC2 API reference's example of DescribeInstanceStatus.
fn statuses(instance: &str, event: &str) -> String {
    format!(
        "<DescribeInstanceStatusResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
         <requestId>r</requestId><instanceStatusSet><item><instanceId>{instance}</instanceId>\
         <instanceState><code>16</code><name>running</name></instanceState>\
         <eventsSet><item><code>instance-retirement</code><description>{event}</description>\
         <notBefore>2026-12-01T00:00:00.000Z</notBefore></item></eventsSet>\
         <systemStatus><status>ok</status></systemStatus>\
         <instanceStatus><status>ok</status></instanceStatus>\
         </item></instanceStatusSet></DescribeInstanceStatusResponse>"
    )
}
