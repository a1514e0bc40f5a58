//! Customers and their credit.

use cp_model::OrganizationId;
use serde_json::json;

use super::{customer, stripe};
use crate::stand_in::{Fault, StandIn};
use crate::{BillingError, fmt_amount};

#[tokio::test]
async fn an_organization_gets_one_customer_that_knows_it() {
    let stand_in = StandIn::start().await;
    let stripe = stripe(&stand_in);
    let organization = OrganizationId::generate();

    let made = stripe
        .create_customer(organization, "Moreno & Söhne", "ada+pay@example.com")
        .await
        .unwrap();
    let again = stripe
        .create_customer(organization, "Moreno Labs", "lin@example.com")
        .await
        .unwrap();
    let other = stripe
        .create_customer(OrganizationId::generate(), "Moreno Labs", "lin@example.com")
        .await
        .unwrap();

    assert_eq!(made, again, "with another name and address, too");
    assert_ne!(made, other);
    let world = stand_in.world();
    assert_eq!(world.customers.len(), 2);
    let customer = &world.customers[made.as_str()];
    assert_eq!(
        customer["metadata"]["organization_id"],
        organization.to_string()
    );
    assert_eq!(customer["name"], "Moreno Labs");
    assert_eq!(customer["email"], "lin@example.com");
    let keys: Vec<_> = world
        .requests
        .iter()
        .filter(|request| request.path == "/v1/customers")
        .map(|request| request.idempotency_key.clone().unwrap())
        .collect();
    assert_eq!(keys[0], format!("insforge-customer-{organization}-1"));
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[0], keys[2]);
}

#[tokio::test]
async fn texts_arrive_as_they_are() {
    let stand_in = StandIn::start().await;
    let name = "a&b=c [d] + 100% \"é\" 設計\u{1f980}";
    let made = stripe(&stand_in)
        .create_customer(OrganizationId::generate(), name, "ada@example.com")
        .await
        .unwrap();
    assert_eq!(stand_in.world().customers[made.as_str()]["name"], name);
}

#[tokio::test]
async fn a_failure_that_stripe_remembers_does_not_stand_in_the_way_for_a_day() {
    let stand_in = StandIn::start().await;
    let stripe = stripe(&stand_in);
    let organization = OrganizationId::generate();
    stand_in.fails_with([Fault::FailAndRemember]);

    let made = stripe
        .create_customer(organization, "Moreno Labs", "ada@example.com")
        .await
        .unwrap();
    let again = stripe
        .create_customer(organization, "Moreno Labs", "ada@example.com")
        .await
        .unwrap();

    assert_eq!(made, again);
    assert_eq!(stand_in.world().customers.len(), 1);
}

#[tokio::test]
async fn a_customer_that_somebody_deleted_is_made_anew() {
    let stand_in = StandIn::start().await;
    let stripe = stripe(&stand_in);
    let organization = OrganizationId::generate();
    let ask = || stripe.create_customer(organization, "Moreno Labs", "ada@example.com");
    let deleted = ask().await.unwrap();
    let id = deleted.to_string();
    let gone = json!({"id": id, "object": "customer", "deleted": true});
    stand_in.world().customers.insert(id, gone);

    let credit = stripe.credit(&deleted, 10).await;
    assert!(
        matches!(credit, Err(BillingError::Missing { .. })),
        "{credit:?}"
    );
    let update = stripe
        .update_customer(&deleted, "Moreno", "ada@example.com")
        .await;
    assert!(
        matches!(update, Err(BillingError::Missing { .. })),
        "{update:?}"
    );
    assert_eq!(stripe.subscriptions_of(&deleted).await.unwrap(), []);

    let made = ask().await.unwrap();
    assert_ne!(made, deleted);
    assert_eq!(made, ask().await.unwrap());
}

#[tokio::test]
async fn credit_is_positive_and_what_is_used_of_it_negative() {
    let stand_in = StandIn::start().await;
    let customer = customer("cus_ada");
    {
        let mut world = stand_in.world();
        let account =
            json!({"id": "cus_ada", "object": "customer", "balance": -1500, "currency": "usd"});
        world.customers.insert("cus_ada".to_owned(), account);
        world.transactions = vec![
            json!({"id": "cbtxn_2", "object": "customer_balance_transaction", "customer": "cus_ada", "amount": 1000,
                   "currency": "usd", "description": null, "type": "applied_to_invoice", "created": 1_795_000_200}),
            json!({"id": "cbtxn_1", "object": "customer_balance_transaction", "customer": "cus_ada", "amount": -2500,
                   "currency": "usd", "description": "For the outage", "type": "adjustment",
                   "created": 1_795_000_100}),
        ];
    }

    let credit = stripe(&stand_in).credit(&customer, 10).await.unwrap();

    assert_eq!(fmt_amount(credit.balance_cents, &credit.currency), "$15.00");
    let told: Vec<_> = credit
        .transactions
        .iter()
        .map(|it| {
            (
                it.amount_cents,
                it.description.as_str(),
                it.created.timestamp(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (-1000, "Applied to invoice", 1_795_000_200),
            (2500, "For the outage", 1_795_000_100),
        ]
    );
    assert_eq!(stand_in.last_request().params["limit"], "10");
}

#[tokio::test]
async fn a_customer_without_any_amount_has_no_credit() {
    let stand_in = StandIn::start().await;
    let stripe = stripe(&stand_in);
    let customer = stripe
        .create_customer(OrganizationId::generate(), "Moreno Labs", "ada@example.com")
        .await
        .unwrap();
    let credit = stripe.credit(&customer, 10).await.unwrap();
    assert_eq!((credit.balance_cents, credit.currency.as_str()), (0, "usd"));
    assert_eq!(credit.transactions, []);
}
