//! Organizations, members and invitations on the wire (contract/platform-api.md 7 and 8).

use chrono::{DateTime, Utc};
use cp_model::{
    InvitationId, InvitationStatus, MemberId, MemberRole, OrganizationId, OrganizationKind, Plan,
    UserId,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{schema, time};

/// What people share projects in.
#[derive(Serialize, ToSchema)]
pub struct Organization {
    #[schema(value_type = Uuid)]
    id: OrganizationId,
    #[schema(example = "Moreno Labs")]
    name: String,
    #[serde(rename = "type")]
    #[schema(schema_with = schema::organization_type)]
    kind: OrganizationKind,
    #[schema(schema_with = schema::plan)]
    plan: Plan,
    #[serde(serialize_with = "time::seconds")]
    #[schema(example = "2026-03-02T09:14:07Z")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "time::seconds")]
    #[schema(example = "2026-08-19T16:40:55Z")]
    updated_at: DateTime<Utc>,
}

impl From<cp_model::Organization> for Organization {
    fn from(organization: cp_model::Organization) -> Self {
        Self {
            id: organization.id,
            name: organization.name,
            kind: organization.kind,
            plan: organization.plan,
            created_at: organization.created_at,
            updated_at: organization.updated_at,
        }
    }
}

/// One organization.
#[derive(Serialize, ToSchema)]
pub struct OrganizationResponse {
    organization: Organization,
}

impl From<cp_model::Organization> for OrganizationResponse {
    fn from(organization: cp_model::Organization) -> Self {
        Self {
            organization: organization.into(),
        }
    }
}

/// A person's organizations.
#[derive(Serialize, ToSchema)]
pub struct OrganizationsResponse {
    pub organizations: Vec<Organization>,
}

/// Somebody who belongs to an organization.
#[derive(Serialize, ToSchema)]
pub struct Member {
    /// Of the membership; what *remove* and *role* take.
    #[schema(value_type = Uuid)]
    id: MemberId,
    #[schema(value_type = Uuid)]
    organization_id: OrganizationId,
    #[schema(value_type = Uuid)]
    user_id: UserId,
    #[schema(schema_with = schema::member_role)]
    role: MemberRole,
    /// Whose invitation they accepted; left out for who made the organization.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>, nullable = false)]
    invited_by: Option<UserId>,
    #[serde(serialize_with = "time::seconds")]
    #[schema(example = "2026-03-02T09:14:07Z")]
    joined_at: DateTime<Utc>,
    #[schema(example = "Ada Moreno")]
    name: String,
    #[schema(example = "ada@example.com")]
    email: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    avatar_url: Option<String>,
}

impl From<cp_model::Member> for Member {
    fn from(member: cp_model::Member) -> Self {
        Self {
            id: member.id,
            organization_id: member.organization_id,
            user_id: member.user_id,
            role: member.role,
            invited_by: member.invited_by,
            joined_at: member.joined_at,
            name: member.name,
            email: member.email,
            avatar_url: member.avatar_url,
        }
    }
}

/// One member.
#[derive(Serialize, ToSchema)]
pub struct MemberResponse {
    pub member: Member,
}

/// An invitation to an organization.
#[derive(Serialize, ToSchema)]
pub struct Invitation {
    #[schema(value_type = Uuid)]
    id: InvitationId,
    #[schema(value_type = Uuid)]
    organization_id: OrganizationId,
    #[schema(example = "lin@example.com")]
    email: String,
    #[schema(schema_with = schema::member_role)]
    role: MemberRole,
    #[schema(schema_with = schema::invitation_status)]
    status: InvitationStatus,
    #[serde(serialize_with = "time::seconds")]
    #[schema(example = "2026-09-02T10:00:00Z")]
    expires_at: DateTime<Utc>,
    #[serde(serialize_with = "time::seconds")]
    #[schema(example = "2026-08-26T10:00:00Z")]
    created_at: DateTime<Utc>,
}

impl Invitation {
    pub fn at(invitation: cp_model::Invitation, now: DateTime<Utc>) -> Self {
        Self {
            id: invitation.id,
            organization_id: invitation.organization_id,
            status: invitation.status_at(now),
            email: invitation.email,
            role: invitation.role,
            expires_at: invitation.expires_at,
            created_at: invitation.created_at,
        }
    }
}

/// One invitation.
#[derive(Serialize, ToSchema)]
pub struct InvitationResponse {
    pub invitation: Invitation,
}

/// Who belongs to an organization, and who is invited.
#[derive(Serialize, ToSchema)]
pub struct MembersResponse {
    pub members: Vec<Member>,
    pub invitations: Vec<Invitation>,
}
