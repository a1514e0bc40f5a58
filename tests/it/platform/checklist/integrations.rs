//! `posthog setup` and `webscraper apify connect` (contract/platform-api.md 15), in an installation that has no application
//! at either.

use cp_tests::StoredSession;

use super::{Story, is_not_configured, shown};

async fn connect(story: &Story, service: &str) {
    let project = story.project().await;
    let start = format!("/integrations/{service}/v1/cli-start?p={project}");
    is_not_configured(story.cli.integration(&start).await);
    // Not connected: passed through.
    let connection = format!("/integrations/{service}/v1/connection?project_id={project}");
    shown(story.cli.integration(&connection).await, 404);
    // Membership is checked.
    let nowhere = uuid::Uuid::now_v7();
    for path in [
        format!("/integrations/{service}/v1/cli-start?p={nowhere}"),
        format!("/integrations/{service}/v1/connection?project_id={nowhere}"),
    ] {
        let text = shown(story.cli.integration(&path).await, 404);
        assert!(text.contains("not found"), "{text}");
    }
    // The plain credential: no refresh on 401.
    story.cli.set_session(StoredSession {
        access_token: Some("eyJhbGciOiJIUzI1NiJ9.e30.expired".into()),
        ..story.cli.session()
    });
    shown(story.cli.integration(&connection).await, 401);
    assert!(story.cli.refreshed_with().is_empty());
}

#[tokio::test]
async fn posthog_setup() {
    let story = Story::of("posthog setup").await;
    connect(&story, "posthog").await;
}

#[tokio::test]
async fn webscraper_apify_connect() {
    let story = Story::of("webscraper apify connect").await;
    connect(&story, "apify").await;
}
