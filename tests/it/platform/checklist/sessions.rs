//! Not rows of the checklist, but what all of them do: which address, which credential, and a new one after a 401
//! (contract/platform-api.md 2).

use chrono::TimeDelta;
use cp_tests::StoredSession;
use serde_json::json;

use super::Story;
use super::forms::{ONE_ORGANIZATION, ORGANIZATIONS, PROFILE};

#[tokio::test]
async fn a_base_url_may_end_in_a_slash() {
    let story = Story::of("whoami").await;
    story.cli.get("/auth/v1/profile").await.expect(200);
    let other = story
        .app
        .command_line_at(&format!("{}/", story.app.base_url));
    other.set_session(story.cli.session());
    other.get("/auth/v1/profile").await.shaped(200, &PROFILE);
    let team = json!({ "name": "Moreno Labs", "type": "team" });
    let made = other.post_json("/organizations/v1", team).await;
    let made = made.shaped(201, &ONE_ORGANIZATION);
    let id = super::id_of(&made["organization"]);
    let projects = other.get(&format!("/organizations/v1/{id}/projects")).await;
    assert_eq!(projects.expect(200), json!({ "projects": [] }));
    // The login and the refresh are joined to it, too.
    story.clock.advance(TimeDelta::minutes(61));
    other
        .get("/organizations/v1")
        .await
        .shaped(200, &ORGANIZATIONS);
    other
        .log_in(&story.person.email, &story.person.password)
        .await
        .expect(200);
}

#[tokio::test]
async fn a_session_ends_with_401_when_its_refresh_token_is_not_known() {
    let story = Story::of("whoami").await;
    let session = story.cli.session();
    story.cli.set_session(StoredSession {
        access_token: Some("eyJhbGciOiJIUzI1NiJ9.e30.expired".into()),
        refresh_token: Some("irt_unknown".into()),
        user_api_key: None,
    });
    super::shown(story.cli.get("/auth/v1/profile").await, 401);
    assert_eq!(story.cli.refreshed_with(), ["irt_unknown"]);
    // Nothing happened to the real one.
    story.cli.set_session(session);
    story.cli.get("/auth/v1/profile").await.expect(200);
}

#[tokio::test]
async fn a_key_goes_before_tokens_and_is_never_refreshed() {
    let story = Story::of("whoami").await;
    story.person.log_in().await;
    let key = story.person.visitor.make_api_key("laptop").await;
    let session = StoredSession {
        user_api_key: Some(key),
        ..story.cli.session()
    };
    story.cli.set_session(session);
    story
        .cli
        .get("/auth/v1/profile")
        .await
        .shaped(200, &PROFILE);
    let other = story.app.command_line();
    other.set_session(story.cli.session());
    let made = json!({ "name": "Moreno Labs", "type": "team" });
    other
        .post_json("/organizations/v1", made)
        .await
        .shaped(201, &ONE_ORGANIZATION);
    story.person.visitor.revoke_api_key().await;
    super::shown(story.cli.get("/auth/v1/profile").await, 401);
    assert!(story.cli.refreshed_with().is_empty());
}
