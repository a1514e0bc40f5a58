//! `orgs members` (contract/platform-api.md 8).

use serde_json::json;

use super::forms::{INVITED, MEMBERS, ONE_MEMBER};
use super::{Story, shown};

#[tokio::test]
async fn orgs_members_list() {
    let story = Story::of("orgs members list").await;
    let organization = story.organization().await;
    let lin = story.app.stranger("Lin").await;
    story
        .ada
        .add(&story.app, &organization, &lin, "developer")
        .await;
    let invited = story
        .ada
        .invite(&organization, "eve@example.com", "administrator");
    invited.await.expect(201);
    let path = format!("/organizations/v1/{organization}/members");
    let listed = story.cli.get(&path).await.shaped(200, &MEMBERS);
    let members = listed["members"].as_array().unwrap();
    assert_eq!(members.len(), 2);
    let his = members
        .iter()
        .find(|member| member["email"] == "lin@example.com")
        .expect("he is listed");
    assert_eq!(
        (&his["name"], &his["role"]),
        (&json!("Lin"), &json!("developer"))
    );
    assert_ne!(his["id"], his["user_id"], "the membership's own id");
    let pending: Vec<_> = listed["invitations"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|invitation| invitation["status"] == "pending")
        .collect();
    assert_eq!(pending.len(), 1, "only these are listed");
    assert_eq!(pending[0]["email"], "eve@example.com");
    assert_eq!(pending[0]["role"], "administrator");
}

#[tokio::test]
async fn orgs_members_invite() {
    let story = Story::of("orgs members invite").await;
    let path = format!(
        "/organizations/v1/{}/members/invite",
        story.organization().await
    );
    let body = json!({ "email": "lin@example.com", "role": "developer" });
    let invited = story.cli.post_json(&path, body).await.shaped(201, &INVITED);
    assert_eq!(invited["invitation"]["email"], "lin@example.com");
    assert_eq!(invited["invitation"]["role"], "developer");
    let mail = story.app.newest_mail("lin@example.com").await;
    assert!(mail.link().starts_with(&story.app.base_url), "{mail:?}");
    let wrong = json!({ "email": "lin@example.com", "role": "owner" });
    let text = shown(story.cli.post_json(&path, wrong).await, 400);
    assert!(text.contains("role"), "{text}");
    let wrong = json!({ "email": "lin", "role": "developer" });
    let text = shown(story.cli.post_json(&path, wrong).await, 400);
    assert!(text.contains("email"), "{text}");
}

#[tokio::test]
async fn orgs_members_remove() {
    let story = Story::of("orgs members remove").await;
    let organization = story.organization().await;
    let lin = story.app.stranger("Lin").await;
    story
        .ada
        .add(&story.app, &organization, &lin, "developer")
        .await;
    let his = story
        .ada
        .membership(&organization, &lin.id.to_string())
        .await;
    let path = format!("/organizations/v1/{organization}/members/{his}");
    let removed = story.cli.delete(&path).await;
    assert_eq!((removed.status, &*removed.text), (204, ""));
    shown(story.cli.delete(&path).await, 404);
    let lin = story.app.member_of(&lin).await;
    let gone = lin
        .get(&format!("/organizations/v1/{organization}/members"))
        .await;
    gone.expect(404);
}

#[tokio::test]
async fn orgs_members_role() {
    let story = Story::of("orgs members role").await;
    let organization = story.organization().await;
    let lin = story.app.stranger("Lin").await;
    story
        .ada
        .add(&story.app, &organization, &lin, "developer")
        .await;
    let his = story
        .ada
        .membership(&organization, &lin.id.to_string())
        .await;
    let path = format!("/organizations/v1/{organization}/members/{his}/role");
    for role in ["administrator", "developer"] {
        let body = json!({ "role": role });
        let changed = story.cli.put(&path, body).await.shaped(200, &ONE_MEMBER);
        assert_eq!(changed["member"]["id"], his);
        assert_eq!(changed["member"]["role"], role);
        assert_eq!(changed["member"]["user_id"], lin.id.to_string());
    }
    // A 403 is final: exit 5.
    let lin = story.app.command_line_of(&lin).await;
    let body = json!({ "role": "administrator" });
    shown(lin.put(&path, body).await, 403);
    assert!(lin.refreshed_with().is_empty());
}
