//! `billing` and `usage` (contract/platform-api.md 12), in an installation that takes no payments: the operator sets plans,
//! and what only a payment provider could do is refused with 501.

use serde_json::{Value, json};

use super::forms::{CREDITS, CYCLES, PAYMENTS, SUBSCRIPTION, USAGE};
use super::{Story, is_not_configured};

#[tokio::test]
async fn billing_status() {
    let story = Story::of("billing status").await;
    let path = format!(
        "/organizations/v1/{}/subscription-status",
        story.organization().await
    );
    let status = story.cli.get(&path).await.shaped(200, &SUBSCRIPTION);
    assert_eq!(status["plan"], "free");
}

#[tokio::test]
async fn billing_credits() {
    let story = Story::of("billing credits").await;
    let path = format!("/billing/v1/{}/credits", story.organization().await);
    let credits = story.cli.get(&path).await.shaped(200, &CREDITS);
    assert_eq!(credits["creditBalanceCents"], 0);
    assert_eq!(credits["creditBalanceFormatted"], "$0.00");
}

#[tokio::test]
async fn billing_history() {
    let story = Story::of("billing history").await;
    let path = format!(
        "/organizations/v1/{}/payment-history",
        story.organization().await
    );
    let payments = story.cli.get(&path).await.shaped(200, &PAYMENTS);
    assert_eq!(payments["payments"], json!([]));
}

#[tokio::test]
async fn billing_cycles() {
    let story = Story::of("billing cycles").await;
    let path = format!(
        "/organizations/v1/{}/billing-cycles",
        story.organization().await
    );
    let cycles = story.cli.get(&path).await.shaped(200, &CYCLES);
    let day = |cycle: &str, end: &str| cycles[cycle][end].as_str().unwrap()[..10].to_owned();
    let today = story
        .app
        .control_plane
        .clock()
        .now()
        .date_naive()
        .to_string();
    assert!(day("current", "start_date") <= today && today <= day("current", "end_date"));
    assert!(day("previous", "end_date") < day("current", "start_date"));
}

#[tokio::test]
async fn billing_upgrade() {
    let story = Story::of("billing upgrade").await;
    let organization = story.organization().await;
    let path = "/billing/v1/stripe/checkout-session";
    for plan in ["pro", "free"] {
        let body = json!({ "organizationId": organization, "plan": plan });
        is_not_configured(story.cli.post_json(path, body).await);
    }
    let nowhere = json!({ "organizationId": uuid::Uuid::now_v7(), "plan": "pro" });
    super::shown(story.cli.post_json(path, nowhere).await, 404);
}

#[tokio::test]
async fn billing_manage() {
    let story = Story::of("billing manage").await;
    let body = json!({ "organizationId": story.organization().await });
    let path = "/billing/v1/stripe/portal-session";
    is_not_configured(story.cli.post_json(path, body).await);
}

#[tokio::test]
async fn usage() {
    let story = Story::of("usage").await;
    let project = story.project().await;
    let organization = story.organization().await;
    let path = format!("/usage/v1/organizations/{organization}");
    let used = story.cli.get(&path).await.shaped(200, &USAGE);
    assert_eq!(used["organization"]["id"], organization);
    assert_eq!(used["organization"]["price_plan"], "free");
    let all = used["projects"].as_array().unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["id"], project);
    for metric in ["database_bytes", "storage_bytes", "egress_bytes"] {
        assert!(
            used["usage_summary"][metric].is_number(),
            "{metric}: {used}"
        );
    }
    let has_null = all[0].as_object().unwrap().values().any(Value::is_null);
    assert!(!has_null, "absent counts as 0, null does not: {used}");
}
