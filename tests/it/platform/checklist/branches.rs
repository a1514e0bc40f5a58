//! `branch` (contract/platform-api.md 10). What needs no copy of a database stands here; whole lives are in `real`.

mod real;

use cp_tests::{Answer, CommandLineClient};
use serde_json::{Value, json};

use super::forms::{ACCESS_API_KEY, BRANCHES, ONE_BRANCH, ONE_PROJECT};
use super::{Story, id_of, shown};

/// `GET …/branches`, and the first one with this name.
async fn find(cli: &CommandLineClient, parent: &str, name: &str) -> Option<Value> {
    let listed = cli.get(&format!("/projects/v1/{parent}/branches")).await;
    let listed = listed.shaped(200, &BRANCHES);
    let mut all = listed["data"].as_array().unwrap().iter();
    all.find(|branch| branch["name"] == name).cloned()
}

impl Story {
    /// An active project, as a worker would leave it.
    async fn parent(&self) -> String {
        let parent = self.project().await;
        self.is_done(&parent).await;
        parent
    }

    async fn is_done(&self, project: &str) {
        let ended = "update operations set state = 'succeeded' where project_id = $1";
        self.run(ended, project).await;
        let active = "update projects set status = 'active' where id = $1";
        self.run(active, project).await;
    }

    async fn branch(&self, parent: &str, name: &str) -> String {
        let body = json!({ "mode": "schema-only", "name": name });
        let path = format!("/projects/v1/{parent}/branches");
        let made = self.ada.send(reqwest::Method::POST, &path, &body).await;
        id_of(&made.shaped(201, &ONE_BRANCH)["branch"])
    }

    async fn ready_branch(&self, parent: &str, name: &str) -> String {
        let branch = self.branch(parent, name).await;
        self.is_done(&branch).await;
        let ready = "update branches set state = 'ready', serves = true where project_id = $1";
        self.run(ready, &branch).await;
        branch
    }
}

#[tokio::test]
async fn branch_list() {
    let story = Story::of("branch list").await;
    let parent = story.parent().await;
    assert_eq!(find(&story.cli, &parent, "feat-coupons").await, None);
    let first = story.branch(&parent, "feat-coupons").await;
    let gone = story
        .ada
        .delete(&format!("/projects/v1/branches/{first}"))
        .await;
    gone.expect(204);
    // A name that is used again finds the living one.
    let second = story.branch(&parent, "feat-coupons").await;
    let seen = find(&story.cli, &parent, "feat-coupons").await.unwrap();
    assert_eq!(id_of(&seen), second);
    assert_eq!(seen["parent_project_id"], parent);
    assert_eq!(seen["branch_state"], "creating");
    assert_eq!(seen["branch_metadata"]["mode"], "schema-only");
    // Branches are no projects of the organization.
    let home = story.ada.home().await;
    let projects = story
        .ada
        .get(&format!("/organizations/v1/{home}/projects"))
        .await;
    let projects = projects.expect(200);
    assert_eq!(projects["projects"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn branch_switch_name() {
    let story = Story::of("branch switch <name>").await;
    let parent = story.parent().await;
    let branch = story.ready_branch(&parent, "feat-coupons").await;
    let seen = find(&story.cli, &parent, "feat-coupons").await.unwrap();
    assert_eq!(seen["branch_state"], "ready", "others are refused locally");
    assert_eq!(id_of(&seen), branch);
    let key = story
        .cli
        .get(&format!("/projects/v1/{branch}/access-api-key"))
        .await;
    let key = key.shaped(200, &ACCESS_API_KEY);
    let parents = story
        .ada
        .get(&format!("/projects/v1/{parent}/access-api-key"))
        .await;
    assert_ne!(key, parents.expect(200), "a key of its own");
    // From now on its id is the project's in every call.
    let project = story.ada.get(&format!("/projects/v1/{branch}")).await;
    let project = project.shaped(200, &ONE_PROJECT);
    for field in ["organization_id", "appkey", "region"] {
        assert_eq!(project["project"][field], seen[field], "{field}");
    }
    for rest in ["/backups", "/metrics?range=1h", "/diagnose/incident"] {
        let path = format!("/projects/v1/{branch}{rest}");
        story.ada.get(&path).await.expect(200);
    }
}

#[tokio::test]
async fn branch_delete() {
    let story = Story::of("branch delete").await;
    let parent = story.parent().await;
    story.ready_branch(&parent, "feat-coupons").await;
    let branch = find(&story.cli, &parent, "feat-coupons").await.unwrap();
    let path = format!("/projects/v1/branches/{}", id_of(&branch));
    let deleted = story.cli.delete(&path).await;
    assert_eq!((deleted.status, &*deleted.text), (204, ""));
    assert_eq!(find(&story.cli, &parent, "feat-coupons").await, None);
    shown(story.cli.delete(&path).await, 404);
}

/// Not a row: what `create` and `merge` make of refusals (10.3, 10.8).
#[tokio::test]
async fn refusals_are_taken_for_nothing_else() {
    let story = Story::of("branch list").await;
    let parent = story.parent().await;
    let branch = story.branch(&parent, "feat-coupons").await;
    find(&story.cli, &parent, "feat-coupons").await;
    let send = async |path: String, body: Option<Value>| -> Answer {
        let request = story.ada.request(reqwest::Method::POST, &path);
        Answer::to(match body {
            Some(body) => request.body(body.to_string()),
            None => request,
        })
        .await
    };
    // 502, 503 and 504 would have the client adopt the branch of that name.
    let again = json!({ "mode": "schema-only", "name": "feat-coupons" });
    let path = format!("/projects/v1/{parent}/branches");
    let text = shown(send(path, Some(again)).await, 409);
    assert!(text.contains("feat-coupons"), "{text}");
    // On the execute call 409 is a conflict with its diff, and nothing else.
    let busy = send(format!("/projects/v1/branches/{branch}/merge"), None).await;
    shown(busy, 423);
}
