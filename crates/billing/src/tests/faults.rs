//! Stripe fails: what is tried again, what is done once, and what callers are told.

use std::time::Duration;

use cp_model::{OrganizationId, Plan};
use serde_json::json;

use super::{KEY, customer, stripe, stripe_with, times, url};
use crate::http::Times;
use crate::stand_in::{Fault, StandIn};
use crate::{BillingError, CustomerId, Stripe, StripeConfig};

async fn create(stripe: &Stripe) -> Result<CustomerId, BillingError> {
    stripe
        .create_customer(OrganizationId::generate(), "Moreno Labs", "ada@example.com")
        .await
}

fn is_unavailable<T>(result: &Result<T, BillingError>) -> bool {
    matches!(result, Err(BillingError::Unavailable { .. }))
}

#[tokio::test]
async fn what_fails_twice_is_tried_three_times_under_one_key() {
    for fault in [
        Fault::Status(500, &[]),
        Fault::Status(503, &[]),
        Fault::Status(429, &[("retry-after", "0")]),
        // Another request with the same key is being worked on.
        Fault::Status(409, &[]),
        // Stripe knows best.
        Fault::Status(400, &[("stripe-should-retry", "true")]),
        Fault::HangUp,
    ] {
        let stand_in = StandIn::start().await;
        stand_in.fails_with([fault.clone(), fault]);
        create(&stripe(&stand_in)).await.unwrap();
        let world = stand_in.world();
        let (of_create, of_update) = world.requests.split_at(3);
        assert_eq!(of_update.len(), 1);
        assert!(
            of_create
                .iter()
                .all(|request| request.path == "/v1/customers"
                    && request.idempotency_key == of_create[0].idempotency_key)
        );
        assert_eq!(world.customers.len(), 1);
    }
}

#[tokio::test]
async fn three_failures_are_enough() {
    let stand_in = StandIn::start().await;
    stand_in.fails_with(vec![Fault::Status(503, &[]); 9]);
    let failed = create(&stripe(&stand_in)).await.unwrap_err();
    assert_eq!(
        failed.to_string(),
        "Stripe is not available: status 503 Service Unavailable: We are sorry."
    );
    assert_eq!(stand_in.calls().len(), 3);
}

#[tokio::test]
async fn stripe_may_say_that_it_is_not_worth_it() {
    let stand_in = StandIn::start().await;
    stand_in.fails_with([Fault::Status(500, &[("stripe-should-retry", "false")])]);
    assert!(is_unavailable(&create(&stripe(&stand_in)).await));
    assert_eq!(stand_in.calls().len(), 1);
}

#[tokio::test]
async fn nobody_waits_longer_than_a_call_may_take() {
    // The last one is more seconds than any clock has.
    for header in ["60", "18446744073709551615"] {
        let headers: &'static [_] = match header {
            "60" => &[("retry-after", "60")],
            _ => &[("retry-after", "18446744073709551615")],
        };
        let stand_in = StandIn::start().await;
        stand_in.fails_with([Fault::Status(429, headers)]);
        assert!(is_unavailable(&create(&stripe(&stand_in)).await));
        assert_eq!(stand_in.calls().len(), 1);
    }
}

#[tokio::test]
async fn a_wait_that_stripe_asks_for_is_kept() {
    let stand_in = StandIn::start().await;
    stand_in.fails_with([Fault::Status(429, &[("retry-after", "1")])]);
    let started = tokio::time::Instant::now();
    create(&stripe(&stand_in)).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn what_was_done_is_not_done_again_when_its_answer_is_lost() {
    let stand_in = StandIn::start().await;
    let stripe = stripe_with(
        &stand_in,
        Times {
            attempt: Duration::from_secs(2),
            ..times()
        },
    );
    let organization = OrganizationId::generate();
    stand_in.fails_with([Fault::DoAndHang, Fault::DoAndBreakOff]);

    let customer = stripe
        .create_customer(organization, "Moreno Labs", "ada@example.com")
        .await
        .unwrap();
    assert_eq!(stand_in.world().customers.len(), 1);

    stand_in.fails_with([Fault::DoAndBreakOff, Fault::HangUp]);
    let session = stripe
        .create_checkout_session(&customer, organization, Plan::Pro)
        .await
        .unwrap();
    let world = stand_in.world();
    assert_eq!(world.sessions.len(), 1);
    assert_eq!(world.sessions[0]["id"], session.id);
}

#[tokio::test]
async fn a_call_ends_in_time_when_no_answer_ever_comes() {
    let stand_in = StandIn::start().await;
    let stripe = stripe_with(
        &stand_in,
        Times {
            attempt: Duration::from_hours(1),
            total: Duration::from_millis(500),
            ..times()
        },
    );
    stand_in.fails_with(vec![Fault::DoAndHang; 9]);
    let started = tokio::time::Instant::now();
    let failed = create(&stripe).await;
    assert!(is_unavailable(&failed), "{failed:?}");
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(500), "{took:?}");
    assert!(took < Duration::from_mins(1), "{took:?}");
    assert_eq!(stand_in.calls().len(), 1);
}

#[tokio::test]
async fn a_machine_where_nobody_listens_is_unavailable() {
    let config = StripeConfig {
        // Of a service (tcpmux) that died out.
        api_base: url("http://127.0.0.1:1/"),
        ..super::config()
    };
    let failed = create(&Stripe::with_times(config, times()).unwrap()).await;
    assert!(is_unavailable(&failed), "{failed:?}");
}

#[tokio::test]
async fn an_answer_that_is_none_is_unexpected_and_not_asked_for_again() {
    for words in [
        "",
        "<html>It works!</html>",
        "{\"object\":\"customer\"}",
        "{\"id\":\"../../v1/charges\"}",
        "[]",
    ] {
        let stand_in = StandIn::start().await;
        stand_in.fails_with([Fault::DoAndSay(words)]);
        let failed = create(&stripe(&stand_in)).await;
        assert!(
            matches!(failed, Err(BillingError::Unexpected(_))),
            "{words}: {failed:?}"
        );
        assert_eq!(stand_in.calls().len(), 1);
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_for_ever_is_unavailable() {
    let stand_in = StandIn::start().await;
    stand_in.fails_with(vec![Fault::DoAndBreakOff; 3]);
    let failed = stripe(&stand_in).payments(&customer("cus_ada"), 10).await;
    assert!(is_unavailable(&failed), "{failed:?}");
    assert_eq!(stand_in.calls().len(), 3);
}

#[tokio::test]
async fn an_answer_of_any_length_is_not_taken() {
    let stand_in = StandIn::start().await;
    let long = json!({"id": "cus_1", "name": "x".repeat(9 * 1024 * 1024)});
    stand_in.fails_with([Fault::Say(200, long)]);
    let failed = create(&stripe(&stand_in)).await.unwrap_err();
    assert_eq!(
        failed.to_string(),
        "Stripe's answer is not understood: it has more than 8388608 bytes"
    );
}

#[tokio::test]
async fn redirections_are_not_followed() {
    let stand_in = StandIn::start().await;
    stand_in.fails_with([Fault::Status(302, &[("location", "/v1/elsewhere")])]);
    let failed = create(&stripe(&stand_in)).await.unwrap_err();
    assert!(
        matches!(failed, BillingError::Refused { status: 302, .. }),
        "{failed:?}"
    );
    assert_eq!(stand_in.calls(), ["POST /v1/customers"]);
}

#[tokio::test]
async fn a_refusal_is_told_with_stripes_code_and_without_our_key() {
    let stand_in = StandIn::start().await;
    let message = format!("Invalid API Key provided: {KEY}");
    let error = json!({"error": {"type": "invalid_request_error", "message": message}});
    stand_in.fails_with([Fault::Say(401, error)]);
    let failed = create(&stripe(&stand_in)).await.unwrap_err();
    assert_eq!(
        failed.to_string(),
        "Stripe refused with 401 invalid_request_error: Invalid API Key provided: [the secret key]"
    );
    assert!(!format!("{failed:?}").contains(KEY));
    assert_eq!(stand_in.calls().len(), 1);
}

#[tokio::test]
async fn a_refusal_by_somebody_else_is_unexpected() {
    let stand_in = StandIn::start().await;
    stand_in.fails_with([Fault::Say(403, json!("Forbidden by a proxy"))]);
    let failed = create(&stripe(&stand_in)).await.unwrap_err();
    assert_eq!(
        failed.to_string(),
        "Stripe's answer is not understood: status 403 Forbidden, and no error of Stripe's"
    );
}

#[tokio::test]
async fn a_key_that_was_used_for_something_else_is_refused() {
    let stand_in = StandIn::start().await;
    let stripe = stripe(&stand_in);
    let post = async |name: &str| {
        let form = [("name", name), ("metadata[organization_id]", "1")];
        let made: Result<serde_json::Value, _> = stripe
            .http
            .post_once(&["customers"], &form, "one-key")
            .await;
        made
    };
    let first = post("Ada").await.unwrap();
    assert_eq!(post("Ada").await.unwrap(), first);
    let failed = post("Lin").await.unwrap_err();
    assert!(
        matches!(&failed, BillingError::Refused { code, .. } if code == "idempotency_error"),
        "{failed:?}"
    );
}

#[tokio::test]
async fn a_stand_in_may_live_under_a_path() {
    let stand_in = StandIn::start().await;
    for base in ["stripe", "stripe/"] {
        let config = StripeConfig {
            api_base: stand_in.url.join(base).unwrap(),
            ..super::config()
        };
        let stripe = Stripe::with_times(config, times()).unwrap();
        let asked = stripe.payments(&customer("cus_ada"), 1).await;
        assert!(asked.is_err());
        assert_eq!(stand_in.last_request().path, "/stripe/v1/invoices");
    }
}
