use chrono::TimeZone;
use cp_domain::Access;
use cp_model::OrganizationId;
use serde_json::json;

use super::*;

const KEY: &str = "ik_0123456789abcdef0123456789abcdef";

fn project(status: ProjectStatus) -> Project {
    Project {
        id: ProjectId::generate(),
        organization_id: OrganizationId::generate(),
        partner_id: None,
        user_id: None,
        parent_id: None,
        external_id: None,
        name: "shop".into(),
        app_key: "abc".into(),
        region: Region::UsEast,
        instance_type: InstanceType::Nano,
        volume_gib: 8,
        status,
        failure: Some(Failure::new("machine_lost", "The machine is gone.")),
        access_host: Some("https://abc.us-east.insforge.app".into()),
        release: None,
        metadata: None,
        last_activity_at: Utc.timestamp_opt(1_737_455_400, 123_456_000).single(),
        customized_domain: None,
        created_at: Utc.timestamp_opt(1_737_455_400, 0).unwrap(),
        updated_at: Utc.timestamp_opt(1_737_455_400, 0).unwrap(),
    }
}

fn view(status: ProjectStatus) -> ProjectView {
    ProjectView {
        project: project(status),
        api_key: KEY.into(),
        operation: None,
    }
}

#[test]
fn metadata_is_the_documents_answer_field_by_field() {
    let view = view(ProjectStatus::Active);
    let id = view.project.id;
    let written = serde_json::to_string(&MetadataResponse::from(view)).unwrap();
    assert_eq!(
        written,
        format!(
            "{{\"project\":{{\"id\":\"{id}\",\"access_host\":\"https://abc.us-east.insforge.app\",\
             \"api_key\":\"{KEY}\",\"region\":\"us-east\",\"instance_type\":\"nano\",\
             \"last_activity_at\":\"2025-01-21T10:30:00Z\",\"status\":\"active\"}}}}"
        )
    );
}

#[test]
fn a_synced_project_is_the_documents_answer() {
    let view = view(ProjectStatus::Active);
    let id = view.project.id;
    assert_eq!(
        serde_json::to_value(SyncResponse::from(view)).unwrap(),
        json!({"success": true, "project": {
            "id": id, "access_host": "https://abc.us-east.insforge.app", "api_key": KEY, "status": "active"
        }})
    );
}

#[test]
fn a_project_that_failed_does_not_pass_for_a_success() {
    let answer = serde_json::to_value(SyncResponse::from(view(ProjectStatus::Failed))).unwrap();
    assert_eq!(answer["success"], false);
    assert_eq!(answer["message"], "The machine is gone.");
    assert_eq!(answer["project"]["failure"]["code"], "machine_lost");
}

#[test]
fn a_strangers_project_shows_neither_key_nor_host() {
    let hidden = ProjectAccess {
        project: project(ProjectStatus::Failed),
        access: None,
    };
    let id = hidden.project.id;
    assert_eq!(
        serde_json::to_value(ConnectedProject::from(hidden)).unwrap(),
        json!({"id": id, "access_host": null, "api_key": null, "status": "failed", "shareable": true})
    );

    let own = ProjectAccess {
        project: project(ProjectStatus::Active),
        access: Some(Access {
            api_key: KEY.into(),
        }),
    };
    let written = serde_json::to_value(ConnectedProject::from(own)).unwrap();
    assert_eq!(written["api_key"], KEY);
    assert!(written.get("shareable").is_none());
}
