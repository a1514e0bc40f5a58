//! `POST :projectId/upgrade`.

use axum::extract::State;
use axum::response::Response;
use cp_domain::{ProjectCaller, SizeFields, Upgrade};
use cp_model::{InstanceType, MachineSize, ProjectStatus, UpgradePlan};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::project_request::instance_type;
use super::wait::{After, after};
use crate::ApiState;
use crate::body::{JsonBody, RequestBody};
use crate::docs::errors::{ConflictError, InputErrors, NotFoundError, PartnerErrors};
use crate::idempotency::{Answer, IdempotencyKey, IdempotencyParam, once};
use crate::params::{PartnerParam, ProjectParam, ProjectPath};
use crate::partner_auth::WhiteLabel;
use crate::places::Place;
use crate::problem::Problem;
use crate::wire::project::ProjectState;
use crate::wire::schema;

/// The body of `upgrade`: at least one of the first two.
#[derive(Deserialize, ToSchema)]
pub struct UpgradeRequest {
    #[schema(schema_with = schema::wanted_instance_type)]
    instance_type: Option<String>,
    /// The size of its disk, in GiB; at least the present one, since a disk only grows. EBS lets a
    /// disk be changed once in six hours.
    #[schema(minimum = 1, maximum = 16384, example = 20)]
    volume_size_gib: Option<i64>,
    /// Answer only when it is done, or after 60 seconds with 202 and the status so far.
    #[schema(example = true)]
    wait_for_completion: Option<bool>,
}

impl RequestBody for UpgradeRequest {}

impl UpgradeRequest {
    fn upgrade(&self) -> Result<Upgrade, Problem> {
        let kind = self.instance_type.as_deref();
        let kind = kind.map(instance_type).transpose()?;
        let fields = SizeFields {
            instance_type: "instance_type",
            volume_gib: "volume_size_gib",
        };
        Ok(Upgrade::new(kind, self.volume_size_gib, 1, fields)?)
    }
}

/// The answer to `upgrade`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UpgradeResponse {
    /// What became of it. Why it did not come to be, if it did not.
    #[schema(example = "Project upgraded successfully")]
    message: String,
    #[schema(schema_with = schema::instance_type)]
    previous_instance_type: InstanceType,
    /// Of the end; the previous one, when the project came back with that.
    #[schema(schema_with = schema::instance_type)]
    new_instance_type: InstanceType,
    #[serde(rename = "previousVolumeSizeGiB")]
    #[schema(example = 8)]
    previous_volume_size_gib: i32,
    #[serde(rename = "newVolumeSizeGiB")]
    #[schema(example = 20)]
    new_volume_size_gib: i32,
    project: ProjectState,
}

impl UpgradeResponse {
    fn new(after: After) -> Result<Self, Problem> {
        let turned_back = after.turned_back();
        let project = after.view.project;
        let plan: Option<UpgradePlan> = after
            .operation
            .map(|operation| serde_json::from_value(operation.data))
            .transpose()
            .map_err(|error| Problem::internal(error.to_string()))?;
        let size = project.size();
        let from = plan.map_or(size, |plan| plan.from);
        let (message, to): (String, MachineSize) = match (plan, project.status) {
            (None, _) => ("Project has this size already".to_owned(), size),
            (_, ProjectStatus::Failed) => {
                let failure = project.failure.as_ref();
                let message = failure.map_or("Project upgrade failed", |f| &f.message);
                (message.to_owned(), size)
            }
            (Some(_), _) if turned_back.is_some() => {
                (turned_back.map(|f| f.message).unwrap_or_default(), size)
            }
            (Some(plan), ProjectStatus::Upgrading) => {
                ("Project is being upgraded".to_owned(), plan.to)
            }
            (Some(plan), _) => ("Project upgraded successfully".to_owned(), plan.to),
        };
        Ok(Self {
            message,
            previous_instance_type: from.instance_type,
            new_instance_type: to.instance_type,
            previous_volume_size_gib: from.volume_gib,
            new_volume_size_gib: to.volume_gib,
            project: project.into(),
        })
    }
}

/// Upgrade a project
///
/// Gives an active project's machine another size, a bigger disk, or both. A bigger disk alone does
/// not interrupt the project; for another size its machine stops and starts. When it does not come
/// back with the new size it gets the previous one again: the answer then names that as the new
/// one, with the reason as its message, and so does the operation's error.
#[utoipa::path(
    post,
    path = "/partnership/v1/{partnerId}/{projectId}/upgrade",
    tag = "White-label",
    security(("partnership_secret" = [])),
    params(PartnerParam, ProjectParam, IdempotencyParam),
    request_body = UpgradeRequest,
    responses(
        (status = 200, description = "The sizes before and after", body = UpgradeResponse),
        (status = 202, description = "It takes longer than the call may wait", body = UpgradeResponse),
        InputErrors, NotFoundError, ConflictError, PartnerErrors,
    )
)]
pub async fn upgrade_project(
    State(state): State<ApiState>,
    WhiteLabel(by): WhiteLabel,
    ProjectPath(id): ProjectPath,
    place: Place,
    key: IdempotencyKey,
    body: JsonBody<UpgradeRequest>,
) -> Result<Response, Problem> {
    let upgrade = body.value.upgrade()?;
    let wait = body.value.wait_for_completion.unwrap_or(false);
    let key = key.with_body(&body.raw);
    let control_plane = &state.control_plane;
    let effect =
        control_plane.upgrade_project(ProjectCaller::Partner(&by, key.as_ref()), id, upgrade);
    once(control_plane, &by, key.as_ref(), effect, async |effect| {
        let after = Box::pin(after(&state, &by.partner, &place, effect, wait)).await?;
        Answer::json(after.status, &UpgradeResponse::new(after)?)
    })
    .await
}
