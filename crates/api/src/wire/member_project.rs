//! Projects as the people of their organization see them (contract/platform-api.md 9.1).

use chrono::{DateTime, Utc};
use cp_domain::MemberProject;
use cp_model::{InstanceType, OrganizationId, ProjectId, ProjectStatus, Region};
use serde::Serialize;
use utoipa::ToSchema;

use super::project::{FailureReason, shown_failure};
use super::{schema, time};

/// One backend.
#[derive(Serialize, ToSchema)]
pub struct Project {
    #[schema(value_type = Uuid)]
    pub id: ProjectId,
    #[schema(value_type = Uuid)]
    organization_id: OrganizationId,
    #[schema(example = "storefront")]
    name: String,
    /// With the region the host of its backend.
    #[schema(example = "k7m2qx9d")]
    appkey: String,
    #[schema(schema_with = schema::region)]
    region: Region,
    #[schema(schema_with = schema::status)]
    pub status: ProjectStatus,
    /// What is being done to it, as in `restoring`; null: nothing.
    #[schema(required = true, example = "updating_project_version")]
    operation_status: Option<&'static str>,
    #[schema(schema_with = schema::instance_type)]
    pub instance_type: InstanceType,
    /// The version of its backend; null until it has told.
    #[schema(required = true, example = "2.2.2")]
    service_version: Option<String>,
    /// A host name of your own for it; null: none.
    #[schema(required = true, example = "api.example.com")]
    customized_domain: Option<String>,
    /// Base URL of its backend; null until it has one.
    #[schema(required = true, example = "https://k7m2qx9d.eu-central.insforge.app")]
    access_host: Option<String>,
    /// The size of its disk, in GiB.
    #[schema(example = 8)]
    pub storage_disk_size: i32,
    /// The project that it is a branch of; left out for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>, nullable = false)]
    parent_project_id: Option<ProjectId>,
    /// Why it failed; only while its status is `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    failure: Option<FailureReason>,
    #[serde(serialize_with = "time::seconds")]
    #[schema(example = "2026-08-20T07:31:12Z")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "time::seconds")]
    #[schema(example = "2026-08-20T07:31:15Z")]
    updated_at: DateTime<Utc>,
}

impl From<MemberProject> for Project {
    fn from(seen: MemberProject) -> Self {
        Self {
            id: seen.id,
            organization_id: seen.organization_id,
            name: seen.name,
            appkey: seen.app_key,
            region: seen.region,
            status: seen.status,
            operation_status: seen.operation_status,
            instance_type: seen.size.instance_type,
            service_version: seen.service_version,
            customized_domain: seen.customized_domain,
            access_host: seen.access_host,
            storage_disk_size: seen.size.volume_gib,
            parent_project_id: seen.parent_id,
            failure: shown_failure(seen.status, seen.failure),
            created_at: seen.created_at,
            updated_at: seen.updated_at,
        }
    }
}

/// One project.
#[derive(Serialize, ToSchema)]
pub struct ProjectResponse {
    pub project: Project,
}

impl From<MemberProject> for ProjectResponse {
    fn from(seen: MemberProject) -> Self {
        Self {
            project: seen.into(),
        }
    }
}

/// Projects of an organization.
#[derive(Serialize, ToSchema)]
pub struct ProjectsResponse {
    pub projects: Vec<Project>,
    /// Where the next page begins; left out on the last one, and without `limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>, nullable = false)]
    pub next_cursor: Option<ProjectId>,
}
