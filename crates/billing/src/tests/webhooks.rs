//! What Stripe tells us, and what others pretend that it does.

use std::sync::LazyLock;

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::OrganizationId;
use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{OLD_SECRET, SECRET, config, customer};
use crate::{Event, EventKind, Stripe, WebhookError};

const SIGNED_AT: i64 = 1_795_000_000;

/// One for all: each reads the machine's certificates.
static STRIPE: LazyLock<Stripe> = LazyLock::new(|| Stripe::new(config()).unwrap());

fn signed_at() -> DateTime<Utc> {
    DateTime::from_timestamp(SIGNED_AT, 0).unwrap()
}

fn v1(secret: &str, body: &[u8]) -> String {
    cp_tokens::webhook::sign(&SecretString::from(secret), SIGNED_AT, body)
}

fn header(secret: &str, body: &[u8]) -> String {
    format!("t={SIGNED_AT},v1={}", v1(secret, body))
}

fn event(kind: &str, object: &Value) -> Value {
    json!({
        "id": "evt_1", "object": "event", "api_version": "2026-10-28.endive", "created": 1_794_999_990,
        "livemode": false, "pending_webhooks": 1, "type": kind, "request": {"id": null, "idempotency_key": null},
        "data": {"object": object},
    })
}

fn verify(body: &[u8], header: &str) -> Result<Event, WebhookError> {
    STRIPE.verify_webhook(body, header, signed_at())
}

/// The event as it is told, with the right signature.
fn told(event: &Value) -> Result<Event, WebhookError> {
    let body = event.to_string();
    verify(body.as_bytes(), &header(SECRET, body.as_bytes()))
}

/// Header of Stripe's own Python library (16.1.0): `WebhookSignature.generate_signature_header`.
#[test]
fn signatures_are_those_of_stripes_own_library() {
    let body = r#"{"id":"evt_1","object":"event","type":"invoice.paid","created":1794999990,"livemode":true,"data":{"object":{"object":"invoice","customer":"cus_ada"}}}"#;
    let header = "t=1795000000,v1=1b6664c6e55c195edb046f4d0ccde74d03f62fe533ab40480a75d2312aed2ad0";
    let event = verify(body.as_bytes(), header).unwrap();
    assert_eq!(
        event,
        Event {
            id: "evt_1".to_owned(),
            kind: EventKind::InvoicePaid,
            created: DateTime::from_timestamp(1_794_999_990, 0).unwrap(),
            livemode: true,
            customer: Some(customer("cus_ada")),
            subscription: None,
            organization: None,
        }
    );
}

#[test]
fn whom_an_event_is_about_is_found_in_every_kind() {
    let organization = OrganizationId::generate();
    let id = organization.to_string();
    let noted = json!({"organization_id": id});
    for (kind, object) in [
        (
            EventKind::CheckoutCompleted,
            json!({"id": "cs_1", "object": "checkout.session", "customer": "cus_ada", "subscription": "sub_1",
                   "client_reference_id": id, "metadata": {}}),
        ),
        (
            EventKind::SubscriptionUpdated,
            json!({"id": "sub_1", "object": "subscription", "customer": "cus_ada", "metadata": noted}),
        ),
        (
            EventKind::SubscriptionDeleted,
            json!({"id": "sub_1", "object": "subscription", "customer": {"id": "cus_ada", "object": "customer"},
                   "metadata": noted}),
        ),
        // Since 2025-03-31, and before.
        (
            EventKind::InvoicePaid,
            json!({"id": "in_1", "object": "invoice", "customer": "cus_ada", "metadata": {}, "parent": {
                   "type": "subscription_details", "quote_details": null,
                   "subscription_details": {"subscription": "sub_1", "metadata": noted}}}),
        ),
        (
            EventKind::InvoicePaymentFailed,
            json!({"id": "in_1", "object": "invoice", "customer": "cus_ada", "subscription": "sub_1",
                   "metadata": {}, "subscription_details": {"metadata": noted}}),
        ),
    ] {
        let event = told(&event(kind.as_str(), &object)).unwrap();
        assert_eq!(event.kind, kind);
        assert_eq!(event.customer, Some(customer("cus_ada")), "{kind}");
        assert_eq!(event.subscription, Some("sub_1".parse().unwrap()), "{kind}");
        assert_eq!(event.organization, Some(organization), "{kind}");
        assert!(event.kind.may_change_plan());
    }
    let gone = json!({"id": "cus_ada", "object": "customer", "metadata": noted});
    let event = told(&event("customer.deleted", &gone)).unwrap();
    assert_eq!(event.customer, Some(customer("cus_ada")));
    assert_eq!(event.subscription, None);
    assert_eq!(event.organization, Some(organization));
}

#[test]
fn other_kinds_are_fine_and_of_any_form() {
    for object in [
        json!({}),
        json!([1, 2]),
        json!("text"),
        json!({"object": "payout", "customer": 7, "subscription": ["x"], "metadata": null}),
        json!({"object": "charge", "customer": "../../etc", "metadata": {"organization_id": "1"}}),
    ] {
        let event = told(&event("payout.paid", &object)).unwrap();
        assert_eq!(event.kind, EventKind::Other("payout.paid".to_owned()));
        assert!(!event.kind.may_change_plan());
        assert_eq!(
            (event.customer, event.subscription, event.organization),
            (None, None, None)
        );
    }
}

#[test]
fn what_is_signed_and_no_event_is_malformed() {
    let thin = json!({"id": "evt_1", "object": "v2.core.event", "type": "v1.billing.meter.error_report_triggered",
                      "created": 1_794_999_990, "livemode": false, "data": {"object": {}}});
    for body in [
        "",
        "{",
        "[]",
        "{}",
        "\u{0}",
        &thin.to_string(),
        &event("x", &json!({}))
            .to_string()
            .replace("\"created\"", "\"made\""),
    ] {
        let refused = verify(body.as_bytes(), &header(SECRET, body.as_bytes()));
        assert!(
            matches!(refused, Err(WebhookError::MalformedEvent(_))),
            "{body}: {refused:?}"
        );
    }
    let refused = verify(&[0xff, 0xfe], &header(SECRET, &[0xff, 0xfe]));
    assert!(
        matches!(refused, Err(WebhookError::MalformedEvent(_))),
        "{refused:?}"
    );
}

#[test]
fn one_signature_by_one_secret_is_enough() {
    let body = event("invoice.paid", &json!({})).to_string();
    let body = body.as_bytes();
    let (current, former, strange) = (v1(SECRET, body), v1(OLD_SECRET, body), v1("whsec_x", body));
    for good in [
        format!("t={SIGNED_AT},v1={current}"),
        format!("t={SIGNED_AT},v1={former}"),
        format!("t={SIGNED_AT},v1={strange},v1={former}"),
        format!("t={SIGNED_AT},v1={current},v1={strange},v0=abc"),
        format!("v1={current},t={SIGNED_AT}"),
        format!("t={SIGNED_AT}, v1={current}"),
    ] {
        assert!(verify(body, &good).is_ok(), "{good}");
    }
    for (bad, error) in [
        (
            format!("t={SIGNED_AT},v1={strange}"),
            WebhookError::WrongSignature,
        ),
        (format!("t={SIGNED_AT},v1="), WebhookError::WrongSignature),
        (
            format!("t={SIGNED_AT},v1={}", &current[..63]),
            WebhookError::WrongSignature,
        ),
        (
            format!("t={SIGNED_AT},v1={current}0"),
            WebhookError::WrongSignature,
        ),
        (
            format!("t={SIGNED_AT},v0={current}"),
            WebhookError::MalformedSignature,
        ),
        (format!("t={SIGNED_AT}"), WebhookError::MalformedSignature),
        (format!("v1={current}"), WebhookError::MalformedSignature),
        (
            format!("t={SIGNED_AT},t={SIGNED_AT},v1={current}"),
            WebhookError::MalformedSignature,
        ),
        (
            format!("t=+{SIGNED_AT},v1={current}"),
            WebhookError::MalformedSignature,
        ),
        (
            format!("t=0{SIGNED_AT},v1={current}"),
            WebhookError::MalformedSignature,
        ),
        (
            format!("t={},v1={current}", i64::MAX),
            WebhookError::MalformedSignature,
        ),
        (format!("t=,v1={current}"), WebhookError::MalformedSignature),
        (current.clone(), WebhookError::MalformedSignature),
        (String::new(), WebhookError::MalformedSignature),
    ] {
        assert_eq!(verify(body, &bad), Err(error), "{bad}");
    }
}

#[test]
fn a_signature_is_good_for_five_minutes_either_way() {
    let body = event("invoice.paid", &json!({})).to_string();
    let body = body.as_bytes();
    let header = header(SECRET, body);
    let at = |offset: TimeDelta| STRIPE.verify_webhook(body, &header, signed_at() + offset);
    let signed_at = signed_at();
    for millis in [0, 299_999, 300_000, -300_000] {
        assert!(at(TimeDelta::milliseconds(millis)).is_ok(), "{millis}");
    }
    for millis in [300_001, -300_001, 86_400_000] {
        let refused = at(TimeDelta::milliseconds(millis));
        assert_eq!(
            refused,
            Err(WebhookError::OutOfTime { signed_at }),
            "{millis}"
        );
    }
}

proptest! {
    #[test]
    fn a_changed_byte_of_the_body_is_refused(at in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let body = event("invoice.paid", &json!({"customer": "cus_ada"})).to_string().into_bytes();
        let header = header(SECRET, &body);
        let mut changed = body;
        let at = at.index(changed.len());
        changed[at] ^= flip;
        prop_assert_eq!(verify(&changed, &header), Err(WebhookError::WrongSignature));
    }

    #[test]
    fn a_body_cut_short_or_made_longer_is_refused(cut in 0..100usize, more in "[ -~]{1,9}") {
        let body = event("invoice.paid", &json!({"customer": "cus_ada"})).to_string();
        let header = header(SECRET, body.as_bytes());
        let shorter = &body.as_bytes()[..body.len() - 1 - cut];
        prop_assert_eq!(verify(shorter, &header), Err(WebhookError::WrongSignature));
        let longer = body + &more;
        prop_assert_eq!(verify(longer.as_bytes(), &header), Err(WebhookError::WrongSignature));
    }

    #[test]
    fn a_changed_character_of_the_header_is_refused(at in any::<prop::sample::Index>(), with in "[ -~]") {
        let body = event("invoice.paid", &json!({"customer": "cus_ada"})).to_string();
        let mut header = header(SECRET, body.as_bytes());
        let at = at.index(header.len());
        prop_assume!(header[at..=at] != with);
        header.replace_range(at..=at, &with);
        prop_assert!(verify(body.as_bytes(), &header).is_err());
    }

    #[test]
    fn another_time_is_refused(seconds in -10_000..10_000i64) {
        prop_assume!(seconds != 0);
        let body = event("invoice.paid", &json!({})).to_string();
        let header = format!("t={},v1={}", SIGNED_AT + seconds, v1(SECRET, body.as_bytes()));
        prop_assert_eq!(verify(body.as_bytes(), &header), Err(WebhookError::WrongSignature));
    }

    #[test]
    fn an_old_or_early_one_is_refused(seconds in 301..1_000_000_000i64, is_early in any::<bool>()) {
        let body = event("invoice.paid", &json!({})).to_string();
        let header = header(SECRET, body.as_bytes());
        let offset = TimeDelta::seconds(if is_early { -seconds } else { seconds });
        let refused = STRIPE.verify_webhook(body.as_bytes(), &header, signed_at() + offset);
        prop_assert_eq!(refused, Err(WebhookError::OutOfTime { signed_at: signed_at() }));
    }

    #[test]
    fn anything_else_is_refused_without_panic(body in any::<Vec<u8>>(), header in ".{0,80}") {
        prop_assert!(verify(&body, &header).is_err());
        let header = format!("t={SIGNED_AT},{header}");
        prop_assert!(verify(&body, &header).is_err());
    }
}
