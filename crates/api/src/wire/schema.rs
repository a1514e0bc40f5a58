//! Schemas of the model's enums for the OpenAPI document, from the one place that spells them.

use cp_model::agent_protocol::ObservedState;
use cp_model::{
    BackupStatus, BackupTrigger, BranchMode, BranchState, InstanceType, InvitationStatus,
    MachineMetric, MailTemplate, MemberRole, MetricsRange, OperationKind, OperationState,
    OrganizationKind, Plan, ProjectStatus, Region,
};
use serde_json::Value;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

pub fn texts(description: &str, values: impl Iterator<Item = &'static str>) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .enum_values(Some(values.map(Value::from)))
}

/// The statuses that callers can see. `deleted` is not one: what is deleted is not found.
pub fn visible_statuses() -> Vec<ProjectStatus> {
    ProjectStatus::ALL
        .iter()
        .copied()
        .filter(|status| *status != ProjectStatus::Deleted)
        .collect()
}

pub fn status() -> Object {
    let values = visible_statuses().into_iter().map(ProjectStatus::as_str);
    texts("The project's status.", values).build()
}

pub fn region() -> Object {
    texts(
        "Where the project runs.",
        Region::ALL.iter().map(|v| v.as_str()),
    )
    .build()
}

pub fn instance_type() -> Object {
    let values = InstanceType::ALL.iter().map(|v| v.as_str());
    texts("How big the project's machine is.", values).build()
}

pub fn organization_type() -> Object {
    let values = OrganizationKind::OF_PEOPLE.iter().map(|v| v.as_str());
    texts("What the organization says it is.", values).build()
}

pub fn plan() -> Object {
    let values = Plan::ALL.iter().map(|v| v.as_str());
    texts("What the organization pays for.", values).build()
}

pub fn backup_status() -> Object {
    let values = BackupStatus::ALL.iter().map(|v| v.as_str());
    texts("Where the backup stands.", values).build()
}

pub fn backup_trigger() -> Object {
    let values = BackupTrigger::ALL.iter().map(|v| v.as_str());
    texts("What began it: a person, or the schedule.", values).build()
}

pub fn mail_template() -> Object {
    let values = MailTemplate::ALL.iter().map(|v| v.as_str());
    texts("Which of our texts.", values).build()
}

pub fn machine_metric() -> Object {
    let values = MachineMetric::ALL.iter().map(|v| v.as_str());
    texts("Percent; of the network, bytes per second.", values).build()
}

pub fn metrics_range() -> Object {
    let values = MetricsRange::ALL.iter().map(|v| v.as_str());
    texts("How far back.", values).build()
}

pub fn bought_plan() -> Object {
    let values = Plan::OF_PEOPLE.iter().map(|v| v.as_str());
    texts("What the organization shall pay for.", values).build()
}

pub fn member_role() -> Object {
    let values = MemberRole::ALL.iter().map(|v| v.as_str());
    texts("What the member may do.", values).build()
}

pub fn invitation_status() -> Object {
    let values = InvitationStatus::ALL.iter().map(|v| v.as_str());
    texts("What became of the invitation.", values).build()
}

pub fn branch_state() -> Object {
    let values = BranchState::ALL.iter().map(|v| v.as_str());
    texts("Where the branch stands.", values).build()
}

pub fn branch_mode() -> Object {
    let values = BranchMode::ALL.iter().map(|v| v.as_str());
    texts("Whether it begins with the project's rows.", values).build()
}

pub fn operation_kind() -> Object {
    let values = OperationKind::ALL.iter().map(|v| v.as_str());
    texts("What the operation does.", values).build()
}

pub fn operation_state() -> Object {
    let values = OperationState::ALL.iter().map(|v| v.as_str());
    texts("Where the operation stands.", values).build()
}

pub fn observed_state() -> Object {
    let values = ObservedState::ALL.iter().map(|v| v.as_str());
    texts("What the agent sees.", values).build()
}

/// A size that is asked for; left out or null: the present one.
pub fn wanted_instance_type() -> Object {
    let values = InstanceType::ALL.iter().map(|v| Value::from(v.as_str()));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .description(Some("How big the project's machine shall be."))
        .enum_values(Some(values.chain([Value::Null])))
        .build()
}

/// In requests a field may be left out or be null, which means the default.
fn optional(
    description: &str,
    values: impl Iterator<Item = &'static str>,
    default: &str,
) -> Object {
    let values = values.map(Value::from).chain([Value::Null]);
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .description(Some(description))
        .enum_values(Some(values))
        .default(Some(Value::from(default)))
        .build()
}

/// In changes a field may be left out or be null, which means that it stays.
pub fn optional_organization_type() -> Object {
    let values = OrganizationKind::OF_PEOPLE.iter();
    let values = values.map(|v| Value::from(v.as_str()));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .description(Some("What the organization says it is."))
        .enum_values(Some(values.chain([Value::Null])))
        .build()
}

pub fn optional_member_role() -> Object {
    let values = MemberRole::ALL.iter().map(|v| v.as_str());
    let default = MemberRole::Developer.as_str();
    optional("What the member may do.", values, default)
}

pub fn optional_region() -> Object {
    let values = Region::ALL.iter().map(|v| v.as_str());
    optional(
        "Where the project shall run.",
        values,
        Region::DEFAULT.as_str(),
    )
}

pub fn optional_instance_type() -> Object {
    let values = InstanceType::ALL.iter().map(|v| v.as_str());
    let default = InstanceType::DEFAULT.as_str();
    optional("How big the project's machine shall be.", values, default)
}
