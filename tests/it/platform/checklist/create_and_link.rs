//! `create` and `link` (contract/platform-api.md 9.3, 9.4 and 14).

use chrono::TimeDelta;
use cp_tests::{Answer, StoredSession, eventually};
use serde_json::{Value, json};
use std::time::Duration;

use super::forms::{ACCESS_API_KEY, ONE_PROJECT, ORGANIZATIONS, PROJECTS};
use super::{Story, id_of, shown};

/// 16: the wait of `create`.
const BUDGET: Duration = Duration::from_mins(2);

impl Story {
    /// The two reads of `link`, at once.
    async fn link(&self, project: &str) -> (Answer, Answer) {
        let path = format!("/projects/v1/{project}");
        let key = format!("{path}/access-api-key");
        tokio::join!(self.cli.get(&path), self.cli.get(&key))
    }

    /// What `link` does after them.
    async fn tell_linked(&self, project: &str) {
        let body = json!({ "client": "cli", "project_id": project });
        let told = self.cli.tell_agent_connected(&body).await;
        assert_eq!(told.status, 204, "{}", told.text);
    }
}

#[tokio::test]
async fn create() {
    let story = Story::at_work("create").await;
    let home = story.organization().await;
    let body = json!({ "name": "storefront", "region": "us-east" });
    let made = story
        .cli
        .post_json(&format!("/organizations/v1/{home}/projects"), body)
        .await
        .shaped(201, &ONE_PROJECT);
    let made = &made["project"];
    assert_eq!(made["region"], "us-east");
    // At once, and no error is tolerated.
    let path = format!("/projects/v1/{}", id_of(made));
    let active = eventually("it is active", BUDGET, async || {
        let seen = story.cli.get(&path).await.shaped(200, &ONE_PROJECT);
        (seen["project"]["status"] == "active").then(|| seen["project"].clone())
    })
    .await;
    // The saved link was built from the first answer.
    for field in ["id", "name", "organization_id", "appkey", "region"] {
        assert_eq!(active[field], made[field], "{field} is final");
    }
    let key = story.cli.get(&format!("{path}/access-api-key")).await;
    let key = key.shaped(200, &ACCESS_API_KEY);
    assert_eq!(cp_tests::fields(&key), ["access_api_key"], "only this form");
    let host = active["access_host"].as_str().unwrap();
    let answered = story
        .app
        .http
        .get(format!("{host}/api/metadata/project-id"))
        .bearer_auth(key["access_api_key"].as_str().unwrap());
    Answer::to(answered).await.expect(200);
    let refused = story
        .cli
        .post_json(
            &format!("/organizations/v1/{home}/projects"),
            json!({ "name": "storefront", "region": "nowhere" }),
        )
        .await;
    let text = shown(refused, 400);
    assert!(text.contains("region"), "{text}");
}

#[tokio::test]
async fn link_project_id() {
    let story = Story::of("link --project-id").await;
    let project = story.project().await;
    // Its very first calls, at once, with a token that has expired: both refresh with the same stored token.
    story.clock.advance(TimeDelta::minutes(61));
    let stored = story.cli.session().refresh_token.unwrap();
    let (seen, key) = story.link(&project).await;
    let seen = seen.shaped(200, &ONE_PROJECT);
    assert_eq!(seen["project"]["name"], "storefront");
    key.shaped(200, &ACCESS_API_KEY);
    assert_eq!(story.cli.refreshed_with(), [stored.clone(), stored]);
    // Whichever answer was saved last, the session goes on.
    story.clock.advance(TimeDelta::minutes(61));
    let (seen, _) = story.link(&project).await;
    seen.expect(200);
    story.tell_linked(&project).await;

    // What the person may not see: told so that the client says it helpfully.
    let eve = story.app.stranger("Eve").await;
    let eve = story.app.member_of(&eve).await;
    let home = eve.home().await;
    let hers = eve.begin_project(&home, "secret").await.expect(201);
    let (seen, key) = story.link(&id_of(&hers["project"])).await;
    for answer in [seen, key] {
        let text = shown(answer, 404);
        assert!(text.contains("not found"), "{text}");
    }
}

#[tokio::test]
async fn link_with_other_options() {
    let story = Story::of("link with other options").await;
    let project = story.project().await;
    let listed = story.cli.get("/organizations/v1").await;
    let listed = listed.shaped(200, &ORGANIZATIONS);
    let home = id_of(&listed["organizations"][0]);
    let listed = story
        .cli
        .get(&format!("/organizations/v1/{home}/projects"))
        .await;
    let listed = listed.shaped(200, &PROJECTS);
    assert_eq!(id_of(&listed["projects"][0]), project);
    let (seen, key) = story.link(&project).await;
    let seen = seen.shaped(200, &ONE_PROJECT);
    for field in ["id", "name", "organization_id", "appkey", "region"] {
        assert_eq!(
            seen["project"][field], listed["projects"][0][field],
            "{field}"
        );
    }
    key.shaped(200, &ACCESS_API_KEY);
    story.tell_linked(&project).await;
}

#[tokio::test]
async fn link_api_base_url_api_key() {
    let story = Story::of("link --api-base-url --api-key").await;
    let body = json!({ "client": "cli", "app_key": "k7m2qx9d" });
    let bad = StoredSession {
        user_api_key: Some("uak_unknown".into()),
        ..StoredSession::default()
    };
    // With a session, with one that is over, with none: it works, and nothing is refreshed.
    for session in [story.cli.session(), bad, StoredSession::default()] {
        story.cli.set_session(session);
        let told = story.cli.tell_agent_connected(&body).await;
        assert_eq!((told.status, &told.body), (204, &Value::Null));
    }
    assert!(story.cli.refreshed_with().is_empty());
}
