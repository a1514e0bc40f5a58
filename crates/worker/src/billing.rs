//! Plans that are paid for: asks the payment provider what organizations have subscribed to, when it told that something has
//! changed, and once a day whether or not. What a deleted organization pays for is ended.

use std::time::Duration;

use cp_billing::{BillingError, BillingResult, CustomerId, Stripe, Subscription, plan_of};
use cp_domain::{DomainError, DomainResult, DueCustomer};
use cp_model::Plan;
use futures::stream::{self, StreamExt as _};
use tokio_util::sync::CancellationToken;

use crate::Worker;
use crate::jobs::{Ticks, log_failure};

/// How often it is looked for what was put off, or is asked for anyway.
const SWEEP: Duration = Duration::from_secs(5);

pub(crate) async fn settle_plans(worker: Worker, stripe: Stripe, shutdown: CancellationToken) {
    let mut told = worker.control_plane().subscribe_billing();
    let mut sweep = Ticks::every(SWEEP, shutdown.clone());
    loop {
        tokio::select! {
            biased;
            goes_on = sweep.next() => if !goes_on {
                return;
            },
            Ok(()) = told.changed() => {}
        }
        // What is cut off here is due again when its lease ends; asking twice does no harm.
        let round = worker.settle_due_plans(&stripe);
        match shutdown.run_until_cancelled(round).await {
            Some(done) => log_failure("settle_plans", done),
            None => return,
        }
    }
}

impl Worker {
    /// Until none is due. Taking one moves its turn ahead, so this ends.
    async fn settle_due_plans(&self, stripe: &Stripe) -> DomainResult<()> {
        loop {
            let due = self.control_plane().take_due_customers().await?;
            if due.is_empty() {
                return Ok(());
            }
            stream::iter(due)
                .for_each_concurrent(None, async |due| {
                    log_failure("settle_plans", self.settle_plan(stripe, &due).await);
                })
                .await;
        }
    }

    async fn settle_plan(&self, stripe: &Stripe, due: &DueCustomer) -> DomainResult<()> {
        let customer: CustomerId = due.customer.parse().map_err(|error| {
            DomainError::Internal(format!("a stored customer is none: {error}"))
        })?;
        let asked = if due.is_deleted {
            end_subscriptions(stripe, &customer)
                .await
                .map(|()| Plan::Free)
        } else {
            paid_plan(stripe, &customer).await
        };
        let organization = due.organization;
        match asked {
            Ok(plan) => self.control_plane().settle_paid_plan(due, plan).await,
            Err(error) => {
                metrics::counter!("billing_failures_total").increment(1);
                if let BillingError::Unavailable { .. } = &error {
                    tracing::warn!(%organization, %error, "what an organization pays for cannot be asked now; it keeps its plan, and is asked for again");
                } else {
                    tracing::error!(%organization, %customer, %error, "the payment provider does not tell what an organization pays for; it keeps its plan until that is mended (stripe.secret_key)");
                }
                self.control_plane().put_off_customer(due).await
            }
        }
    }
}

async fn paid_plan(stripe: &Stripe, customer: &CustomerId) -> BillingResult<Plan> {
    let subscriptions = stripe.subscriptions_of(customer).await?;
    let kept = subscriptions.iter().filter(|one| one.status.keeps_plan());
    if kept.count() > 1 {
        tracing::warn!(%customer, "a customer pays for more than one subscription; cancel and refund one in Stripe's dashboard, and turn on \"limit customers to one subscription\" there");
    }
    Ok(plan_of(&subscriptions))
}

async fn end_subscriptions(stripe: &Stripe, customer: &CustomerId) -> BillingResult<()> {
    let is_over = |one: &Subscription| one.status.is_final();
    for subscription in stripe.subscriptions_of(customer).await? {
        if !is_over(&subscription) {
            stripe.cancel_subscription(&subscription.id).await?;
            tracing::info!(%customer, subscription = %subscription.id, "a deleted organization's subscription was cancelled");
        }
    }
    Ok(())
}
