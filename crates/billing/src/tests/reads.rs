//! Subscriptions, the plan that follows from them, and payments.

use chrono::DateTime;
use cp_model::{OrganizationId, Plan};
use serde_json::{Value, json};

use super::{customer, stripe};
use crate::stand_in::{Fault, StandIn};
use crate::{
    BillingError, Payment, Subscription, SubscriptionId, SubscriptionStatus, decisive, plan_of,
};

const CREATED: i64 = 1_795_000_000;
const PERIOD_END: i64 = 1_797_592_000;

/// As of version 2026-10-28: the period is the item's.
fn subscription(id: &str, price: &str) -> Value {
    json!({
        "id": id, "object": "subscription", "customer": "cus_ada", "status": "active", "created": CREATED,
        "cancel_at_period_end": false, "cancel_at": null, "metadata": {},
        "items": {"object": "list", "has_more": false, "data": [{
            "id": "si_1", "object": "subscription_item", "price": {"id": price, "object": "price"},
            "current_period_start": CREATED, "current_period_end": PERIOD_END, "quantity": 1,
        }]},
    })
}

async fn stand_in_with(subscriptions: Vec<Value>) -> StandIn {
    let stand_in = StandIn::start().await;
    let mut world = stand_in.world();
    let ada = json!({"id": "cus_ada", "object": "customer", "balance": 0});
    world.customers.insert("cus_ada".to_owned(), ada);
    world.subscriptions = subscriptions;
    drop(world);
    stand_in
}

async fn read(wire: Value) -> Subscription {
    let id: SubscriptionId = wire["id"].as_str().unwrap().parse().unwrap();
    let stand_in = stand_in_with(vec![wire]).await;
    stripe(&stand_in).subscription(&id).await.unwrap()
}

#[tokio::test]
async fn a_subscription_is_read_in_all_its_parts() {
    let organization = OrganizationId::generate();
    let mut wire = subscription("sub_1", "price_pro");
    wire["metadata"] = json!({"organization_id": organization.to_string(), "other": "x"});
    assert_eq!(
        read(wire).await,
        Subscription {
            id: "sub_1".parse().unwrap(),
            customer: customer("cus_ada"),
            organization: Some(organization),
            plan: Some(Plan::Pro),
            status: SubscriptionStatus::Active,
            current_period_end: DateTime::from_timestamp(PERIOD_END, 0),
            cancel_at_period_end: false,
            created: DateTime::from_timestamp(CREATED, 0).unwrap(),
        }
    );
}

#[tokio::test]
async fn the_period_of_older_versions_is_read_too() {
    let mut wire = subscription("sub_1", "price_pro");
    let item = wire["items"]["data"][0].as_object_mut().unwrap();
    item.remove("current_period_end");
    wire["current_period_end"] = json!(1_800_000_000);
    wire.as_object_mut().unwrap().remove("cancel_at");
    let read = read(wire).await;
    assert_eq!(
        read.current_period_end,
        DateTime::from_timestamp(1_800_000_000, 0)
    );
    assert!(!read.cancel_at_period_end);
}

#[tokio::test]
async fn the_plan_goes_by_any_price_that_was_ever_sold_for_it() {
    for (price, plan) in [
        ("price_pro", Some(Plan::Pro)),
        ("price_pro_2024", Some(Plan::Pro)),
        ("price_of_something_else", None),
    ] {
        assert_eq!(
            read(subscription("sub_1", price)).await.plan,
            plan,
            "{price}"
        );
    }
}

#[tokio::test]
async fn of_several_items_the_plans_own_counts() {
    let mut wire = subscription("sub_1", "price_of_something_else");
    let ours =
        json!({"id": "si_2", "price": {"id": "price_pro"}, "current_period_end": 1_799_000_000});
    wire["items"]["data"]
        .as_array_mut()
        .unwrap()
        .insert(0, ours);
    let read = read(wire).await;
    assert_eq!(read.plan, Some(Plan::Pro));
    assert_eq!(
        read.current_period_end,
        DateTime::from_timestamp(1_799_000_000, 0)
    );
}

#[tokio::test]
async fn a_subscription_ends_with_its_period_by_flag_or_by_date() {
    for (flag, date, expected) in [
        (false, json!(null), false),
        (true, json!(null), true),
        (true, json!(PERIOD_END), true),
        (false, json!(PERIOD_END), true),
        (false, json!(PERIOD_END - 86_400), true),
        (false, json!(PERIOD_END + 86_400), false),
    ] {
        let mut wire = subscription("sub_1", "price_pro");
        wire["cancel_at_period_end"] = json!(flag);
        wire["cancel_at"] = date.clone();
        assert_eq!(
            read(wire).await.cancel_at_period_end,
            expected,
            "{flag} {date}"
        );
    }
}

#[tokio::test]
async fn notes_of_others_and_customers_in_full_are_no_trouble() {
    let mut wire = subscription("sub_1", "price_pro");
    wire["metadata"] = json!({"organization_id": "not one of ours"});
    wire["customer"] = json!({"id": "cus_ada", "object": "customer", "email": null});
    wire["status"] = json!("status_of_next_year");
    let read = read(wire).await;
    assert_eq!(read.organization, None);
    assert_eq!(read.customer, customer("cus_ada"));
    assert_eq!(
        read.status,
        SubscriptionStatus::Other("status_of_next_year".to_owned())
    );
}

#[tokio::test]
async fn all_pages_and_statuses_are_read() {
    let mut all: Vec<Value> = (0..250)
        .map(|number| subscription(&format!("sub_{number}"), "price_pro"))
        .collect();
    for subscription in &mut all[1..] {
        subscription["status"] = json!("canceled");
    }
    all[100]["customer"] = json!("cus_eve");
    let stand_in = stand_in_with(all).await;

    let found = stripe(&stand_in)
        .subscriptions_of(&customer("cus_ada"))
        .await
        .unwrap();

    let ids: Vec<_> = found.iter().map(|it| it.id.to_string()).collect();
    let expected: Vec<_> = (0..250)
        .filter(|number| *number != 100)
        .map(|number| format!("sub_{number}"))
        .collect();
    assert_eq!(ids, expected);
    assert_eq!(stand_in.calls().len(), 3);
    assert_eq!(plan_of(&found), Plan::Pro);
}

#[tokio::test]
async fn a_list_without_end_is_given_up() {
    let stand_in = stand_in_with(vec![]).await;
    let endless =
        json!({"object": "list", "has_more": true, "data": [subscription("sub_1", "price_pro")]});
    stand_in.fails_with((0..30).map(|_| Fault::Say(200, endless.clone())));
    let read = stripe(&stand_in)
        .subscriptions_of(&customer("cus_ada"))
        .await;
    assert!(matches!(read, Err(BillingError::Unexpected(_))), "{read:?}");

    let stand_in = stand_in_with(vec![]).await;
    stand_in.fails_with([Fault::Say(200, json!({"data": [], "has_more": true}))]);
    let read = stripe(&stand_in)
        .subscriptions_of(&customer("cus_ada"))
        .await;
    assert!(matches!(read, Err(BillingError::Unexpected(_))), "{read:?}");
}

#[tokio::test]
async fn a_customer_of_another_account_has_not_no_subscriptions() {
    let stand_in = stand_in_with(vec![]).await;
    let read = stripe(&stand_in)
        .subscriptions_of(&customer("cus_live"))
        .await;
    assert!(
        matches!(read, Err(BillingError::Missing { .. })),
        "{read:?}"
    );
}

#[tokio::test]
async fn a_subscription_is_ended_once_and_stays_so() {
    let stand_in = stand_in_with(vec![subscription("sub_1", "price_pro")]).await;
    let stripe = stripe(&stand_in);
    let id: SubscriptionId = "sub_1".parse().unwrap();

    stripe.cancel_subscription(&id).await.unwrap();
    let ended = stripe.subscription(&id).await.unwrap();
    assert_eq!(ended.status, SubscriptionStatus::Canceled);
    stripe.cancel_subscription(&id).await.unwrap();

    let unknown = stripe.cancel_subscription(&"sub_2".parse().unwrap()).await;
    assert!(
        matches!(unknown, Err(BillingError::Missing { .. })),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn ending_it_survives_a_lost_answer() {
    let stand_in = stand_in_with(vec![subscription("sub_1", "price_pro")]).await;
    stand_in.fails_with([Fault::DoAndBreakOff]);
    let stripe = stripe(&stand_in);
    stripe
        .cancel_subscription(&"sub_1".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(
        stand_in.calls(),
        [
            "DELETE /v1/subscriptions/sub_1",
            "DELETE /v1/subscriptions/sub_1",
            "GET /v1/subscriptions/sub_1",
        ]
    );
}

/// A subscription of a status, made some seconds after another.
fn held(status: &str, plan: Option<Plan>, seconds: i64) -> Subscription {
    Subscription {
        id: format!("sub_{seconds}").parse().unwrap(),
        customer: customer("cus_ada"),
        organization: None,
        plan,
        status: status.to_owned().into(),
        current_period_end: None,
        cancel_at_period_end: false,
        created: DateTime::from_timestamp(CREATED + seconds, 0).unwrap(),
    }
}

/// Every status by its wire name, and whether it keeps the plan.
const STATUSES: [(&str, bool); 9] = [
    ("trialing", true),
    ("active", true),
    ("past_due", true),
    ("unpaid", false),
    ("canceled", false),
    ("incomplete", false),
    ("incomplete_expired", false),
    ("paused", false),
    ("status_of_next_year", false),
];

#[test]
fn the_plan_follows_from_the_status() {
    for (status, keeps) in STATUSES {
        let plan = if keeps { Plan::Pro } else { Plan::Free };
        assert_eq!(
            plan_of(&[held(status, Some(Plan::Pro), 0)]),
            plan,
            "{status}"
        );
        assert_eq!(plan_of(&[held(status, None, 0)]), Plan::Free, "{status}");
        let read = SubscriptionStatus::from(status.to_owned());
        assert_eq!(read.as_str(), status);
        let is_known = !matches!(read, SubscriptionStatus::Other(_));
        assert_eq!(is_known, status != "status_of_next_year");
    }
    assert_eq!(plan_of(&[]), Plan::Free);
    assert_eq!(decisive(&[]), None);
}

#[test]
fn of_two_subscriptions_the_one_that_keeps_a_plan_decides_in_any_order() {
    for (one, one_keeps) in STATUSES {
        for (other, other_keeps) in STATUSES {
            let both = [
                held(one, Some(Plan::Pro), 0),
                held(other, Some(Plan::Pro), 1),
            ];
            let mut reversed = both.clone();
            reversed.reverse();
            let plan = if one_keeps || other_keeps {
                Plan::Pro
            } else {
                Plan::Free
            };
            assert_eq!(plan_of(&both), plan, "{one} {other}");
            assert_eq!(plan_of(&reversed), plan, "{one} {other}");
            // The newer, unless only the older keeps the plan.
            let expected = if one_keeps && !other_keeps {
                &both[0]
            } else {
                &both[1]
            };
            assert_eq!(decisive(&both), Some(expected), "{one} {other}");
            assert_eq!(decisive(&reversed), Some(expected), "{one} {other}");
        }
    }
}

#[test]
fn the_best_plan_counts_not_the_newest() {
    assert!(
        Plan::Free < Plan::Pro,
        "`decisive` compares plans by their order"
    );
    let held = [
        held("active", Some(Plan::Pro), 0),
        held("active", Some(Plan::Free), 1),
        held("active", None, 2),
    ];
    assert_eq!(plan_of(&held), Plan::Pro);
    assert_eq!(decisive(&held), Some(&held[0]));
}

fn invoice(id: &str, status: Option<&str>) -> Value {
    json!({
        "id": id, "object": "invoice", "customer": "cus_ada", "status": status, "amount_paid": 0, "amount_due": 2500,
        "currency": "usd", "description": null, "invoice_pdf": null, "created": CREATED,
        "lines": {"object": "list", "has_more": false, "data": []},
    })
}

#[tokio::test]
async fn payments_are_invoices_without_drafts() {
    let stand_in = stand_in_with(vec![]).await;
    let mut paid = invoice("in_paid", Some("paid"));
    paid["amount_paid"] = json!(2000);
    paid["invoice_pdf"] = json!("https://pay.stripe.com/invoice/1/pdf");
    paid["lines"]["data"] = json!([
        {"id": "il_1", "description": "1 \u{d7} Pro (at $25.00 / month)"}, {"id": "il_2", "description": "More"},
    ]);
    let mut open = invoice("in_open", Some("open"));
    open["description"] = json!("By hand");
    stand_in.world().invoices = vec![
        invoice("in_draft", Some("draft")),
        open,
        invoice("in_nothing", None),
        paid,
        invoice("in_void", Some("void")),
    ];

    let payments = stripe(&stand_in)
        .payments(&customer("cus_ada"), 2)
        .await
        .unwrap();

    let created = DateTime::from_timestamp(CREATED, 0).unwrap();
    assert_eq!(
        payments,
        [
            Payment {
                invoice_id: "in_open".to_owned(),
                amount_cents: 2500,
                currency: "usd".to_owned(),
                status: "open".to_owned(),
                description: Some("By hand".to_owned()),
                pdf_url: None,
                created,
            },
            Payment {
                invoice_id: "in_paid".to_owned(),
                amount_cents: 2000,
                currency: "usd".to_owned(),
                status: "paid".to_owned(),
                description: Some("1 \u{d7} Pro (at $25.00 / month)".to_owned()),
                pdf_url: Some("https://pay.stripe.com/invoice/1/pdf".to_owned()),
                created,
            },
        ]
    );
    assert_eq!(stand_in.calls().len(), 2, "a draft takes no place");
}
