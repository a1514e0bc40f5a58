//! Who belongs to an organization, as what.

use cp_model::{Invitation, Member, MemberId, MemberRole, OrganizationId, Plan};
use cp_storage::{PgConnection, StorageError, organizations};
use serde_json::json;

use super::OrganizationError;
use crate::context::UserCaller;
use crate::operations::held;
use crate::{ControlPlane, DomainError, DomainResult, Thing};

impl ControlPlane {
    /// Members, and who is invited.
    pub async fn list_members(
        &self,
        by: &UserCaller,
        id: OrganizationId,
    ) -> DomainResult<(Vec<Member>, Vec<Invitation>)> {
        let mut conn = self.db().acquire().await?;
        self.find_member_role(&mut conn, by, id).await?;
        let members = organizations::list_members(&mut conn, id).await?;
        let invitations = organizations::list_invitations(&mut conn, id).await?;
        Ok((members, invitations))
    }

    pub async fn set_member_role(
        &self,
        by: &UserCaller,
        id: OrganizationId,
        member: MemberId,
        role: MemberRole,
    ) -> DomainResult<Member> {
        let mut tx = self.db().begin().await?;
        self.check_still_signed_in(&mut tx, by).await?;
        let plan = self.lock_as_administrator(&mut tx, by, id).await?;
        let found = find(&mut tx, id, member).await?;
        if found.role != role {
            match role {
                MemberRole::Developer => self.end_administration(&mut tx, by, &found).await?,
                MemberRole::Administrator if plan == Plan::Free => {
                    self.check_free_organizations(&mut tx, found.user_id)
                        .await?;
                }
                MemberRole::Administrator => {}
            }
            held(organizations::set_role(&mut tx, id, member, role).await?)?;
            let details = json!({ "user_id": found.user_id, "email": found.email, "role": role });
            self.audit_organization(&mut tx, by, "organization.role_set", id, details)
                .await?;
        }
        tx.commit().await.map_err(StorageError::from)?;
        Ok(Member { role, ..found })
    }

    pub async fn remove_member(
        &self,
        by: &UserCaller,
        id: OrganizationId,
        member: MemberId,
    ) -> DomainResult<()> {
        let mut tx = self.db().begin().await?;
        self.lock_as_administrator(&mut tx, by, id).await?;
        let found = find(&mut tx, id, member).await?;
        self.end_membership(&mut tx, by, &found, "organization.member_removed")
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(())
    }

    /// Ends the person's own membership.
    pub async fn leave_organization(
        &self,
        by: &UserCaller,
        id: OrganizationId,
    ) -> DomainResult<()> {
        let mut tx = self.db().begin().await?;
        self.find_member_role(&mut tx, by, id).await?;
        organizations::lock_organization(&mut tx, id).await?;
        let own = organizations::find_membership(&mut tx, id, by.user.id)
            .await?
            .ok_or(DomainError::NotFound(Thing::Organization))?;
        self.end_membership(&mut tx, by, &own, "organization.member_left")
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(())
    }

    /// The caller holds the organization's lock.
    async fn end_membership(
        &self,
        conn: &mut PgConnection,
        by: &UserCaller,
        member: &Member,
        action: &str,
    ) -> DomainResult<()> {
        let id = member.organization_id;
        self.end_administration(conn, by, member).await?;
        held(organizations::delete_member(conn, id, member.id).await?)?;
        let details = json!({ "user_id": member.user_id, "email": member.email });
        self.audit_organization(conn, by, action, id, details)
            .await?;
        Ok(())
    }

    /// Checks that somebody may stop being an administrator, if they are one, and takes back what they offered to
    /// others. The caller holds the organization's lock.
    async fn end_administration(
        &self,
        conn: &mut PgConnection,
        by: &UserCaller,
        member: &Member,
    ) -> DomainResult<()> {
        let id = member.organization_id;
        let organization = self.find_own_organization(conn, by, id).await?;
        if organization.home_of == Some(member.user_id) {
            let text = "this is the person's own organization, where applications make their projects; they stay its administrator";
            return Err(OrganizationError::Home(text).into());
        }
        if member.role == MemberRole::Administrator {
            let others = organizations::count_other_administrators(conn, id, member.user_id);
            if others.await? == 0 {
                return Err(OrganizationError::LastAdministrator.into());
            }
            organizations::revoke_invitations_by(conn, id, member.user_id, self.now()).await?;
        }
        Ok(())
    }
}

async fn find(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: MemberId,
) -> DomainResult<Member> {
    organizations::find_member(conn, organization, id)
        .await?
        .ok_or(DomainError::NotFound(Thing::Member))
}
