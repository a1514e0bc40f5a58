//! Organizations that people share: who belongs to them, what each may do, and what they own
//! (contract/platform-api.md, 7 to 9).
//!
//! Whoever changes members, or how many projects there are, holds the organization's row lock, so that an organization
//! always has an administrator and never more than its plan allows. Rows are locked in the house's one order:
//! project, organization (several by id), account, branch.

mod audit_log;
mod incident;
mod invitations;
mod members;
mod projects;
mod usage;

use cp_model::{
    FieldError, MemberRole, Organization, OrganizationId, OrganizationKind, Plan, UserId, field,
};
use cp_storage::organizations::{self, NewOrganization};
use cp_storage::{PgConnection, StorageError, accounts};
use serde_json::json;

use crate::context::UserCaller;
use crate::operations::held;
use crate::{ControlPlane, DomainError, DomainResult, Thing};

pub use audit_log::{AuditPlace, AuditRecord};
pub use incident::{Incident, Verdict};
pub use invitations::ShownInvitation;
pub use projects::{MemberProject, ProjectUpdate};
pub use usage::OrganizationUsage;

/// Organizations of the free plan that one person may administer, besides their own: each has free machines.
const FREE_ORGANIZATIONS: i64 = 3;

/// What an organization refuses, besides what everything can.
#[derive(Debug, thiserror::Error)]
pub enum OrganizationError {
    #[error("only administrators of the organization may do this; ask one of them")]
    AdministratorNeeded,
    #[error(
        "this is the last administrator of the organization; make another member administrator first"
    )]
    LastAdministrator,
    #[error("{0}")]
    Home(&'static str),
    #[error(
        "the organization has {0} projects; delete or transfer them first. Nothing was deleted"
    )]
    HasProjects(i64),
    #[error(
        "somebody may administer {FREE_ORGANIZATIONS} organizations of the free plan besides their own; leave or delete one first"
    )]
    TooMany,
    #[error("this project was made through a partner, who bills and runs it; {0} there")]
    ThroughPartner(&'static str),
    #[error(
        "the {0} plan has machines of one size, nano with a disk of 8 GiB; another plan is needed for more"
    )]
    PlanTooSmall(Plan),
    #[error(
        "the {0} plan sends no mails that projects have written themselves; another plan is needed"
    )]
    NoOwnMail(Plan),
    #[error("{0} belongs to the organization already")]
    AlreadyMember(String),
    #[error("too many invitations are open; wait for answers, or take some back")]
    TooManyInvitations,
    #[error("this invitation was sent to {0}; sign in with that address to answer it")]
    OtherAddress(String),
}

impl ControlPlane {
    /// The organizations that the person belongs to, their own first.
    pub async fn list_organizations(&self, by: &UserCaller) -> DomainResult<Vec<Organization>> {
        let mut conn = self.db().acquire().await?;
        Ok(organizations::list_user_organizations(&mut conn, by.user.id).await?)
    }

    /// An organization of the free plan, with the person as its administrator.
    pub async fn create_organization(
        &self,
        by: &UserCaller,
        name: &str,
        kind: OrganizationKind,
    ) -> DomainResult<Organization> {
        let name = field::organization_name("name", name)?;
        if !by.user.email_verified {
            return Err(DomainError::EmailNotVerified);
        }
        let mut tx = self.db().begin().await?;
        self.check_still_signed_in(&mut tx, by).await?;
        self.check_free_organizations(&mut tx, by.user.id).await?;
        let new = NewOrganization {
            id: OrganizationId::generate(),
            name: &name,
            kind,
            plan: Plan::Free,
            home_of: None,
            now: self.now(),
        };
        organizations::insert_organization(&mut tx, &new).await?;
        let role = MemberRole::Administrator;
        organizations::insert_member(&mut tx, new.id, by.user.id, role, None, new.now).await?;
        let details = json!({ "name": name, "type": kind });
        self.audit_organization(&mut tx, by, "organization.created", new.id, details)
            .await?;
        let made = self.find_own_organization(&mut tx, by, new.id).await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(made)
    }

    /// Changes what is given, at least one of both.
    pub async fn update_organization(
        &self,
        by: &UserCaller,
        id: OrganizationId,
        name: Option<&str>,
        kind: Option<OrganizationKind>,
    ) -> DomainResult<Organization> {
        if name.is_none() && kind.is_none() {
            return Err(FieldError::new("name", "or type must be given").into());
        }
        let name = name.map(|name| field::organization_name("name", name));
        let name = name.transpose()?;
        let mut tx = self.db().begin().await?;
        self.lock_as_administrator(&mut tx, by, id).await?;
        let present = self.find_own_organization(&mut tx, by, id).await?;
        if present.home_of.is_some() && kind.is_some_and(|kind| kind != present.kind) {
            let text = "this is a person's own organization; it stays personal";
            return Err(OrganizationError::Home(text).into());
        }
        let (name, now) = (name.as_deref(), self.now());
        held(organizations::update_organization(&mut tx, id, name, kind, now).await?)?;
        let details = json!({ "name": name, "type": kind });
        self.audit_organization(&mut tx, by, "organization.updated", id, details)
            .await?;
        let updated = self.find_own_organization(&mut tx, by, id).await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(updated)
    }

    /// Ends an organization that owns nothing any more.
    pub async fn delete_organization(
        &self,
        by: &UserCaller,
        id: OrganizationId,
    ) -> DomainResult<()> {
        let mut tx = self.db().begin().await?;
        self.lock_as_administrator(&mut tx, by, id).await?;
        let organization = self.find_own_organization(&mut tx, by, id).await?;
        if organization.home_of.is_some() {
            let text = "this is your own organization, where applications make your projects; it stays as long as your account";
            return Err(OrganizationError::Home(text).into());
        }
        let projects = cp_storage::projects::count_live(&mut tx, id).await?;
        if projects > 0 {
            return Err(OrganizationError::HasProjects(projects).into());
        }
        self.audit_organization(&mut tx, by, "organization.deleted", id, json!({}))
            .await?;
        held(organizations::delete_organization(&mut tx, id, self.now()).await?)?;
        // What it pays for ends.
        cp_storage::billing::mark_due(&mut tx, id, self.now()).await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(())
    }

    /// Refuses one more organization of the free plan to administer. The limit holds, however many ask at once: the
    /// account is locked until the transaction ends.
    pub(crate) async fn check_free_organizations(
        &self,
        conn: &mut PgConnection,
        user: UserId,
    ) -> DomainResult<()> {
        accounts::lock_user(conn, user).await?;
        if organizations::count_free_organizations(conn, user).await? >= FREE_ORGANIZATIONS {
            return Err(OrganizationError::TooMany.into());
        }
        Ok(())
    }

    pub(crate) async fn find_own_organization(
        &self,
        conn: &mut PgConnection,
        by: &UserCaller,
        id: OrganizationId,
    ) -> DomainResult<Organization> {
        organizations::find_user_organization(conn, by.user.id, id)
            .await?
            .ok_or(DomainError::NotFound(Thing::Organization))
    }

    /// What the person may do there. What they do not belong to is not there for them.
    pub(crate) async fn find_member_role(
        &self,
        conn: &mut PgConnection,
        by: &UserCaller,
        id: OrganizationId,
    ) -> DomainResult<MemberRole> {
        organizations::find_role(conn, by.user.id, id)
            .await?
            .ok_or(DomainError::NotFound(Thing::Organization))
    }

    pub(crate) async fn require_administrator(
        &self,
        conn: &mut PgConnection,
        by: &UserCaller,
        id: OrganizationId,
    ) -> DomainResult<()> {
        match self.find_member_role(conn, by, id).await? {
            MemberRole::Administrator => Ok(()),
            MemberRole::Developer => Err(OrganizationError::AdministratorNeeded.into()),
        }
    }

    /// Locks the organization for one of its administrators.
    pub(crate) async fn lock_as_administrator(
        &self,
        conn: &mut PgConnection,
        by: &UserCaller,
        id: OrganizationId,
    ) -> DomainResult<Plan> {
        // Before the lock, so that strangers cannot hold it.
        self.find_member_role(conn, by, id).await?;
        let plan = organizations::lock_organization(conn, id).await?;
        self.require_administrator(conn, by, id).await?;
        Ok(plan)
    }
}
