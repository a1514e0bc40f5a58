//! Organizations: what owns projects, who belongs to them and what each may do (contract/platform-api.md, 7 and 8).

use chrono::{DateTime, TimeDelta, Utc};

use crate::catalogue::Plan;
use crate::{InvitationId, MemberId, OrganizationId, UserId, text_enum};

/// How long an invitation is good.
pub const INVITATION_LIFE: TimeDelta = TimeDelta::days(7);

/// What people share their projects in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    pub id: OrganizationId,
    pub name: String,
    pub kind: OrganizationKind,
    pub plan: Plan,
    /// Whose own it is, made with the account; none: it can be left and deleted.
    pub home_of: Option<UserId>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

text_enum!(
    /// What an organization says it is. Nothing follows from it but how lists show it.
    OrganizationKind ("organization type") {
        Personal = "personal",
        Team = "team",
        Company = "company",
        /// A partner's own; people never belong to it.
        Partner = "partner",
    }
);

impl OrganizationKind {
    /// What people can choose from.
    pub const OF_PEOPLE: &'static [Self] = &[Self::Personal, Self::Team, Self::Company];
}

text_enum!(
    /// What a member may do. Developers work with the projects; what ends them, costs money or changes who belongs
    /// to the organization is for administrators.
    MemberRole ("role") {
        Administrator = "administrator",
        Developer = "developer",
    }
);

/// One person in one organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: MemberId,
    pub organization_id: OrganizationId,
    pub user_id: UserId,
    pub role: MemberRole,
    pub invited_by: Option<UserId>,
    pub joined_at: DateTime<Utc>,
    pub name: String,
    pub email: String,
    pub avatar_url: Option<String>,
}

text_enum!(
    /// What became of an invitation.
    InvitationStatus ("invitation status") {
        Pending = "pending",
        Accepted = "accepted",
        Declined = "declined",
        /// Taken back by an administrator.
        Revoked = "revoked",
        /// Nobody answered in time. Never stored: a pending one past its end.
        Expired = "expired",
    }
);

/// An invitation, by mail, to become a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    pub id: InvitationId,
    pub organization_id: OrganizationId,
    pub email: String,
    pub role: MemberRole,
    /// As stored; see [`Invitation::status_at`].
    pub status: InvitationStatus,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

impl Invitation {
    /// What it is at a moment: one that nobody answered in time is expired.
    pub fn status_at(&self, now: DateTime<Utc>) -> InvitationStatus {
        match self.status {
            InvitationStatus::Pending if self.expires_at <= now => InvitationStatus::Expired,
            status => status,
        }
    }
}
