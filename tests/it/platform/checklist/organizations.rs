//! `orgs` (contract/platform-api.md 7).

use serde_json::json;

use super::forms::{LEFT, ONE_ORGANIZATION, ORGANIZATION_DELETED, ORGANIZATIONS, PROJECTS};
use super::{Story, id_of, shown};

#[tokio::test]
async fn orgs_list() {
    let story = Story::of("orgs list").await;
    let team = story.ada.create_organization("Moreno Labs").await;
    let listed = story.cli.get("/organizations/v1").await;
    let listed = listed.shaped(200, &ORGANIZATIONS);
    let all = listed["organizations"].as_array().unwrap();
    let types: Vec<_> = all
        .iter()
        .map(|one| one["type"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["personal", "team"]);
    assert_eq!(id_of(&all[1]), team);
}

#[tokio::test]
async fn orgs_create() {
    let story = Story::of("orgs create").await;
    for kind in ["team", "company", "personal"] {
        let body = json!({ "name": "Moreno Labs", "type": kind });
        let made = story.cli.post_json("/organizations/v1", body).await;
        let made = made.shaped(201, &ONE_ORGANIZATION);
        assert_eq!(made["organization"]["name"], "Moreno Labs");
        assert_eq!(made["organization"]["type"], kind);
    }
    let body = json!({ "name": "x", "type": "team" });
    let text = shown(story.cli.post_json("/organizations/v1", body).await, 400);
    assert!(text.contains("name"), "{text}");
}

#[tokio::test]
async fn orgs_update() {
    let story = Story::of("orgs update").await;
    let path = format!("/organizations/v1/{}", story.organization().await);
    let body = json!({ "name": "Moreno's" });
    let updated = story.cli.put(&path, body).await;
    let updated = updated.shaped(200, &ONE_ORGANIZATION);
    assert_eq!(updated["organization"]["name"], "Moreno's");
    assert_eq!(updated["organization"]["type"], "personal");
    let team = story.ada.create_organization("Moreno Labs").await;
    let path = format!("/organizations/v1/{team}");
    let body = json!({ "name": "Moreno & Co", "type": "company" });
    let updated = story.cli.put(&path, body).await;
    let updated = updated.shaped(200, &ONE_ORGANIZATION);
    assert_eq!(updated["organization"]["type"], "company");
    shown(story.cli.put(&path, json!({})).await, 400);
}

#[tokio::test]
async fn orgs_leave() {
    let story = Story::of("orgs leave").await;
    let (team, _) = story.team_with("Lin").await;
    let listed = story.cli.get("/organizations/v1").await;
    listed.shaped(200, &ORGANIZATIONS);
    // A content type and no body.
    let left = story
        .cli
        .post(&format!("/organizations/v1/{team}/leave"))
        .await;
    left.shaped(200, &LEFT);
    let listed = story.ada.get("/organizations/v1").await.expect(200);
    assert_eq!(listed["organizations"].as_array().unwrap().len(), 1);
    // As the last administrator: an error whose text says so.
    let own = story.ada.create_organization("Alone").await;
    let refused = story
        .cli
        .post(&format!("/organizations/v1/{own}/leave"))
        .await;
    let text = shown(refused, 409);
    assert!(text.contains("last administrator"), "{text}");
}

#[tokio::test]
async fn orgs_delete() {
    let story = Story::of("orgs delete").await;
    let team = story.ada.create_organization("Moreno Labs").await;
    story
        .cli
        .get("/organizations/v1")
        .await
        .shaped(200, &ORGANIZATIONS);
    let path = format!("/organizations/v1/{team}");
    let projects = story.cli.get(&format!("{path}/projects")).await;
    projects.shaped(200, &PROJECTS);
    let deleted = story.cli.delete(&path).await;
    let deleted = deleted.shaped(200, &ORGANIZATION_DELETED);
    assert_eq!(deleted["organizationId"], team);
    shown(story.cli.delete(&path).await, 404);
    // With projects in it: the issue has them deleted first.
    let other = story.ada.create_organization("With projects").await;
    story
        .ada
        .begin_project(&other, "storefront")
        .await
        .expect(201);
    let refused = story
        .cli
        .delete(&format!("/organizations/v1/{other}"))
        .await;
    let text = shown(refused, 409);
    assert!(text.contains("projects"), "{text}");
}
