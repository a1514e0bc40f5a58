//! Writes the audit log from the verbs' transactions.

use cp_model::{OrganizationId, Project, ProjectId, UserId};
use cp_storage::audit::{AuditEntry, insert_entry};
use cp_storage::{PgConnection, StorageResult};
use serde_json::Value;

use crate::ControlPlane;
use crate::context::{Caller, PartnerCaller, ProjectCaller, UserCaller};

impl ControlPlane {
    /// A partner did something.
    pub(crate) async fn audit_partner(
        &self,
        conn: &mut PgConnection,
        by: &PartnerCaller,
        action: &str,
        target: (&str, &str),
        details: Value,
    ) -> StorageResult<()> {
        let address = by.caller.address.map(|a| a.to_string());
        insert_entry(
            conn,
            AuditEntry {
                at: self.now(),
                actor: &by.actor(),
                partner_id: Some(&by.partner.id),
                organization_id: None,
                action,
                target_type: target.0,
                target_id: target.1,
                address: address.as_deref(),
                request_id: Some(by.caller.request_id.as_str()),
                details,
            },
        )
        .await
    }

    /// Somebody did something to a project. The administrators of its organization can read it.
    pub(crate) async fn audit_project(
        &self,
        conn: &mut PgConnection,
        by: ProjectCaller<'_>,
        action: &str,
        (project, organization): (ProjectId, OrganizationId),
        details: Value,
    ) -> StorageResult<()> {
        let (caller, partner_id) = match by {
            ProjectCaller::Partner(by, _) => (&by.caller, Some(&by.partner.id)),
            ProjectCaller::Person(by) => (&by.caller, None),
        };
        let address = caller.address.map(|a| a.to_string());
        insert_entry(
            conn,
            AuditEntry {
                at: self.now(),
                actor: &by.actor(),
                partner_id,
                organization_id: Some(organization),
                action,
                target_type: "project",
                target_id: &project.to_string(),
                address: address.as_deref(),
                request_id: Some(caller.request_id.as_str()),
                details,
            },
        )
        .await
    }

    /// A member changed something of an organization.
    pub(crate) async fn audit_organization(
        &self,
        conn: &mut PgConnection,
        by: &UserCaller,
        action: &str,
        organization: OrganizationId,
        details: Value,
    ) -> StorageResult<()> {
        let address = by.caller.address.map(|a| a.to_string());
        insert_entry(
            conn,
            AuditEntry {
                at: self.now(),
                actor: &by.actor(),
                partner_id: None,
                organization_id: Some(organization),
                action,
                target_type: "organization",
                target_id: &organization.to_string(),
                address: address.as_deref(),
                request_id: Some(by.caller.request_id.as_str()),
                details,
            },
        )
        .await
    }

    /// A service or an operator changed something of an organization. Its administrators can read it.
    pub(crate) async fn audit_organization_of_service(
        &self,
        conn: &mut PgConnection,
        actor: &str,
        action: &str,
        organization: OrganizationId,
        details: Value,
    ) -> StorageResult<()> {
        insert_entry(
            conn,
            AuditEntry {
                at: self.now(),
                actor,
                partner_id: None,
                organization_id: Some(organization),
                action,
                target_type: "organization",
                target_id: &organization.to_string(),
                address: None,
                request_id: None,
                details,
            },
        )
        .await
    }

    /// A person did something, by a credential of theirs.
    pub(crate) async fn audit_by_user(
        &self,
        conn: &mut PgConnection,
        by: &UserCaller,
        action: &str,
        target: (&str, &str),
        details: Value,
    ) -> StorageResult<()> {
        self.audit_person(conn, by.user.id, &by.caller, action, target, details)
            .await
    }

    /// A person did something who was not signed in yet: by a password, a code, a link.
    pub(crate) async fn audit_person(
        &self,
        conn: &mut PgConnection,
        user: UserId,
        caller: &Caller,
        action: &str,
        target: (&str, &str),
        details: Value,
    ) -> StorageResult<()> {
        let address = caller.address.map(|a| a.to_string());
        insert_entry(
            conn,
            AuditEntry {
                at: self.now(),
                actor: &format!("user:{user}"),
                partner_id: None,
                organization_id: None,
                action,
                target_type: target.0,
                target_id: target.1,
                address: address.as_deref(),
                request_id: Some(caller.request_id.as_str()),
                details,
            },
        )
        .await
    }

    /// The service itself, or an operator, did something.
    pub(crate) async fn audit_service(
        &self,
        conn: &mut PgConnection,
        actor: &str,
        action: &str,
        target: (&str, &str),
        project: Option<&Project>,
        details: Value,
    ) -> StorageResult<()> {
        insert_entry(
            conn,
            AuditEntry {
                at: self.now(),
                actor,
                partner_id: project.and_then(|p| p.partner_id.as_ref()),
                organization_id: project.map(|p| p.organization_id),
                action,
                target_type: target.0,
                target_id: target.1,
                address: None,
                request_id: None,
                details,
            },
        )
        .await
    }
}
