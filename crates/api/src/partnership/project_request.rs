//! The bodies of the two sync calls, checked.

use cp_domain::{Effect, PartnerCaller, ProjectRequest};
use cp_model::{FieldResult, InstanceType, ProjectStatus, Region, field};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::wait::{project_of, wait_for_status};
use crate::ApiState;
use crate::body::RequestBody;
use crate::idempotency::Answer;
use crate::params::one_of;
use crate::places::Place;
use crate::problem::Problem;
use crate::wire::project::SyncResponse;
use crate::wire::schema;

/// The body of `sync-project`.
#[derive(Deserialize, ToSchema)]
pub struct SyncProjectRequest {
    /// 2 to 64 characters after trimming.
    #[schema(
        min_length = 2,
        max_length = 64,
        pattern = r"^[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f]$",
        example = "my-project"
    )]
    project_name: String,
    #[schema(schema_with = schema::optional_region)]
    region: Option<String>,
    #[schema(schema_with = schema::optional_instance_type)]
    instance_type: Option<String>,
}

/// The body of `sync-embedded-project`.
#[derive(Deserialize, ToSchema)]
pub struct SyncEmbeddedProjectRequest {
    /// 2 to 64 characters after trimming.
    #[schema(
        min_length = 2,
        max_length = 64,
        pattern = r"^[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f]$",
        example = "embedded-project"
    )]
    project_name: String,
    #[schema(schema_with = schema::optional_region)]
    region: Option<String>,
    #[schema(schema_with = schema::optional_instance_type)]
    instance_type: Option<String>,
    /// Your own id for the project. With it the call is a true sync: the same `external_id` gets
    /// the same project. Without it each call makes a project.
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$",
        example = "customer-4711"
    )]
    external_id: Option<String>,
    /// Your own data about the project, returned by `metadata`: an object of at most 4 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
}

impl RequestBody for SyncProjectRequest {}
impl RequestBody for SyncEmbeddedProjectRequest {}

impl SyncProjectRequest {
    pub fn check(&self) -> FieldResult<ProjectRequest> {
        Ok(ProjectRequest {
            name: field::project_name("project_name", &self.project_name)?,
            region: region(self.region.as_deref())?,
            instance_type: instance_type_or_default(self.instance_type.as_deref())?,
            external_id: None,
            metadata: None,
        })
    }
}

impl SyncEmbeddedProjectRequest {
    pub fn check(self) -> FieldResult<ProjectRequest> {
        if let Some(metadata) = &self.metadata {
            field::metadata("metadata", metadata)?;
        }
        Ok(ProjectRequest {
            name: field::project_name("project_name", &self.project_name)?,
            region: region(self.region.as_deref())?,
            instance_type: instance_type_or_default(self.instance_type.as_deref())?,
            external_id: self
                .external_id
                .map(|id| field::external_id("external_id", &id))
                .transpose()?,
            metadata: self.metadata,
        })
    }
}

fn region(given: Option<&str>) -> FieldResult<Region> {
    given.map_or(Ok(Region::DEFAULT), |given| {
        one_of("region", given, Region::ALL, Region::as_str)
    })
}

pub fn instance_type(given: &str) -> FieldResult<InstanceType> {
    one_of(
        "instance_type",
        given,
        InstanceType::ALL,
        InstanceType::as_str,
    )
}

fn instance_type_or_default(given: Option<&str>) -> FieldResult<InstanceType> {
    given.map_or(Ok(InstanceType::DEFAULT), instance_type)
}

/// The answer to both sync calls: waits a little for `active`, which a warm machine makes the
/// usual case.
pub async fn synced(
    state: &ApiState,
    by: &PartnerCaller,
    place: &Place,
    effect: Effect,
) -> Result<Answer, Problem> {
    let id = project_of(effect)?;
    let settled = |status| status != ProjectStatus::Provisioning;
    let at_most = state.control_plane.settings().create_wait;
    let view = wait_for_status(state, &by.partner, place, id, settled, at_most).await?;
    Answer::ok(&SyncResponse::from(view))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: Value) -> Result<ProjectRequest, String> {
        serde_json::from_value::<SyncEmbeddedProjectRequest>(body)
            .unwrap()
            .check()
            .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_the_documents() {
        let request = check(json!({"project_name": " shop ", "region": null})).unwrap();
        assert_eq!(request.name, "shop");
        assert_eq!(request.region, Region::UsEast);
        assert_eq!(request.instance_type, InstanceType::Nano);
        assert_eq!(request.external_id, None);
    }

    #[test]
    fn unknown_values_are_answered_with_the_valid_ones() {
        let refused = |body| check(body).err().unwrap();
        assert_eq!(
            refused(json!({"project_name": "shop", "region": "eu-west"})),
            "region must be one of us-east, us-west, ap-southeast, eu-central"
        );
        assert_eq!(
            refused(json!({"project_name": "shop", "instance_type": "huge"})),
            "instance_type must be one of nano, micro, small, medium, large, xl, 2xl, 4xl, 8xl, 16xl"
        );
    }

    #[test]
    fn metadata_is_bounded_and_free_of_what_postgres_cannot_keep() {
        let body = |metadata: Value| json!({"project_name": "shop", "metadata": metadata});
        // {"a":"…"} adds eight bytes.
        assert!(check(body(json!({"a": "x".repeat(4096 - 8)}))).is_ok());
        let refused = check(body(json!({"a": "x".repeat(4096 - 7)})))
            .err()
            .unwrap();
        assert_eq!(
            refused,
            "metadata must be at most 4096 bytes as JSON, has 4097"
        );
        for bad in [json!({"a": ["\u{0}"]}), json!({"b": {"\u{0}": 1}})] {
            assert!(check(body(bad)).is_err());
        }
    }
}
