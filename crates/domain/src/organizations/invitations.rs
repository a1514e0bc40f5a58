//! Invitations: mailed links that make whoever reads an address a member. A link alone makes nobody one: the account
//! has to have that address, proven.

use cp_model::{
    INVITATION_LIFE, Invitation, InvitationId, MemberRole, OrganizationId, Plan, field,
};
use cp_storage::organizations::{self, NewInvitation, OpenInvitation};
use cp_storage::{PgConnection, StorageError, accounts};
use cp_tokens::secret::{OpaqueSecret, SecretKind};
use serde_json::json;

use super::OrganizationError;
use crate::context::UserCaller;
use crate::people::{self, Throttle};
use crate::{ControlPlane, DomainError, DomainResult, Thing};

/// Invitations of one organization that may be open at once.
const MOST_OPEN: i64 = 50;

/// What the page of an invitation shows.
#[derive(Debug, Clone)]
pub struct ShownInvitation {
    pub organization: String,
    pub role: MemberRole,
    /// To whom it was sent.
    pub email: String,
    pub inviter_name: String,
    pub inviter_email: String,
}

impl From<OpenInvitation> for ShownInvitation {
    fn from(open: OpenInvitation) -> Self {
        Self {
            organization: open.organization_name,
            role: open.invitation.role,
            email: open.invitation.email,
            inviter_name: open.inviter_name,
            inviter_email: open.inviter_email,
        }
    }
}

impl ControlPlane {
    /// Mails an invitation, good for a week. Inviting an address again sends a new link in place of the old one.
    pub async fn invite_member(
        &self,
        by: &UserCaller,
        id: OrganizationId,
        email: &str,
        role: MemberRole,
    ) -> DomainResult<Invitation> {
        let email = field::email("email", email)?;
        if !by.user.email_verified {
            return Err(DomainError::EmailNotVerified);
        }
        let now = self.now();
        let mut tx = self.db().begin().await?;
        self.check_still_signed_in(&mut tx, by).await?;
        self.lock_as_administrator(&mut tx, by, id).await?;
        if organizations::is_member_by_email(&mut tx, id, &email).await? {
            return Err(OrganizationError::AlreadyMember(email).into());
        }
        if organizations::count_other_invitations(&mut tx, id, &email, now).await? >= MOST_OPEN {
            return Err(OrganizationError::TooManyInvitations.into());
        }
        // Otherwise an organization could be made to fill a stranger's mailbox.
        let invited = accounts::find_user_by_email(&mut tx, &email).await?;
        let throttles = Throttle::invitation(by.user.id, invited.as_ref(), &email);
        self.take_throttles(&mut tx, &throttles).await?;
        let secret = OpaqueSecret::generate(SecretKind::MailToken);
        let hash = secret.hash();
        let new = NewInvitation {
            organization: id,
            email: &email,
            role,
            hash: hash.as_bytes(),
            invited_by: by.user.id,
            now,
            expires_at: now + INVITATION_LIFE,
        };
        let invitation = organizations::upsert_invitation(&mut tx, &new).await?;
        let base_url = &self.settings().base_url;
        let mail = people::invitation_mail(&by.user.email, secret.expose(), base_url);
        self.queue_mail(&mut tx, &email, mail, Some(invitation.expires_at))
            .await?;
        let details = json!({ "email": email, "role": role });
        self.audit_organization(&mut tx, by, "organization.member_invited", id, details)
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(invitation)
    }

    /// Takes back an invitation that nobody has answered.
    pub async fn revoke_invitation(
        &self,
        by: &UserCaller,
        id: OrganizationId,
        invitation: InvitationId,
    ) -> DomainResult<()> {
        let mut tx = self.db().begin().await?;
        self.lock_as_administrator(&mut tx, by, id).await?;
        let email = organizations::mark_revoked(&mut tx, id, invitation, self.now())
            .await?
            .ok_or(DomainError::NotFound(Thing::Invitation))?;
        let details = json!({ "email": email });
        self.audit_organization(&mut tx, by, "organization.invitation_revoked", id, details)
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(())
    }

    /// The invitation behind a mailed link, for the person to whom it was sent.
    pub async fn find_invitation(
        &self,
        by: &UserCaller,
        token: &str,
    ) -> DomainResult<ShownInvitation> {
        let mut conn = self.db().acquire().await?;
        let open = self.find_open(&mut conn, by, token).await?;
        Ok(open.into())
    }

    /// Makes the person a member, or tells the inviters no more than that they declined.
    pub async fn answer_invitation(
        &self,
        by: &UserCaller,
        token: &str,
        accept: bool,
    ) -> DomainResult<ShownInvitation> {
        let now = self.now();
        let mut tx = self.db().begin().await?;
        self.check_still_signed_in(&mut tx, by).await?;
        let seen = self.find_open(&mut tx, by, token).await?;
        let id = seen.invitation.organization_id;
        let plan = organizations::lock_organization(&mut tx, id).await?;
        // What was offered may have changed, or ended, before the lock.
        let open = self.find_open(&mut tx, by, token).await?;
        if !organizations::mark_answered(&mut tx, open.invitation.id, accept, now).await? {
            return Err(DomainError::ExpiredLink);
        }
        let action = if accept {
            let (user, role, inviter) = (by.user.id, open.invitation.role, Some(open.inviter));
            if (role, plan) == (MemberRole::Administrator, Plan::Free) {
                self.check_free_organizations(&mut tx, user).await?;
            }
            organizations::insert_member(&mut tx, id, user, role, inviter, now).await?;
            "organization.invitation_accepted"
        } else {
            "organization.invitation_declined"
        };
        let details = json!({ "email": open.invitation.email, "role": open.invitation.role });
        self.audit_organization(&mut tx, by, action, id, details)
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(open.into())
    }

    async fn find_open(
        &self,
        conn: &mut PgConnection,
        by: &UserCaller,
        token: &str,
    ) -> DomainResult<OpenInvitation> {
        let secret = OpaqueSecret::parse(SecretKind::MailToken, token)
            .map_err(|_| DomainError::ExpiredLink)?;
        let hash = secret.hash();
        let open = organizations::find_open_invitation(conn, hash.as_bytes(), self.now())
            .await?
            .ok_or(DomainError::ExpiredLink)?;
        if !by.user.email_verified {
            return Err(DomainError::EmailNotVerified);
        }
        // Postgres says which spellings of an address are the same.
        let invited = accounts::find_user_by_email(conn, &open.invitation.email).await?;
        if invited.is_none_or(|invited| invited.id != by.user.id) {
            return Err(OrganizationError::OtherAddress(open.invitation.email).into());
        }
        Ok(open)
    }
}
