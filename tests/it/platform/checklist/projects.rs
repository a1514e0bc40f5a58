//! `projects` (contract/platform-api.md 9).

use cp_model::Plan;
use cp_tests::AppOptions;
use serde_json::{Value, json};

use super::forms::{LATEST_VERSION, ONE_PROJECT, ORGANIZATIONS, PROJECTS, UPGRADE};
use super::{Story, id_of, shown};

/// 9.1: what a directory sends that is linked to a host.
const SENTINEL_PROJECT: &str = "fa4e0000-1234-5678-90ab-cd1234567890";
const SENTINEL_ORGANIZATION: &str = "fa4e0001-1234-5678-90ab-cd1234567890";

impl Story {
    async fn pay(&self) {
        let user = self.ada.user.parse().unwrap();
        let paid = self.app.control_plane.set_user_plan(user, Plan::Pro);
        paid.await.unwrap();
    }
}

#[tokio::test]
async fn projects_list() {
    let story = Story::of("projects list").await;
    let project = story.project().await;
    let home = story.organization().await;
    let listed = story
        .cli
        .get(&format!("/organizations/v1/{home}/projects"))
        .await;
    let listed = listed.shaped(200, &PROJECTS);
    assert_eq!(listed["projects"].as_array().unwrap().len(), 1);
    assert_eq!(id_of(&listed["projects"][0]), project);
    let path = format!("/organizations/v1/{SENTINEL_ORGANIZATION}/projects");
    shown(story.cli.get(&path).await, 404);
}

#[tokio::test]
async fn projects_get() {
    let story = Story::of("projects get").await;
    let project = story.project().await;
    let seen = story.cli.get(&format!("/projects/v1/{project}")).await;
    let seen = seen.shaped(200, &ONE_PROJECT);
    let seen = &seen["project"];
    assert_eq!(id_of(seen), project);
    assert_eq!(seen["organization_id"], story.ada.home().await);
    for field in ["operation_status", "service_version", "customized_domain"] {
        assert!(seen.get(field).is_some(), "{field} is null, not absent");
    }
    let path = format!("/projects/v1/{SENTINEL_PROJECT}");
    let text = shown(story.cli.get(&path).await, 404);
    assert!(text.contains("not found"), "{text}");
}

#[tokio::test]
async fn projects_update() {
    let story = Story::of("projects update").await;
    let path = format!("/projects/v1/{}", story.project().await);
    let put = async |body: Value| {
        let updated = story.cli.put(&path, body).await;
        updated.shaped(200, &ONE_PROJECT)["project"].clone()
    };
    assert_eq!(put(json!({ "name": "shop" })).await["name"], "shop");
    let named = put(json!({ "customizedDomain": "api.example.com" })).await;
    assert_eq!(named["customized_domain"], "api.example.com");
    for (body, field) in [
        (json!({}), "name"),
        (json!({ "name": "x" }), "name"),
        (json!({ "customizedDomain": "x y" }), "customizedDomain"),
        (json!({ "storageDiskSize": 100_000 }), "storageDiskSize"),
    ] {
        let text = shown(story.cli.put(&path, body).await, 400);
        assert!(text.contains(field), "{text}");
    }
    let bigger = json!({ "storageDiskSize": 20 });
    shown(story.cli.put(&path, bigger).await, 403);
}

#[tokio::test]
async fn projects_delete() {
    let story = Story::at_work("projects delete").await;
    let path = format!("/projects/v1/{}", story.active_project().await);
    story.cli.get(&path).await.shaped(200, &ONE_PROJECT);
    let deleted = story.cli.delete(&path).await;
    assert_eq!((deleted.status, &*deleted.text), (204, ""));
    let text = shown(story.cli.get(&path).await, 404);
    assert!(text.contains("not found"), "{text}");
    story.app.settle().await;
    story.app.assert_truth().await;
}

#[tokio::test]
async fn projects_transfer() {
    let story = Story::of("projects transfer").await;
    let team = story.ada.create_organization("Moreno Labs").await;
    let path = format!("/projects/v1/{}", story.project().await);
    // In the middle of an operation it is not given away: an ordinary error.
    story
        .run(
            "update operations set state = 'succeeded' where project_id = $1",
            path.rsplit('/').next().unwrap(),
        )
        .await;
    story.cli.get(&path).await.shaped(200, &ONE_PROJECT);
    let to = json!({ "targetOrganizationId": team });
    let given = story.cli.post_json(&format!("{path}/transfer"), to).await;
    let given = given.shaped(200, &ONE_PROJECT);
    assert_eq!(given["project"]["organization_id"], team);
    let nowhere = json!({ "targetOrganizationId": SENTINEL_ORGANIZATION });
    let refused = story
        .cli
        .post_json(&format!("{path}/transfer"), nowhere)
        .await;
    shown(refused, 404);
}

#[tokio::test]
async fn projects_restore() {
    let story = Story::at_work("projects restore").await;
    let project = story.active_project().await;
    let path = format!("/projects/v1/{project}");
    story.ada.post(&format!("{path}/pause")).await.expect(202);
    story.ada.await_status(&project, "paused").await;
    // A content type and no body.
    let restored = story.cli.post(&format!("{path}/restore")).await;
    let restored = restored.shaped(202, &ONE_PROJECT);
    assert_eq!(restored["project"]["status"], "restoring");
    assert_eq!(restored["project"]["operation_status"], "restoring");
    story.ada.await_status(&project, "active").await;
    let nothing = story.cli.post(&format!("{path}/restore")).await;
    let nothing = nothing.shaped(200, &ONE_PROJECT);
    assert_eq!(nothing["project"]["status"], "active");
}

#[tokio::test]
async fn projects_update_version() {
    let options = AppOptions {
        latest_release: Some("v2.2.3".into()),
        ..AppOptions::default()
    };
    let story = Story::with("projects update-version", options).await;
    let path = format!("/projects/v1/{}", story.active_project().await);
    let latest = story.cli.get("/platform/insforge/latest-version").await;
    let latest = latest.shaped(200, &LATEST_VERSION);
    assert_eq!(cp_tests::fields(&latest), ["cached", "version"]);
    let version = latest["version"].as_str().unwrap();
    let seen = story.cli.get(&path).await.shaped(200, &ONE_PROJECT);
    assert_ne!(seen["project"]["service_version"], version[1..]);
    // Unchanged, with its `v`.
    let restart = format!("{path}/restart?insforgeOssVersion={version}");
    let begun = story.cli.post(&restart).await.shaped(202, &ONE_PROJECT);
    assert_eq!(
        begun["project"]["operation_status"],
        "updating_project_version"
    );
    story
        .ada
        .await_status(path.rsplit('/').next().unwrap(), "active")
        .await;
    // `--wait`: answered when it is done.
    let waited = story
        .cli
        .post(&format!("{restart}&waitForCompletion=true"))
        .await;
    let waited = waited.shaped(200, &ONE_PROJECT);
    assert_eq!(waited["project"]["status"], "active");
    assert_eq!(waited["project"]["operation_status"], Value::Null);
}

#[tokio::test]
async fn projects_upgrade_instance() {
    let story = Story::at_work("projects upgrade-instance").await;
    let project = story.active_project().await;
    let path = format!("/projects/v1/{project}/upgrade-instance");
    let small = json!({ "instanceType": "small" });
    shown(story.cli.post_json(&path, small.clone()).await, 403);
    story.pay().await;
    let upgraded = story.cli.post_json(&path, small).await;
    let upgraded = upgraded.shaped(200, &UPGRADE);
    assert_eq!(
        (
            &upgraded["previousInstanceType"],
            &upgraded["newInstanceType"]
        ),
        (&json!("nano"), &json!("small"))
    );
    story.ada.await_status(&project, "active").await;
    let wrong = json!({ "instanceType": "huge" });
    let text = shown(story.cli.post_json(&path, wrong).await, 400);
    assert!(text.contains("instanceType"), "{text}");
}

/// 9.1: what commands in a directly linked directory send, is not there.
#[tokio::test]
async fn the_sentinels_are_not_there_for_any_command() {
    let story = Story::of("orgs list").await;
    story
        .cli
        .get("/organizations/v1")
        .await
        .shaped(200, &ORGANIZATIONS);
    for path in [
        format!("/projects/v1/{SENTINEL_PROJECT}/branches"),
        format!("/organizations/v1/{SENTINEL_ORGANIZATION}/members"),
        format!("/organizations/v1/{SENTINEL_ORGANIZATION}/subscription-status"),
        format!("/billing/v1/{SENTINEL_ORGANIZATION}/credits"),
        format!("/usage/v1/organizations/{SENTINEL_ORGANIZATION}"),
    ] {
        shown(story.ada.get(&path).await, 404);
    }
}
