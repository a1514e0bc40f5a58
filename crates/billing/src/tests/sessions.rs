//! Pages of Stripe.

use std::collections::BTreeMap;

use cp_model::{OrganizationId, Plan};

use super::{config, customer, stripe, times};
use crate::stand_in::StandIn;
use crate::{BillingError, Stripe, StripeConfig};

#[tokio::test]
async fn a_checkout_subscribes_the_customer_to_the_plans_price_for_the_organization() {
    let stand_in = StandIn::start().await;
    let stripe = stripe(&stand_in);
    let organization = OrganizationId::generate();
    let customer = stripe
        .create_customer(organization, "Moreno Labs", "ada@example.com")
        .await
        .unwrap();

    let session = stripe
        .create_checkout_session(&customer, organization, Plan::Pro)
        .await
        .unwrap();

    assert!(session.id.starts_with("cs_test_"));
    assert_eq!(
        session.url.as_str(),
        format!("https://checkout.stripe.com/c/pay/{}#fid=1", session.id)
    );
    let id = organization.to_string();
    let expected = [
        ("mode", "subscription"),
        ("customer", customer.as_str()),
        ("client_reference_id", &id),
        ("metadata[organization_id]", &id),
        ("subscription_data[metadata][organization_id]", &id),
        ("line_items[0][price]", "price_pro"),
        ("line_items[0][quantity]", "1"),
        (
            "success_url",
            "https://insforge.example/billing?paid={CHECKOUT_SESSION_ID}",
        ),
        ("cancel_url", "https://insforge.example/billing"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(stand_in.last_request().params, BTreeMap::from(expected));
}

#[tokio::test]
async fn who_comes_back_later_gets_another_page() {
    let stand_in = StandIn::start().await;
    let stripe = stripe(&stand_in);
    let organization = OrganizationId::generate();
    let customer = stripe
        .create_customer(organization, "Moreno Labs", "ada@example.com")
        .await
        .unwrap();
    let ask = || stripe.create_checkout_session(&customer, organization, Plan::Pro);
    assert_ne!(ask().await.unwrap().id, ask().await.unwrap().id);
}

#[tokio::test]
async fn what_is_not_sold_is_not_asked_for() {
    let stand_in = StandIn::start().await;
    let stripe = stripe(&stand_in);
    for plan in [Plan::Free, Plan::Partner] {
        let refused = stripe
            .create_checkout_session(&customer("cus_ada"), OrganizationId::generate(), plan)
            .await;
        assert!(
            matches!(refused, Err(BillingError::NotSold(it)) if it == plan),
            "{refused:?}"
        );
    }
    assert_eq!(stand_in.calls(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_customer_that_is_gone_and_a_price_that_is_wrong_are_two_things() {
    let stand_in = StandIn::start().await;
    let organization = OrganizationId::generate();
    let gone = stripe(&stand_in)
        .create_checkout_session(&customer("cus_gone"), organization, Plan::Pro)
        .await
        .unwrap_err();
    assert_eq!(
        gone.to_string(),
        "Stripe does not have it: No such customer: 'cus_gone'"
    );
    assert!(matches!(gone, BillingError::Missing { .. }));

    let config = StripeConfig {
        api_base: stand_in.url.clone(),
        prices: BTreeMap::from([(Plan::Pro, vec!["price_mistyped".to_owned()])]),
        ..config()
    };
    let stripe = Stripe::with_times(config, times()).unwrap();
    let customer = stripe
        .create_customer(organization, "Moreno Labs", "ada@example.com")
        .await
        .unwrap();
    let wrong = stripe
        .create_checkout_session(&customer, organization, Plan::Pro)
        .await
        .unwrap_err();
    let BillingError::Refused {
        status: 400,
        code,
        param,
        request_id,
        ..
    } = wrong
    else {
        panic!("{wrong:?}")
    };
    assert_eq!(code, "resource_missing");
    assert_eq!(param.as_deref(), Some("line_items[0][price]"));
    assert_eq!(request_id.as_deref(), Some("req_stand_in"));
}

#[tokio::test]
async fn a_portal_leads_back_to_us() {
    let stand_in = StandIn::start().await;
    let stripe = stripe(&stand_in);
    let customer = stripe
        .create_customer(OrganizationId::generate(), "Moreno Labs", "ada@example.com")
        .await
        .unwrap();

    let url = stripe.create_portal_session(&customer).await.unwrap();

    assert_eq!(url.host_str(), Some("billing.stripe.com"));
    let expected = [
        ("customer", customer.as_str()),
        ("return_url", "https://insforge.example/settings"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(stand_in.last_request().params, BTreeMap::from(expected));
}
