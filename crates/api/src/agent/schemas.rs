//! The agent protocol for the OpenAPI document. What is served are the types of
//! `cp_model::agent_protocol`, which know nothing of OpenAPI; a test holds the two together.
#![allow(dead_code, reason = "read by the OpenAPI generator alone")]

use std::collections::BTreeMap;

use utoipa::ToSchema;
use uuid::Uuid;

use crate::wire::schema;

/// The body of `register`.
#[derive(ToSchema)]
pub struct AgentRegisterRequest {
    machine_id: Uuid,
    bootstrap_token: String,
    /// Made by the agent itself, and kept by it before it asks.
    #[schema(example = "iat_…")]
    agent_token: String,
    #[schema(example = "0.1.0")]
    agent_version: String,
}

/// The answer to `register`.
#[derive(ToSchema)]
pub struct AgentRegisterResponse {
    machine_id: Uuid,
}

/// The body of `renew`.
#[derive(ToSchema)]
pub struct AgentRenewRequest {
    /// Made by the agent itself, and kept by it before it asks.
    #[schema(example = "iat_…")]
    agent_token: String,
}

/// What the machine shall be.
#[derive(ToSchema)]
pub struct AgentDesiredState {
    generation: i64,
    /// Null: stay warm, with no identity.
    #[schema(required = true)]
    backend: Option<AgentDesiredBackend>,
}

/// The backend that the machine shall run.
#[derive(ToSchema)]
pub struct AgentDesiredBackend {
    project_id: Uuid,
    /// Grows with each restart that was asked for.
    restarts: i64,
    /// The release to run; null: the newest that the machine has.
    #[schema(required = true)]
    release: Option<String>,
    database_password: String,
    env: BTreeMap<String, String>,
    /// Run the database alone; left out when false.
    #[schema(required = false)]
    database_only: bool,
}

/// What the agent sees.
#[derive(ToSchema)]
pub struct AgentReportRequest {
    /// The generation that `state` speaks of.
    generation: i64,
    #[schema(schema_with = schema::observed_state)]
    state: String,
    /// The `restarts` that the running backend, or its database alone, was started with.
    #[schema(required = false)]
    restarts: i64,
    backend_version: Option<String>,
    /// The release that serves.
    backend_release: Option<String>,
    /// The desired release, when it did not become healthy and another serves instead.
    rolled_back_from: Option<String>,
    /// Why it fails; at most 500 characters are kept.
    message: Option<String>,
    agent_version: String,
    /// Once a minute.
    #[schema(nullable = false)]
    sample: Option<AgentSample>,
}

/// How busy the machine was in the minute before, and how full it is: percent, and bytes per second.
#[derive(ToSchema)]
pub struct AgentSample {
    #[schema(minimum = 0, maximum = 100)]
    cpu_usage: f64,
    #[schema(minimum = 0, maximum = 100)]
    memory_usage: f64,
    #[schema(minimum = 0, maximum = 100)]
    disk_usage: f64,
    #[schema(minimum = 0)]
    network_in: f64,
    #[schema(minimum = 0)]
    network_out: f64,
}

#[cfg(test)]
mod tests {
    use cp_model::agent_protocol::{
        DesiredBackend, DesiredState, MachineSample, ObservedState, RegisterRequest,
        RegisterResponse, ReportRequest,
    };
    use cp_model::{MachineId, ProjectId};
    use serde::Serialize;
    use serde_json::Value;
    use utoipa::PartialSchema;

    use super::*;

    fn assert_same_fields<Schema: PartialSchema>(served: impl Serialize) {
        let schema = serde_json::to_value(Schema::schema()).unwrap();
        let names = |value: &Value| -> Vec<String> {
            let mut names: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            names.sort();
            names
        };
        let served = serde_json::to_value(served).unwrap();
        assert_eq!(names(&schema["properties"]), names(&served));
    }

    #[test]
    fn the_document_describes_what_is_served() {
        let machine_id = MachineId::generate();
        let sample = MachineSample {
            cpu_usage: 0.0,
            memory_usage: 0.0,
            disk_usage: 0.0,
            network_in: 0.0,
            network_out: 0.0,
        };
        let backend = || DesiredBackend {
            project_id: ProjectId::generate(),
            restarts: 0,
            release: None,
            database_password: String::new(),
            env: BTreeMap::new(),
            // False is left out.
            database_only: true,
        };
        assert_same_fields::<AgentRegisterRequest>(RegisterRequest {
            machine_id,
            bootstrap_token: String::new(),
            agent_token: String::new(),
            agent_version: String::new(),
        });
        assert_same_fields::<AgentRegisterResponse>(RegisterResponse { machine_id });
        assert_same_fields::<AgentDesiredBackend>(backend());
        assert_same_fields::<AgentDesiredState>(DesiredState {
            generation: 1,
            backend: Some(backend()),
        });
        assert_same_fields::<AgentReportRequest>(ReportRequest {
            generation: 1,
            state: ObservedState::Idle,
            restarts: 0,
            backend_version: None,
            backend_release: None,
            rolled_back_from: None,
            message: None,
            agent_version: String::new(),
            sample: Some(sample),
        });
        assert_same_fields::<AgentSample>(sample);
    }
}
