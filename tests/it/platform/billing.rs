//! Plans that are bought: checkout, portal, what Stripe tells and what follows, against a server that answers as Stripe's
//! documents say ([`cp_billing::stand_in`]).

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::Utc;
use cp_billing::stand_in::{Fault, KEY, StandIn};
use cp_billing::{Stripe, StripeConfig};
use cp_model::{OrganizationId, Plan};
use cp_tests::{Answer, App, AppOptions, Member, eventually};
use futures::future::join_all;
use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};

const WEBHOOK_SECRET: &str = "whsec_current";
const WEBHOOK: &str = "/billing/v1/stripe/webhook";

/// A control plane that takes payments, and somebody with a team.
struct Shop {
    app: App,
    stripe: StandIn,
    ada: Member,
    team: String,
}

async fn shop() -> Shop {
    let stripe = StandIn::start().await;
    let config = StripeConfig {
        secret_key: SecretString::from(KEY),
        webhook_secrets: vec![SecretString::from(WEBHOOK_SECRET)],
        prices: BTreeMap::from([(Plan::Pro, vec!["price_pro".to_owned()])]),
        api_base: stripe.url.clone(),
        success_url: "https://insforge.example/paid".parse().unwrap(),
        cancel_url: "https://insforge.example/not-paid".parse().unwrap(),
        return_url: "https://insforge.example/managed".parse().unwrap(),
    };
    let app = App::start_with(AppOptions {
        payments: Some(Stripe::new(config).unwrap()),
        ..AppOptions::default()
    })
    .await;
    let ada = app.member("Ada").await;
    let team = ada.create_organization("Team").await;
    Shop {
        app,
        stripe,
        ada,
        team,
    }
}

impl Shop {
    async fn check_out(&self, plan: &str) -> Answer {
        let body = json!({ "organizationId": self.team, "plan": plan });
        let path = "/billing/v1/stripe/checkout-session";
        self.ada.send(Method::POST, path, &body).await
    }

    /// The team's customer at Stripe.
    fn customer(&self) -> String {
        let world = self.stripe.world();
        let mut customers = world.customers.values();
        let ours = customers.find(|one| {
            one["metadata"]["organization_id"] == self.team && one["deleted"] != json!(true)
        });
        ours.unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// Somebody pays on Stripe's page.
    fn pay(&self) -> String {
        self.subscribe(&self.customer())
    }

    fn subscribe(&self, customer: &str) -> String {
        let mut world = self.stripe.world();
        let id = format!("sub_{}", world.subscriptions.len() + 1);
        let subscription = json!({
            "id": id, "object": "subscription", "customer": customer, "status": "active",
            "metadata": { "organization_id": self.team }, "cancel_at_period_end": false, "cancel_at": null,
            "created": 1_795_000_000,
            "items": { "object": "list", "has_more": false, "data": [
                { "price": { "id": "price_pro" }, "current_period_end": 1_797_600_000 },
            ]},
        });
        world.subscriptions.insert(0, subscription);
        id
    }

    fn set_subscription(&self, id: &str, status: &str) {
        let mut world = self.stripe.world();
        let found = world.subscriptions.iter_mut().find(|one| one["id"] == id);
        found.unwrap()["status"] = json!(status);
    }

    fn event(&self, id: &str, kind: &str) -> Value {
        event(id, kind, &self.customer())
    }

    async fn tell(&self, event: &Value) -> Answer {
        let body = event.to_string();
        let signature = signature(&body, Utc::now().timestamp(), WEBHOOK_SECRET);
        self.post_event(body, &signature).await
    }

    async fn post_event(&self, body: String, signature: &str) -> Answer {
        let url = format!("{}{WEBHOOK}", self.app.base_url);
        let request = self.app.http.post(url).body(body);
        Answer::to(request.header("stripe-signature", signature)).await
    }

    async fn plan(&self) -> Value {
        let listed = self.ada.get("/organizations/v1").await.expect(200);
        let all = listed["organizations"].as_array().unwrap();
        let team = all.iter().find(|one| one["id"] == self.team);
        team.unwrap()["plan"].clone()
    }

    async fn await_plan(&self, plan: &str) {
        let what = format!("the team is on the {plan} plan");
        eventually(&what, Duration::from_secs(10), async || {
            (self.plan().await == plan).then_some(())
        })
        .await;
    }

    /// What the team's audit log says of its plan, the newest first.
    async fn plan_changes(&self) -> Vec<Value> {
        let path = format!("/organizations/v1/{}/audit-log", self.team);
        let log = self.ada.get(&path).await.expect(200);
        let entries = log["entries"].as_array().unwrap().iter();
        entries
            .filter(|entry| entry["action"] == "organization.plan_changed")
            .map(|entry| entry["details"].clone())
            .collect()
    }

    async fn status(&self) -> Value {
        let path = format!("/organizations/v1/{}/subscription-status", self.team);
        self.ada.get(&path).await.expect(200)
    }

    /// Waits until nothing that Stripe told is left to be asked about.
    async fn settled(&self) {
        eventually("nothing is due", Duration::from_secs(20), async || {
            let due: i64 = self
                .app
                .database
                .count("billing_customers where taken_round < round or due_at <= now()")
                .await;
            (due == 0).then_some(())
        })
        .await;
    }
}

fn event(id: &str, kind: &str, customer: &str) -> Value {
    json!({
        "id": id, "object": "event", "type": kind, "created": Utc::now().timestamp(), "livemode": false,
        "data": { "object": { "id": "sub_1", "object": "subscription", "customer": customer, "metadata": {} } },
    })
}

fn signature(body: &str, timestamp: i64, secret: &str) -> String {
    let secret = SecretString::from(secret);
    let v1 = cp_tokens::webhook::sign(&secret, timestamp, body.as_bytes());
    format!("t={timestamp},v1={v1}")
}

#[tokio::test]
async fn a_plan_is_bought_shown_managed_and_ends() {
    let shop = shop().await;
    let before = shop.status().await;
    assert_eq!(before, json!({ "status": "active", "plan": "free" }));

    let checkout = shop.check_out("pro").await.expect(200);
    let url = checkout["checkoutUrl"].as_str().unwrap();
    assert!(url.starts_with("https://checkout.stripe.com/"), "{url}");
    let session = shop.stripe.world().sessions[0].clone();
    assert_eq!(checkout["sessionId"], session["id"]);
    assert_eq!(session["client_reference_id"], shop.team);
    assert_eq!(shop.plan().await, "free", "nobody has paid yet");

    let subscription = shop.pay();
    let told = shop.event("evt_1", "customer.subscription.created");
    let taken = shop.tell(&told).await.expect(200);
    assert_eq!(taken, json!({ "received": true }));
    shop.await_plan("pro").await;

    let now = shop.status().await;
    assert_eq!(now["status"], "active");
    assert_eq!(now["plan"], "pro");
    assert_eq!(now["currentPeriodEnd"], "2026-12-18T13:20:00Z");
    assert_eq!(now["cancelAtPeriodEnd"], false);
    assert_eq!(now["stripeCustomerId"], shop.customer());
    assert_eq!(now["stripeSubscriptionId"], subscription);

    let portal = json!({ "organizationId": shop.team });
    let portal = shop
        .ada
        .send(Method::POST, "/billing/v1/stripe/portal-session", &portal)
        .await
        .expect(200);
    let url = portal["portalUrl"].as_str().unwrap();
    assert!(url.starts_with("https://billing.stripe.com/"), "{url}");

    shop.set_subscription(&subscription, "canceled");
    let told = shop.event("evt_2", "customer.subscription.deleted");
    shop.tell(&told).await.expect(200);
    shop.await_plan("free").await;
    assert_eq!(shop.status().await["status"], "canceled");
    let changes = shop.plan_changes().await;
    let steps: Vec<_> = changes
        .iter()
        .map(|change| (&change["from"], &change["to"]))
        .collect();
    assert_eq!(
        steps,
        [
            (&json!("pro"), &json!("free")),
            (&json!("free"), &json!("pro"))
        ]
    );
}

#[tokio::test]
async fn payments_and_credits_are_told_as_stripe_has_them() {
    let shop = shop().await;
    shop.check_out("pro").await.expect(200);
    let customer = shop.customer();
    {
        let mut world = shop.stripe.world();
        world.invoices = vec![json!({
            "id": "in_1", "object": "invoice", "customer": customer, "amount_paid": 2500, "amount_due": 2500,
            "currency": "usd", "status": "paid", "description": null, "invoice_pdf": "https://pay.stripe.com/in_1/pdf",
            "lines": { "object": "list", "has_more": false, "data": [{ "description": "1 × Pro" }] }, "created": 1_795_000_000,
        })];
        world.transactions = vec![json!({
            "id": "cbtxn_1", "object": "customer_balance_transaction", "customer": customer, "amount": -500,
            "currency": "usd", "description": "Sorry for the outage", "type": "adjustment", "created": 1_795_000_000,
        })];
        let ours = world.customers.get_mut(&customer).unwrap();
        ours["balance"] = json!(-500);
        ours["currency"] = json!("usd");
    }
    let path = format!("/organizations/v1/{}/payment-history", shop.team);
    let payments = shop.ada.get(&path).await.expect(200);
    assert_eq!(
        payments,
        json!({ "payments": [{
            "stripe_invoice_id": "in_1", "amount_cents": 2500, "amount_display": "$25.00", "currency": "usd",
            "status": "paid", "description": "1 × Pro", "invoice_pdf_url": "https://pay.stripe.com/in_1/pdf",
            "created_at": "2026-11-18T11:06:40Z",
        }]})
    );
    let path = format!("/billing/v1/{}/credits", shop.team);
    let credit = shop.ada.get(&path).await.expect(200);
    assert_eq!(
        credit,
        json!({
            "creditBalanceCents": 500, "creditBalanceFormatted": "$5.00",
            "transactions": [{ "amountCents": 500, "description": "Sorry for the outage", "created": "2026-11-18T11:06:40Z" }],
        })
    );
}

#[tokio::test]
async fn an_event_that_is_told_twenty_times_at_once_changes_the_plan_once() {
    let shop = shop().await;
    shop.check_out("pro").await.expect(200);
    shop.pay();
    let told = shop.event("evt_1", "invoice.paid");
    let tellings = (0..20).map(|_| shop.tell(&told));
    for taken in join_all(tellings).await {
        taken.expect(200);
    }
    shop.await_plan("pro").await;
    shop.settled().await;
    let noted = "billing_events";
    assert_eq!(shop.app.database.count(noted).await, 1);
    assert_eq!(shop.plan_changes().await.len(), 1);
}

#[tokio::test]
async fn events_in_the_wrong_order_end_as_stripe_has_it() {
    let shop = shop().await;
    shop.check_out("pro").await.expect(200);
    let first = shop.pay();
    shop.set_subscription(&first, "canceled");
    shop.pay();
    // The end of the first is told last.
    let kinds = [
        ("evt_3", "customer.subscription.created"),
        ("evt_1", "customer.subscription.created"),
        ("evt_2", "customer.subscription.deleted"),
    ];
    for (id, kind) in kinds {
        shop.tell(&shop.event(id, kind)).await.expect(200);
    }
    shop.settled().await;
    assert_eq!(shop.plan().await, "pro");
    assert_eq!(shop.plan_changes().await.len(), 1);
}

#[tokio::test]
async fn an_older_answer_than_was_taken_is_left() {
    let shop = shop().await;
    shop.check_out("pro").await.expect(200);
    shop.settled().await;
    let business = &shop.app.control_plane;
    let customer = shop.customer();
    // Two workers ask at once: the second one after the first, and it is answered first.
    let ask = async |id: &str| {
        business
            .note_billing_event(id, "invoice.paid", &customer, Utc::now())
            .await
            .unwrap();
        let due = business.take_due_customers().await.unwrap();
        due.into_iter().find(|one| one.customer == customer)
    };
    shop.subscribe(&customer);
    // The shop's own worker may be faster; then it is asked again.
    let (mut number, mut asked) = (0, Vec::new());
    while asked.len() < 2 {
        number += 1;
        asked.extend(ask(&format!("evt_{number}")).await);
    }
    let (older, newer) = (&asked[0], &asked[1]);
    assert!(older.round < newer.round);
    business.settle_paid_plan(newer, Plan::Pro).await.unwrap();
    business.settle_paid_plan(older, Plan::Free).await.unwrap();
    assert_eq!(shop.plan().await, "pro");
    assert_eq!(shop.plan_changes().await.len(), 1);
}

#[tokio::test]
async fn what_stripe_did_not_sign_is_refused_and_asks_nobody() {
    let shop = shop().await;
    shop.check_out("pro").await.expect(200);
    shop.settled().await;
    shop.pay();
    let asked = shop.stripe.calls().len();
    let now = Utc::now().timestamp();
    let body = shop.event("evt_1", "invoice.paid").to_string();
    let good = signature(&body, now, WEBHOOK_SECRET);
    let changed = body.replace("evt_1", "evt_2");
    for (body, signature) in [
        (body.clone(), String::new()),
        (body.clone(), "t=1,v1=x".to_owned()),
        (body.clone(), signature(&body, now, "whsec_strange")),
        (body.clone(), signature(&body, now - 301, WEBHOOK_SECRET)),
        (body.clone(), signature(&body, now + 301, WEBHOOK_SECRET)),
        (changed, good.clone()),
        ("{}".to_owned(), signature("{}", now, WEBHOOK_SECRET)),
        (String::new(), signature("", now, WEBHOOK_SECRET)),
    ] {
        let refused = shop.post_event(body, &signature).await;
        refused.expect_code(400, "invalid_event");
    }
    let large = "x".repeat(513 * 1024);
    let signed = signature(&large, now, WEBHOOK_SECRET);
    shop.post_event(large, &signed)
        .await
        .expect_code(413, "payload_too_large");
    assert_eq!(shop.stripe.calls().len(), asked);
    assert_eq!(shop.plan().await, "free");
    shop.post_event(body, &good).await.expect(200);
    shop.await_plan("pro").await;
}

#[tokio::test]
async fn events_about_others_and_of_other_kinds_are_taken_and_nothing_follows() {
    let shop = shop().await;
    shop.check_out("pro").await.expect(200);
    shop.settled().await;
    let strange = event("evt_1", "invoice.paid", "cus_of_another_shop");
    shop.tell(&strange).await.expect(200);
    // Whoever pays by a link of the operator's chooses what it carries: the organization's id is not believed.
    let mut claimed = event("evt_2", "checkout.session.completed", "cus_of_another_shop");
    claimed["data"]["object"]["client_reference_id"] = json!(shop.team);
    shop.tell(&claimed).await.expect(200);
    let other_kind = shop.event("evt_3", "charge.succeeded");
    shop.tell(&other_kind).await.expect(200);
    let noted = "billing_events";
    assert_eq!(shop.app.database.count(noted).await, 0);
}

#[tokio::test]
async fn a_plan_stays_while_stripe_fails_or_denies_the_customer() {
    let shop = shop().await;
    shop.check_out("pro").await.expect(200);
    let subscription = shop.pay();
    shop.tell(&shop.event("evt_1", "invoice.paid"))
        .await
        .expect(200);
    shop.await_plan("pro").await;
    shop.settled().await;

    // It ends, and Stripe is down when it is asked; three tries each time.
    let event = shop.event("evt_2", "customer.subscription.deleted");
    shop.set_subscription(&subscription, "canceled");
    shop.stripe.fails_with(vec![Fault::Status(503, &[]); 3]);
    shop.tell(&event).await.expect(200);
    let put_off = "billing_customers where failures = 1";
    eventually("it is put off", Duration::from_secs(20), async || {
        (shop.app.database.count(put_off).await == 1).then_some(())
    })
    .await;
    assert_eq!(shop.plan().await, "pro");
    // Without another word from Stripe it is asked again.
    eventually("it is asked again", Duration::from_secs(30), async || {
        (shop.plan().await == "free").then_some(())
    })
    .await;

    // The key is another account's: that is no reason to take a plan away.
    shop.set_subscription(&subscription, "active");
    shop.tell(&shop.event("evt_3", "customer.subscription.resumed"))
        .await
        .expect(200);
    shop.await_plan("pro").await;
    shop.settled().await;
    let event = shop.event("evt_4", "customer.deleted");
    let customer = shop.customer();
    let kept = shop.stripe.world().customers.remove(&customer);
    shop.tell(&event).await.expect(200);
    eventually("it is put off", Duration::from_secs(20), async || {
        (shop.app.database.count(put_off).await == 1).then_some(())
    })
    .await;
    assert_eq!(shop.plan().await, "pro");
    let path = format!("/organizations/v1/{}/subscription-status", shop.team);
    shop.ada
        .get(&path)
        .await
        .expect_code(502, "payments_failed");
    shop.stripe
        .world()
        .customers
        .insert(customer, kept.unwrap());
}

#[tokio::test]
async fn what_cannot_be_bought_is_refused_with_what_to_do() {
    let shop = shop().await;
    let portal = json!({ "organizationId": shop.team });
    let portal_path = "/billing/v1/stripe/portal-session";
    shop.ada
        .send(Method::POST, portal_path, &portal)
        .await
        .expect_code(409, "nothing_bought");
    shop.check_out("free")
        .await
        .expect_code(409, "plan_not_sold");
    shop.check_out("partner")
        .await
        .expect_code(400, "invalid_input");
    assert!(shop.stripe.calls().is_empty(), "nobody was asked");

    // Paid, and not told yet: nobody pays twice.
    shop.check_out("pro").await.expect(200);
    shop.pay();
    shop.check_out("pro").await.expect_code(409, "plan_held");
    assert_eq!(shop.stripe.world().sessions.len(), 1);
    // And told.
    shop.tell(&shop.event("evt_1", "invoice.paid"))
        .await
        .expect(200);
    shop.await_plan("pro").await;
    shop.check_out("pro").await.expect_code(409, "plan_held");

    shop.stripe.fails_with(vec![Fault::Status(503, &[]); 3]);
    let away = shop.ada.send(Method::POST, portal_path, &portal).await;
    away.expect_code(503, "payments_unavailable");
}

#[tokio::test]
async fn ten_checkouts_at_once_are_one_customer() {
    let shop = shop().await;
    let checkouts = (0..10).map(|_| shop.check_out("pro"));
    for checkout in join_all(checkouts).await {
        checkout.expect(200);
    }
    let world = shop.stripe.world();
    assert_eq!(world.customers.len(), 1);
    let customer = world.customers.keys().next().unwrap();
    assert!(
        world
            .sessions
            .iter()
            .all(|one| one["customer"] == *customer)
    );
    assert_eq!(world.sessions.len(), 10);
}

#[tokio::test]
async fn a_customer_that_was_deleted_at_stripe_is_made_anew() {
    let shop = shop().await;
    shop.check_out("pro").await.expect(200);
    let first = shop.customer();
    shop.stripe.world().customers.get_mut(&first).unwrap()["deleted"] = json!(true);
    shop.check_out("pro").await.expect(200);
    let second = shop.customer();
    assert_ne!(first, second);
    assert_eq!(shop.stripe.world().sessions[1]["customer"], second);
    shop.pay();
    shop.tell(&shop.event("evt_1", "invoice.paid"))
        .await
        .expect(200);
    shop.await_plan("pro").await;
}

#[tokio::test]
async fn what_a_deleted_organization_pays_for_ends() {
    let shop = shop().await;
    shop.check_out("pro").await.expect(200);
    let first = shop.pay();
    shop.tell(&shop.event("evt_1", "invoice.paid"))
        .await
        .expect(200);
    shop.await_plan("pro").await;
    let path = format!("/organizations/v1/{}", shop.team);
    // Stripe is down at that moment: it ends all the same, later.
    shop.stripe.fails_with(vec![Fault::Status(503, &[]); 3]);
    shop.ada.delete(&path).await.expect(200);
    let is_over = |id: &str| {
        let world = shop.stripe.world();
        let found = world.subscriptions.iter().find(|one| one["id"] == id);
        found.unwrap()["status"] == "canceled"
    };
    eventually("it is cancelled", Duration::from_secs(40), async || {
        is_over(&first).then_some(())
    })
    .await;
    // Somebody had the page still open.
    let late = shop.pay();
    shop.tell(&shop.event("evt_2", "checkout.session.completed"))
        .await
        .expect(200);
    eventually(
        "it is cancelled, too",
        Duration::from_secs(10),
        async || is_over(&late).then_some(()),
    )
    .await;
}

#[tokio::test]
async fn an_organization_has_the_better_one_of_what_is_given_and_paid_for() {
    let shop = shop().await;
    let id = OrganizationId(shop.team.parse().unwrap());
    let business = &shop.app.control_plane;
    shop.check_out("pro").await.expect(200);
    let subscription = shop.pay();
    shop.tell(&shop.event("evt_1", "invoice.paid"))
        .await
        .expect(200);
    shop.await_plan("pro").await;
    shop.settled().await;
    // Nothing that was paid for is taken away by the operator.
    assert_eq!(
        business.grant_plan(id, Plan::Free).await.unwrap(),
        Plan::Pro
    );
    assert_eq!(business.grant_plan(id, Plan::Pro).await.unwrap(), Plan::Pro);
    shop.set_subscription(&subscription, "canceled");
    shop.tell(&shop.event("evt_2", "customer.subscription.deleted"))
        .await
        .expect(200);
    shop.settled().await;
    assert_eq!(shop.plan().await, "pro", "it was given");
    assert_eq!(
        business.grant_plan(id, Plan::Free).await.unwrap(),
        Plan::Free
    );
    assert_eq!(shop.plan().await, "free");
    let nobody = OrganizationId::generate();
    let refused = business.grant_plan(nobody, Plan::Pro).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn developers_buy_nothing_and_strangers_see_nothing() {
    let shop = shop().await;
    shop.check_out("pro").await.expect(200);
    shop.settled().await;
    let person = shop.app.stranger("Ben").await;
    let ben = shop.app.member_of(&person).await;
    let reads = [
        format!("/organizations/v1/{}/subscription-status", shop.team),
        format!("/organizations/v1/{}/payment-history", shop.team),
        format!("/billing/v1/{}/credits", shop.team),
    ];
    let asked = shop.stripe.calls().len();
    for path in &reads {
        ben.get(path)
            .await
            .expect_code(404, "organization_not_found");
    }
    let body = json!({ "organizationId": shop.team, "plan": "pro" });
    let buy = "/billing/v1/stripe/checkout-session";
    ben.send(Method::POST, buy, &body)
        .await
        .expect_code(404, "organization_not_found");
    shop.ada
        .add(&shop.app, &shop.team, &person, "developer")
        .await;
    let ben = shop.app.member_of(&person).await;
    ben.send(Method::POST, buy, &body)
        .await
        .expect_code(403, "administrator_needed");
    assert_eq!(shop.stripe.calls().len(), asked);
    for path in &reads {
        ben.get(path).await.expect(200);
    }
}
