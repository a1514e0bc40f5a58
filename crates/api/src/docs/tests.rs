use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

fn document() -> Value {
    serde_json::to_value(openapi()).unwrap()
}

/// (method, path, operation) of every documented route.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter();
            methods.map(move |(method, operation)| {
                (method.to_uppercase(), path.clone(), operation.clone())
            })
        })
        .collect()
}

#[test]
fn the_contracts_endpoints_are_all_there() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let served: BTreeSet<String> = operations(&document)
        .into_iter()
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    let partner = "/partnership/v1/{partnerId}";
    let expected: BTreeSet<String> = [
        format!("POST {partner}/connect-user"),
        format!("POST {partner}/{{userId}}/sync-project"),
        format!("GET {partner}/{{userId}}/{{projectId}}/metadata"),
        format!("POST {partner}/sync-embedded-project"),
        format!("GET {partner}/{{projectId}}/metadata"),
        format!("POST {partner}/{{projectId}}/pause"),
        format!("POST {partner}/{{projectId}}/restore"),
        format!("POST {partner}/{{projectId}}/restart"),
        format!("POST {partner}/{{projectId}}/upgrade"),
        format!("DELETE {partner}/{{projectId}}"),
        format!("POST {partner}/{{projectId}}/authorization"),
        format!("GET {partner}/projects"),
        format!("GET {partner}/operations/{{operationId}}"),
        format!("GET {partner}/{{projectId}}/usage"),
        format!("GET {partner}/usage"),
        format!("POST {partner}/usage/report-link"),
        format!("POST {partner}/{{projectId}}/branches"),
        format!("GET {partner}/{{projectId}}/branches"),
        format!("GET {partner}/{{projectId}}/branches/{{branchId}}"),
        format!("DELETE {partner}/{{projectId}}/branches/{{branchId}}"),
        format!("POST {partner}/{{projectId}}/branches/{{branchId}}/reset"),
        format!("POST {partner}/{{projectId}}/branches/{{branchId}}/merge"),
        format!("POST {partner}/{{projectId}}/branches/{{branchId}}/rebase"),
        format!("GET {partner}/{{projectId}}/branches/{{branchId}}/diff"),
        "GET /organizations/v1".into(),
        "POST /organizations/v1".into(),
        "PUT /organizations/v1/{organizationId}".into(),
        "DELETE /organizations/v1/{organizationId}".into(),
        "POST /organizations/v1/{organizationId}/leave".into(),
        "GET /organizations/v1/{organizationId}/members".into(),
        "POST /organizations/v1/{organizationId}/members/invite".into(),
        "DELETE /organizations/v1/{organizationId}/members/{memberId}".into(),
        "PUT /organizations/v1/{organizationId}/members/{memberId}/role".into(),
        "DELETE /organizations/v1/{organizationId}/invitations/{invitationId}".into(),
        "GET /organizations/v1/{organizationId}/audit-log".into(),
        "GET /organizations/v1/{organizationId}/projects".into(),
        "POST /organizations/v1/{organizationId}/projects".into(),
        "GET /organizations/v1/{organizationId}/subscription-status".into(),
        "GET /organizations/v1/{organizationId}/billing-cycles".into(),
        "GET /organizations/v1/{organizationId}/payment-history".into(),
        "GET /billing/v1/{organizationId}/credits".into(),
        "POST /billing/v1/stripe/checkout-session".into(),
        "POST /billing/v1/stripe/portal-session".into(),
        "POST /billing/v1/stripe/webhook".into(),
        "GET /usage/v1/organizations/{organizationId}".into(),
        "GET /platform/insforge/latest-version".into(),
        "POST /tracking/v1/agent-connected".into(),
        "GET /integrations/posthog/v1/cli-start".into(),
        "GET /integrations/posthog/v1/connection".into(),
        "GET /integrations/apify/v1/cli-start".into(),
        "GET /integrations/apify/v1/connection".into(),
        "GET /projects/v1/{projectId}/metrics".into(),
        "GET /projects/v1/{projectId}/diagnose/incident".into(),
        "GET /projects/v1/{projectId}/advisor/latest".into(),
        "GET /projects/v1/{projectId}/advisor/latest/issues".into(),
        "POST /diagnostic/v1/analyze".into(),
        "POST /diagnostic/v1/sessions/{sessionId}/rating".into(),
        "GET /projects/v1/{projectId}".into(),
        "PUT /projects/v1/{projectId}".into(),
        "DELETE /projects/v1/{projectId}".into(),
        "GET /projects/v1/{projectId}/access-api-key".into(),
        "POST /projects/v1/{projectId}/transfer".into(),
        "POST /projects/v1/{projectId}/pause".into(),
        "POST /projects/v1/{projectId}/restore".into(),
        "POST /projects/v1/{projectId}/restart".into(),
        "POST /projects/v1/{projectId}/upgrade-instance".into(),
        "GET /projects/v1/{projectId}/backups".into(),
        "GET /projects/v1/{projectId}/backup/latest".into(),
        "POST /projects/v1/{projectId}/backup".into(),
        "PATCH /projects/v1/{projectId}/backups/{backupId}".into(),
        "DELETE /projects/v1/{projectId}/backups/{backupId}".into(),
        "POST /projects/v1/{projectId}/backups/{backupId}/restore".into(),
        "POST /projects/v1/{projectId}/branches".into(),
        "GET /projects/v1/{projectId}/branches".into(),
        "GET /projects/v1/branches/{branchId}".into(),
        "DELETE /projects/v1/branches/{branchId}".into(),
        "POST /projects/v1/branches/{branchId}/reset".into(),
        "POST /projects/v1/branches/{branchId}/merge".into(),
        "POST /projects/v1/branches/{branchId}/rebase".into(),
        "GET /projects/v1/branches/{branchId}/diff".into(),
        "GET /projects/v1/{projectId}/database-connection-string".into(),
        "GET /projects/v1/{projectId}/database-password".into(),
        "POST /email/v1/{projectId}/send-with-template".into(),
        "POST /email/v1/{projectId}/send-on-demand".into(),
        "GET /ai/v1/credentials/{projectId}".into(),
        "POST /ai/v1/credentials/{projectId}/rotate".into(),
        "GET /ai/v1/activity/{projectId}".into(),
        "GET /sites/v1/credentials/{projectId}".into(),
        "PUT /sites/v1/{projectId}/slug".into(),
        "POST /internal/usage/v1/events".into(),
        "GET /.well-known/jwks.json".into(),
        "GET /.well-known/oauth-authorization-server".into(),
        "GET /api/oauth/v1/authorize".into(),
        "POST /api/oauth/v1/token".into(),
        "POST /api/oauth/v1/revoke".into(),
        "POST /api/oauth/v1/introspect".into(),
        "POST /api/oauth/v1/device_authorization".into(),
        "GET /auth/v1/profile".into(),
        "POST /auth/v1/login".into(),
        "POST /auth/v1/signup".into(),
        "POST /auth/v1/refresh".into(),
        "POST /auth/v1/logout".into(),
        "POST /agent/v1/register".into(),
        "GET /agent/v1/desired".into(),
        "POST /agent/v1/report".into(),
        "POST /agent/v1/renew".into(),
    ]
    .into();
    assert_eq!(served, expected);
}

#[test]
fn every_partnership_route_asks_for_the_secret_and_documents_its_refusals() {
    for (method, path, operation) in operations(&document()) {
        if !path.starts_with("/partnership/") {
            continue;
        }
        let at = format!("{method} {path}");
        assert_eq!(
            operation["security"][0],
            json!({PARTNERSHIP_SECRET: []}),
            "{at}"
        );
        let mut statuses = vec!["200", "401", "403", "429", "500", "503"];
        if path.matches('{').count() > 1 {
            statuses.extend(["400", "404"]);
        }
        if method != "GET" {
            statuses.extend(["400", "409", "413"]);
            let names = operation["parameters"].as_array().unwrap().iter();
            let has_key = names
                .filter(|parameter| parameter["in"] == "header")
                .any(|parameter| parameter["name"] == "Idempotency-Key");
            assert!(has_key, "{at} takes an idempotency key");
        }
        for status in statuses {
            assert!(
                operation["responses"].get(status).is_some(),
                "{at} {status}"
            );
        }
    }
}

#[test]
fn applications_may_send_forms_and_json_and_are_refused_in_oauths_form() {
    let mut seen = 0;
    for (method, path, operation) in operations(&document()) {
        if method != "POST" || !path.starts_with("/api/oauth/") {
            continue;
        }
        seen += 1;
        let bodies = operation["requestBody"]["content"].as_object().unwrap();
        let kinds: BTreeSet<&str> = bodies.keys().map(String::as_str).collect();
        let expected = ["application/json", "application/x-www-form-urlencoded"];
        assert_eq!(kinds, expected.into(), "{path}");
        let refusal = &operation["responses"]["401"]["content"]["application/json"];
        let schema = "#/components/schemas/OAuthError";
        assert_eq!(refusal["schema"]["$ref"], schema, "{path}");
    }
    assert_eq!(seen, 4);
}

#[test]
fn every_path_parameter_is_described_and_none_besides() {
    for (method, path, operation) in operations(&document()) {
        let in_path: BTreeSet<String> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(str::to_owned)
            .collect();
        let described: BTreeSet<String> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(in_path, described, "{method} {path}");
        assert!(operation["summary"].is_string(), "{method} {path}");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value.as_str() {
                        Some(target) if name == "$ref" => {
                            found.insert(target.to_owned());
                        }
                        _ => references(value, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.contains("#/components/schemas/PartnershipError"));
    for target in found {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{target}");
    }
}

#[test]
fn what_can_be_null_says_so() {
    let document = document();
    let host = &document["components"]["schemas"]["ConnectedProject"];
    assert_eq!(
        host["properties"]["access_host"]["type"],
        json!(["string", "null"])
    );
    let required = host["required"].as_array().unwrap();
    assert!(required.contains(&json!("access_host")));
    assert!(!required.contains(&json!("shareable")));
}
