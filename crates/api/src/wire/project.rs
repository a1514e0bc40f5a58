//! Projects as partners see them.

use chrono::{DateTime, Utc};
use cp_domain::{OperationSummary, ProjectAccess, ProjectView};
use cp_model::{
    Failure, InstanceType, OperationId, OperationKind, OperationState, Project, ProjectId,
    ProjectStatus, Region, UserId,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::{schema, time};

/// Writes a key where the contract says that it is shown.
#[allow(
    clippy::ref_option,
    reason = "serde's serialize_with gives a reference to the field"
)]
fn expose<S: Serializer>(key: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    match key {
        Some(key) => serializer.serialize_str(key.expose_secret()),
        None => serializer.serialize_none(),
    }
}

/// Why something failed.
#[derive(Serialize, ToSchema)]
pub struct FailureReason {
    /// For programs.
    #[schema(example = "machine_lost")]
    code: String,
    /// For people.
    message: String,
}

impl From<Failure> for FailureReason {
    fn from(failure: Failure) -> Self {
        Self {
            code: failure.code,
            message: failure.message,
        }
    }
}

/// What an application needs to use a project.
#[derive(Serialize, ToSchema)]
pub struct ConnectedProject {
    #[schema(value_type = Uuid)]
    id: ProjectId,
    /// Base URL of the project's backend; null until it has one, and while the project is only
    /// shareable.
    #[schema(required = true, example = "https://project.us-east.insforge.app")]
    access_host: Option<String>,
    /// The backend's API key; null while the project is only shareable.
    #[serde(serialize_with = "expose")]
    #[schema(required = true, value_type = Option<String>, example = "ik_0123456789abcdef0123456789abcdef")]
    api_key: Option<SecretString>,
    #[schema(schema_with = schema::status)]
    status: ProjectStatus,
    /// True when the project was not made through you: its owner has to share it first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    shareable: Option<bool>,
    /// Why the project failed; only while its status is `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    failure: Option<FailureReason>,
}

impl From<ProjectAccess> for ConnectedProject {
    fn from(seen: ProjectAccess) -> Self {
        let ProjectAccess { project, access } = seen;
        let shareable = access.is_none().then_some(true);
        Self {
            id: project.id,
            // A host that is not shared must not show either (partnership-api.md, "candidates").
            access_host: access.as_ref().and(project.access_host),
            failure: shown_failure(project.status, project.failure).filter(|_| access.is_some()),
            api_key: access.map(|access| access.api_key),
            status: project.status,
            shareable,
        }
    }
}

impl From<ProjectView> for ConnectedProject {
    fn from(view: ProjectView) -> Self {
        Self {
            id: view.project.id,
            access_host: view.project.access_host,
            api_key: Some(view.api_key),
            status: view.project.status,
            shareable: None,
            failure: shown_failure(view.project.status, view.project.failure),
        }
    }
}

/// A reason that was noted earlier says nothing once the project works again.
pub fn shown_failure(status: ProjectStatus, failure: Option<Failure>) -> Option<FailureReason> {
    failure
        .filter(|_| status == ProjectStatus::Failed)
        .map(Into::into)
}

/// The answer to the sync calls.
#[derive(Serialize, ToSchema)]
pub struct SyncResponse {
    /// False if the project could not be made ready; `message` and `project.failure` say why.
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    message: Option<String>,
    project: ConnectedProject,
}

impl From<ProjectView> for SyncResponse {
    fn from(view: ProjectView) -> Self {
        let project = ConnectedProject::from(view);
        // The document's own sample code takes `project` when `success` is true: a project that
        // does not work must not pass for one that does.
        Self {
            success: project.status != ProjectStatus::Failed,
            message: project
                .failure
                .as_ref()
                .map(|failure| failure.message.clone()),
            project,
        }
    }
}

/// The answer to `GET :userId/:projectId/metadata`.
#[derive(Serialize, ToSchema)]
pub struct UserMetadataResponse {
    pub project: ConnectedProject,
}

/// The answer to `GET :projectId/metadata`.
#[derive(Serialize, ToSchema)]
pub struct MetadataResponse {
    project: ProjectMetadata,
}

/// All that a partner may know of one of its projects.
#[derive(Serialize, ToSchema)]
struct ProjectMetadata {
    #[schema(value_type = Uuid)]
    id: ProjectId,
    /// Base URL of the project's backend; null until it has one.
    #[schema(required = true, example = "https://project.us-east.insforge.app")]
    access_host: Option<String>,
    /// The backend's API key.
    #[serde(serialize_with = "expose")]
    #[schema(value_type = String, example = "ik_0123456789abcdef0123456789abcdef")]
    api_key: Option<SecretString>,
    #[schema(schema_with = schema::region)]
    region: Region,
    #[schema(schema_with = schema::instance_type)]
    instance_type: InstanceType,
    /// When the backend was last used, as far as we know.
    #[serde(serialize_with = "time::optional_seconds")]
    #[schema(required = true, value_type = Option<String>, format = DateTime, example = "2025-01-21T10:30:00Z")]
    last_activity_at: Option<DateTime<Utc>>,
    #[schema(schema_with = schema::status)]
    status: ProjectStatus,
    /// Your own id for the project, if you gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    external_id: Option<String>,
    /// Your own data about the project, if you gave any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Object>)]
    metadata: Option<serde_json::Value>,
    /// Why the project failed; only while its status is `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    failure: Option<FailureReason>,
    /// The work in flight on the project; only while there is some.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    operation: Option<OperationOverview>,
}

/// The work in flight on a project.
#[derive(Serialize, ToSchema)]
struct OperationOverview {
    #[schema(value_type = Uuid)]
    id: OperationId,
    #[schema(schema_with = schema::operation_kind)]
    kind: OperationKind,
    #[schema(schema_with = schema::operation_state)]
    state: OperationState,
}

impl From<OperationSummary> for OperationOverview {
    fn from(summary: OperationSummary) -> Self {
        Self {
            id: summary.id,
            kind: summary.kind,
            state: summary.state,
        }
    }
}

impl From<ProjectView> for MetadataResponse {
    fn from(view: ProjectView) -> Self {
        let project = view.project;
        Self {
            project: ProjectMetadata {
                id: project.id,
                access_host: project.access_host,
                api_key: Some(view.api_key),
                region: project.region,
                instance_type: project.instance_type,
                last_activity_at: project.last_activity_at,
                status: project.status,
                external_id: project.external_id,
                metadata: project.metadata,
                failure: shown_failure(project.status, project.failure),
                operation: view.operation.map(Into::into),
            },
        }
    }
}

/// The answer to pause and restore.
#[derive(Serialize, ToSchema)]
pub struct StatusResponse {
    project: ProjectState,
}

/// A project's id and status.
#[derive(Serialize, ToSchema)]
pub struct ProjectState {
    #[schema(value_type = Uuid)]
    id: ProjectId,
    #[schema(schema_with = schema::status)]
    status: ProjectStatus,
    /// Why the project failed; only while its status is `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    failure: Option<FailureReason>,
}

impl From<Project> for ProjectState {
    fn from(project: Project) -> Self {
        Self {
            id: project.id,
            status: project.status,
            failure: shown_failure(project.status, project.failure),
        }
    }
}

impl From<Project> for StatusResponse {
    fn from(project: Project) -> Self {
        Self {
            project: project.into(),
        }
    }
}

/// One page of a partner's projects.
#[derive(Serialize, ToSchema)]
pub struct ProjectList {
    pub projects: Vec<ListedProject>,
    /// Give it as `cursor` to get the next page; null on the last one.
    #[schema(required = true, value_type = Option<Uuid>)]
    pub next_cursor: Option<ProjectId>,
}

/// A project in a list: without its key, which `metadata` has.
#[derive(Serialize, ToSchema)]
pub struct ListedProject {
    #[schema(value_type = Uuid)]
    id: ProjectId,
    #[schema(example = "my-project")]
    name: String,
    /// Your own id for the project, if you gave one.
    #[schema(required = true)]
    external_id: Option<String>,
    /// The user it was made for; null for embedded projects.
    #[schema(required = true, value_type = Option<Uuid>)]
    user_id: Option<UserId>,
    /// Base URL of the project's backend; null until it has one.
    #[schema(required = true, example = "https://project.us-east.insforge.app")]
    access_host: Option<String>,
    #[schema(schema_with = schema::region)]
    region: Region,
    #[schema(schema_with = schema::instance_type)]
    instance_type: InstanceType,
    #[serde(serialize_with = "time::optional_seconds")]
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    last_activity_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "time::seconds")]
    #[schema(value_type = String, format = DateTime)]
    created_at: DateTime<Utc>,
    #[schema(schema_with = schema::status)]
    status: ProjectStatus,
}

impl From<Project> for ListedProject {
    fn from(project: Project) -> Self {
        Self {
            id: project.id,
            name: project.name,
            external_id: project.external_id,
            user_id: project.user_id,
            access_host: project.access_host,
            region: project.region,
            instance_type: project.instance_type,
            last_activity_at: project.last_activity_at,
            created_at: project.created_at,
            status: project.status,
        }
    }
}

#[cfg(test)]
mod tests;
