//! Plans: what the operator gives and what is paid for, of which an organization has the better one. The payment provider is
//! asked by others (`api` for people, `worker` for plans); here is kept what follows.
//!
//! The provider's events come late, twice and in any order. So none changes a plan: it only makes the organization *due*, and
//! a worker asks what it has subscribed to. Answers are numbered as they are asked for, and an older one than was taken is
//! left, so that workers that ask at once cannot set a plan back.

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::{Organization, OrganizationId, Plan};
use cp_storage::{PgConnection, billing, organizations};
use serde_json::{Value, json};

use cp_storage::billing::{DueCustomer, OrganizationSummary};
use cp_storage::notifications::{Subscription, Topic};

use crate::context::UserCaller;
use crate::operations::{commit, held};
use crate::{ControlPlane, DomainError, DomainResult, Thing};

/// How often in a minute people of one organization may have the payment provider asked.
const QUESTIONS: u32 = 60;

/// How long a worker that asks is left alone. Longer than all that it asks can take.
const ASKING: TimeDelta = TimeDelta::minutes(5);

/// How often the provider is asked although it told nothing: an event may have been lost.
const ASKED_ANYWAY: TimeDelta = TimeDelta::hours(24);

/// How long a deleted organization is asked for: pages on which a plan is bought are good for a day.
const ASKED_AFTER_DELETION: TimeDelta = TimeDelta::days(3);

const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(10);
const LONGEST_PAUSE: TimeDelta = TimeDelta::hours(1);

/// Customers that are taken at once.
const BATCH: i64 = 10;

/// For looking back when somebody asks why a plan changed.
pub(crate) const EVENTS_KEPT: TimeDelta = TimeDelta::days(90);

/// An organization and, if it ever began to pay, its customer at the payment provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BillingAccount {
    pub organization: Organization,
    /// The provider's name for it.
    pub customer: Option<String>,
}

/// What became of an event of the payment provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotedEvent {
    /// The organization's plan is asked for.
    New,
    /// It was told before.
    Known,
    /// About a customer that is none of ours.
    NotOurs,
}

/// What somebody wants to buy, and cannot.
#[derive(Debug, thiserror::Error)]
pub enum PurchaseError {
    #[error(
        "the free plan is not bought; to end a subscription, open the billing portal (insforge billing manage) and cancel it"
    )]
    Free,
    #[error(
        "the organization has the {0} plan already; open the billing portal (insforge billing manage) to change how it is paid"
    )]
    HasPlan(Plan),
    #[error(
        "the organization has a subscription that is {0} and not over; open the billing portal (insforge billing manage) to pay or cancel it"
    )]
    Unfinished(String),
    #[error(
        "nothing was ever bought for this organization, so there is nothing to manage; buy a plan first (insforge billing upgrade)"
    )]
    NothingBought,
}

impl ControlPlane {
    /// What its members may read.
    pub async fn billing_account(
        &self,
        by: &UserCaller,
        id: OrganizationId,
    ) -> DomainResult<BillingAccount> {
        let organization = self.organization(by, id).await?;
        let mut conn = self.db().acquire().await?;
        Ok(BillingAccount {
            customer: billing::find_customer(&mut conn, id).await?,
            organization,
        })
    }

    /// The same for who wants to buy or to manage.
    pub async fn administered_billing_account(
        &self,
        by: &UserCaller,
        id: OrganizationId,
    ) -> DomainResult<BillingAccount> {
        self.administered_organization(by, id).await?;
        self.billing_account(by, id).await
    }

    /// Takes one question to the provider from the organization's minute: what one asks too often, all could not ask.
    pub async fn take_billing_question(&self, id: OrganizationId) -> DomainResult<()> {
        self.take(&format!("billing:{id}"), QUESTIONS)
            .await
            .map(drop)
    }

    /// Notes which customer the organization is, before anything is bought with it. Gives the one that it is: another
    /// request may have been faster.
    pub async fn note_billing_customer(
        &self,
        by: &UserCaller,
        id: OrganizationId,
        customer: &str,
    ) -> DomainResult<String> {
        let mut tx = self.db().begin().await?;
        self.lock_as_administrator(&mut tx, by, id).await?;
        let kept = billing::insert_customer(&mut tx, id, customer, self.now()).await?;
        commit(tx).await?;
        Ok(kept)
    }

    /// Notes another customer in place of one that the provider has deleted. Gives the one that it is now.
    pub async fn replace_billing_customer(
        &self,
        by: &UserCaller,
        id: OrganizationId,
        gone: &str,
        customer: &str,
    ) -> DomainResult<String> {
        let mut tx = self.db().begin().await?;
        self.lock_as_administrator(&mut tx, by, id).await?;
        billing::replace_customer(&mut tx, id, gone, customer, self.now()).await?;
        let kept = billing::insert_customer(&mut tx, id, customer, self.now()).await?;
        commit(tx).await?;
        Ok(kept)
    }

    /// Somebody is led to a page of the provider to buy a plan.
    pub async fn note_checkout(
        &self,
        by: &UserCaller,
        id: OrganizationId,
        plan: Plan,
    ) -> DomainResult<()> {
        let mut tx = self.db().begin().await?;
        let details = json!({ "plan": plan });
        self.audit_organization(&mut tx, by, "organization.checkout_begun", id, details)
            .await?;
        commit(tx).await
    }

    /// The provider told that something of a customer has changed. Exactly one of all that tell the same event gets
    /// [`NotedEvent::New`].
    pub async fn note_billing_event(
        &self,
        id: &str,
        kind: &str,
        customer: &str,
        happened_at: DateTime<Utc>,
    ) -> DomainResult<NotedEvent> {
        let now = self.now();
        let mut tx = self.db().begin().await?;
        let Some(organization) = billing::find_organization(&mut tx, customer).await? else {
            return Ok(NotedEvent::NotOurs);
        };
        if !billing::insert_event(&mut tx, id, kind, organization, happened_at, now).await? {
            return Ok(NotedEvent::Known);
        }
        billing::mark_due(&mut tx, organization, now).await?;
        commit(tx).await?;
        Ok(NotedEvent::New)
    }

    /// For workers: wakes when an organization is due.
    pub fn subscribe_billing(&self) -> Subscription {
        self.db().notifications().subscribe(Topic::Billing, "")
    }

    /// For workers: some organizations whose plan is to be asked for, each to be settled or put off.
    pub async fn take_due_customers(&self) -> DomainResult<Vec<DueCustomer>> {
        let now = self.now();
        let mut conn = self.db().acquire().await?;
        Ok(billing::take_due(&mut conn, now, now + ASKING, BATCH).await?)
    }

    /// For workers: what the organization pays for, as the provider has just answered. Changes its plan if that differs.
    pub async fn settle_paid_plan(&self, due: &DueCustomer, paid: Plan) -> DomainResult<()> {
        let mut tx = self.db().begin().await?;
        let present = organizations::lock_organization(&mut tx, due.organization).await?;
        let again_at = asked_again_at(due, self.now());
        if billing::take_answer(&mut tx, due, paid, again_at).await? {
            let details = json!({ "customer": due.customer });
            self.change_plan(&mut tx, "stripe", due.organization, present, details)
                .await?;
        }
        commit(tx).await
    }

    /// For workers: the provider could not be asked.
    pub async fn put_off_customer(&self, due: &DueCustomer) -> DomainResult<()> {
        let mut conn = self.db().acquire().await?;
        billing::put_off(&mut conn, due, self.now() + pause_after(due.failures)).await?;
        Ok(())
    }

    /// For operators: what an organization has, whatever it pays for. The free plan takes back what was given.
    pub async fn grant_plan(&self, id: OrganizationId, plan: Plan) -> DomainResult<Plan> {
        let mut tx = self.db().begin().await?;
        if !organizations::is_of_people(&mut tx, id).await? {
            return Err(DomainError::NotFound(Thing::Organization));
        }
        let present = organizations::lock_organization(&mut tx, id).await?;
        let granted = (plan != Plan::Free).then_some(plan);
        held(organizations::set_granted_plan(&mut tx, id, granted).await?)?;
        let details = json!({ "granted": plan });
        let plan = self
            .change_plan(&mut tx, "operator", id, present, details)
            .await?;
        commit(tx).await?;
        Ok(plan)
    }

    /// For operators: people's organizations, newest first.
    pub async fn list_all_organizations(
        &self,
        limit: u32,
    ) -> DomainResult<Vec<OrganizationSummary>> {
        let mut conn = self.db().acquire().await?;
        Ok(billing::list_organizations(&mut conn, i64::from(limit)).await?)
    }

    /// The better one of what is granted and what is paid for. The organization is locked.
    async fn change_plan(
        &self,
        conn: &mut PgConnection,
        by: &str,
        id: OrganizationId,
        from: Plan,
        mut details: Value,
    ) -> DomainResult<Plan> {
        let granted = organizations::find_granted_plan(conn, id).await?;
        let paid = billing::find_paid_plan(conn, id).await?;
        let to = granted.max(paid).unwrap_or(Plan::Free);
        if to != from {
            held(organizations::set_plan(conn, id, to).await?)?;
            details["from"] = json!(from);
            details["to"] = json!(to);
            let action = "organization.plan_changed";
            self.audit_organization_of_service(conn, by, action, id, details)
                .await?;
        }
        Ok(to)
    }
}

/// Once a day; of a deleted organization until no page on which it could be paid for is open any more.
fn asked_again_at(due: &DueCustomer, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let again_at = now + ASKED_ANYWAY;
    let is_over = due
        .deleted_at
        .is_some_and(|deleted_at| again_at > deleted_at + ASKED_AFTER_DELETION);
    (!is_over).then_some(again_at)
}

/// Twice as long each time, up to an hour.
fn pause_after(failures: i32) -> TimeDelta {
    let doublings = u32::try_from(failures).unwrap_or(0).min(9);
    (FIRST_PAUSE * 2_i32.pow(doublings)).min(LONGEST_PAUSE)
}

impl BillingAccount {
    /// Refuses what cannot be bought. `subscribed`: what it pays for, as the provider says.
    ///
    /// # Errors
    /// See [`PurchaseError`].
    pub fn check_purchase(&self, wanted: Plan, subscribed: Plan) -> Result<(), PurchaseError> {
        let has = self.organization.plan.max(subscribed);
        if wanted == Plan::Free {
            Err(PurchaseError::Free)
        } else if has >= wanted {
            Err(PurchaseError::HasPlan(has))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_an_hour() {
        let pauses: Vec<i64> = (0..12).map(|n| pause_after(n).num_seconds()).collect();
        assert_eq!(pauses[..4], [10, 20, 40, 80]);
        assert_eq!(pauses[9..], [3600, 3600, 3600]);
        assert!(pauses.is_sorted());
    }
}
