//! Path and query parameters. Each refusal names the parameter and the rule.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Query, RawPathParams};
use cp_model::{
    AnalysisId, BackupId, FieldError, FieldResult, InvitationId, MemberId, OperationId,
    OrganizationId, ProjectId, UserId,
};
use http::request::Parts;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::problem::Problem;

/// The id named `name` in the path: a UUID in its usual form of 36 characters.
async fn path_id<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    name: &'static str,
) -> Result<Uuid, Problem> {
    let params = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| Problem::invalid_input("path must be percent-encoded UTF-8"))?;
    let given = params
        .iter()
        .find_map(|(key, value)| (key == name).then_some(value))
        .unwrap_or_default();
    Ok(parse_id(name, given)?)
}

/// A UUID in its usual form.
pub fn parse_id(name: &'static str, given: &str) -> FieldResult<Uuid> {
    let rule = || {
        FieldError::new(
            name,
            "must be a UUID, like 0192d3b4-5c6d-7e8f-9a0b-1c2d3e4f5a6b",
        )
    };
    if given.len() != uuid::fmt::Hyphenated::LENGTH {
        return Err(rule());
    }
    Uuid::parse_str(given).map_err(|_| rule())
}

/// `{projectId}` of the path.
pub struct ProjectPath(pub ProjectId);
/// `{organizationId}` of the path.
pub struct OrganizationPath(pub OrganizationId);
/// `{organizationId}` and `{memberId}` of the path.
pub struct MemberPath(pub OrganizationId, pub MemberId);
/// `{organizationId}` and `{invitationId}` of the path.
pub struct InvitationPath(pub OrganizationId, pub InvitationId);
/// `{sessionId}` of the path: an analysis.
pub struct SessionPath(pub AnalysisId);
/// `{userId}` of the path.
pub struct UserPath(pub UserId);
/// `{branchId}` of the path.
pub struct BranchPath(pub ProjectId);
/// `{projectId}` and `{branchId}` of the path.
pub struct ParentAndBranchPath(pub ProjectId, pub ProjectId);
/// `{projectId}` and `{backupId}` of the path.
pub struct BackupPath(pub ProjectId, pub BackupId);
/// `{operationId}` of the path.
pub struct OperationPath(pub OperationId);

impl<S: Send + Sync> FromRequestParts<S> for ProjectPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = path_id(parts, state, "projectId").await?;
        Ok(Self(ProjectId(id)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OrganizationPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = path_id(parts, state, "organizationId").await?;
        Ok(Self(OrganizationId(id)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MemberPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let organization = path_id(parts, state, "organizationId").await?;
        let member = path_id(parts, state, "memberId").await?;
        Ok(Self(OrganizationId(organization), MemberId(member)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for InvitationPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let organization = path_id(parts, state, "organizationId").await?;
        let invitation = path_id(parts, state, "invitationId").await?;
        Ok(Self(OrganizationId(organization), InvitationId(invitation)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SessionPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = path_id(parts, state, "sessionId").await?;
        Ok(Self(AnalysisId(id)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for BranchPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = path_id(parts, state, "branchId").await?;
        Ok(Self(ProjectId(id)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ParentAndBranchPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let parent = path_id(parts, state, "projectId").await?;
        let branch = path_id(parts, state, "branchId").await?;
        Ok(Self(ProjectId(parent), ProjectId(branch)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for BackupPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let project = path_id(parts, state, "projectId").await?;
        let backup = path_id(parts, state, "backupId").await?;
        Ok(Self(ProjectId(project), BackupId(backup)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for UserPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = path_id(parts, state, "userId").await?;
        Ok(Self(UserId(id)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OperationPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = path_id(parts, state, "operationId").await?;
        Ok(Self(OperationId(id)))
    }
}

/// A query string, read into a struct of optional texts.
pub struct QueryText<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryText<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Query::from_request_parts(parts, state)
            .await
            .map(|Query(value)| Self(value))
            .map_err(|_| {
                Problem::invalid_input(
                    "query must be percent-encoded UTF-8, with each parameter once",
                )
            })
    }
}

/// A whole number within `range`; an absent parameter is `default`.
pub fn number<T>(
    name: &'static str,
    given: Option<&str>,
    range: RangeInclusive<T>,
    default: T,
) -> FieldResult<T>
where
    T: FromStr + PartialOrd + Display,
{
    let Some(text) = given else {
        return Ok(default);
    };
    match text.parse::<T>() {
        Ok(value) if range.contains(&value) => Ok(value),
        _ => Err(FieldError::new(
            name,
            format!(
                "must be a whole number from {} to {}",
                range.start(),
                range.end()
            ),
        )),
    }
}

/// A UUID; an absent parameter is none.
pub fn id(name: &'static str, given: Option<&str>) -> FieldResult<Option<Uuid>> {
    given.map(|text| parse_id(name, text)).transpose()
}

/// `true` or `false`; an absent parameter is false.
pub fn switch(name: &'static str, given: Option<&str>) -> FieldResult<bool> {
    given.map_or(Ok(false), |given| {
        one_of(name, given, &[true, false], |on| {
            if on { "true" } else { "false" }
        })
    })
}

/// One of the texts of an enum; the refusal lists them.
pub fn one_of<T: Copy>(
    name: &'static str,
    given: &str,
    valid: &[T],
    text: impl Fn(T) -> &'static str,
) -> FieldResult<T> {
    valid
        .iter()
        .copied()
        .find(|value| text(*value) == given)
        .ok_or_else(|| {
            let names: Vec<_> = valid.iter().map(|value| text(*value)).collect();
            FieldError::new(name, format!("must be one of {}", names.join(", ")))
        })
}

/// For the document: the path of every partnership endpoint.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
pub struct PartnerParam {
    /// Your partner id.
    #[param(rename = "partnerId", example = "ps_abc123xyz")]
    partner_id: String,
}

/// For the document: the path of an endpoint on one project.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
pub struct ProjectParam {
    /// The project's id.
    #[param(rename = "projectId", example = "0192d3b4-5c6d-7e8f-9a0b-1c2d3e4f5a6b")]
    project_id: Uuid,
}

/// For the document: the path of an endpoint on one organization.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
pub struct OrganizationParam {
    /// The organization's id.
    #[param(
        rename = "organizationId",
        example = "019a2f60-44d0-7c3e-b1a5-0d5e7f9a2c31"
    )]
    organization_id: Uuid,
}

/// For the document: the path of an endpoint on one member.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
pub struct MemberParam {
    /// The membership's id, from the list of members.
    #[param(rename = "memberId", example = "019a2f61-8f02-7a6b-8c1d-3b9e5a7c0d42")]
    member_id: Uuid,
}

/// For the document: the path of an endpoint on one invitation.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
pub struct InvitationParam {
    /// The invitation's id, from the list of members.
    #[param(
        rename = "invitationId",
        example = "019a2f62-0b77-7f15-9e20-5c4d6e8fa053"
    )]
    invitation_id: Uuid,
}

/// For the document: the path of an endpoint on one branch.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
pub struct BranchParam {
    /// The branch's id.
    #[param(rename = "branchId", example = "0192d3b4-5c6d-7e8f-9a0b-1c2d3e4f5a6d")]
    branch_id: Uuid,
}

/// For the document: the path of an endpoint on one backup.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
pub struct BackupParam {
    /// The backup's id, from the list of backups.
    #[param(rename = "backupId", example = "019a2f80-63aa-7c52-8f19-d7b3a0c4e876")]
    backup_id: Uuid,
}

/// For the document: the path of an endpoint on one user.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
pub struct UserParam {
    /// The user's id, from `connect-user`.
    #[param(rename = "userId", example = "0192d3b4-5c6d-7e8f-9a0b-1c2d3e4f5a6c")]
    user_id: Uuid,
}

#[cfg(test)]
mod tests {
    use cp_model::Region;

    use super::*;

    #[test]
    fn numbers_outside_of_their_range_are_refused_with_the_range() {
        assert_eq!(number("limit", None, 1..=100, 50), Ok(50));
        assert_eq!(number("limit", Some("100"), 1..=100, 50), Ok(100));
        for bad in ["", "0", "101", "-1", "1.5", "x", "99999999999999999999"] {
            let error = number("limit", Some(bad), 1..=100, 50).unwrap_err();
            assert_eq!(
                error.to_string(),
                "limit must be a whole number from 1 to 100"
            );
        }
    }

    #[test]
    fn only_the_usual_form_of_a_uuid_is_taken() {
        let id = Uuid::now_v7();
        assert_eq!(parse_id("projectId", &id.to_string()), Ok(id));
        for bad in [
            String::new(),
            "projects".into(),
            id.simple().to_string(),
            id.braced().to_string(),
            id.urn().to_string(),
            format!("{}g", &id.to_string()[..35]),
        ] {
            let error = parse_id("projectId", &bad).unwrap_err();
            assert!(error.to_string().starts_with("projectId must be a UUID"));
        }
    }

    #[test]
    fn an_unknown_region_is_answered_with_the_valid_ones() {
        let error = one_of("region", "eu-west", Region::ALL, Region::as_str).unwrap_err();
        assert_eq!(
            error.to_string(),
            "region must be one of us-east, us-west, ap-southeast, eu-central"
        );
    }
}
