//! `GET /.well-known/oauth-authorization-server` (RFC 8414): what a client library configures
//! itself from.

use axum::Json;
use axum::extract::State;
use cp_domain::ControlPlane;
use cp_model::Scope;
use http::HeaderName;
use http::header::CACHE_CONTROL;
use serde::Serialize;
use utoipa::ToSchema;

use super::authorize;
use super::token::DEVICE_CODE_GRANT;
use crate::docs::errors::OpenErrors;

/// RFC 8414 section 2, with RFC 8628 section 4 and RFC 9207 section 3.
#[derive(Serialize, ToSchema)]
pub struct AuthorizationServerMetadata {
    /// What `iss` is in the redirect (RFC 9207). Access tokens name their issuer otherwise.
    #[schema(example = "https://api.insforge.dev")]
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    revocation_endpoint: String,
    introspection_endpoint: String,
    device_authorization_endpoint: String,
    service_documentation: String,
    #[schema(value_type = Vec<String>)]
    scopes_supported: Vec<&'static str>,
    #[schema(value_type = Vec<String>)]
    response_types_supported: [&'static str; 1],
    #[schema(value_type = Vec<String>)]
    response_modes_supported: [&'static str; 1],
    #[schema(value_type = Vec<String>)]
    grant_types_supported: [&'static str; 3],
    #[schema(value_type = Vec<String>)]
    code_challenge_methods_supported: [&'static str; 1],
    #[schema(value_type = Vec<String>)]
    token_endpoint_auth_methods_supported: [&'static str; 3],
    #[schema(value_type = Vec<String>)]
    revocation_endpoint_auth_methods_supported: [&'static str; 3],
    #[schema(value_type = Vec<String>)]
    introspection_endpoint_auth_methods_supported: [&'static str; 2],
    authorization_response_iss_parameter_supported: bool,
}

impl AuthorizationServerMetadata {
    fn of(base_url: &str) -> Self {
        let at = |path: &str| format!("{base_url}{path}");
        let any_client = ["none", "client_secret_basic", "client_secret_post"];
        Self {
            issuer: base_url.to_owned(),
            authorization_endpoint: at(authorize::PATH),
            token_endpoint: at("/api/oauth/v1/token"),
            revocation_endpoint: at("/api/oauth/v1/revoke"),
            introspection_endpoint: at("/api/oauth/v1/introspect"),
            device_authorization_endpoint: at("/api/oauth/v1/device_authorization"),
            service_documentation: at("/docs"),
            scopes_supported: Scope::ALL.iter().map(|scope| scope.as_str()).collect(),
            response_types_supported: ["code"],
            response_modes_supported: ["query"],
            grant_types_supported: ["authorization_code", "refresh_token", DEVICE_CODE_GRANT],
            code_challenge_methods_supported: ["S256"],
            token_endpoint_auth_methods_supported: any_client,
            revocation_endpoint_auth_methods_supported: any_client,
            introspection_endpoint_auth_methods_supported: [
                "client_secret_basic",
                "client_secret_post",
            ],
            authorization_response_iss_parameter_supported: true,
        }
    }
}

/// Get the server's metadata
///
/// Where the endpoints are and what they can do, for client libraries.
#[utoipa::path(
    get,
    path = "/.well-known/oauth-authorization-server",
    tag = "OAuth",
    responses(
        (status = 200, description = "The metadata", body = AuthorizationServerMetadata),
        OpenErrors,
    )
)]
pub async fn get_metadata(
    State(control_plane): State<ControlPlane>,
) -> (
    [(HeaderName, &'static str); 1],
    Json<AuthorizationServerMetadata>,
) {
    let metadata = AuthorizationServerMetadata::of(&control_plane.settings().base_url);
    ([(CACHE_CONTROL, "public, max-age=3600")], Json(metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_endpoints_are_the_ones_that_are_told() {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        let base = "https://api.example";
        let metadata = serde_json::to_value(AuthorizationServerMetadata::of(base)).unwrap();
        for (name, value) in metadata.as_object().unwrap() {
            if name.ends_with("_endpoint") {
                let path = value.as_str().unwrap().strip_prefix(base).unwrap();
                assert!(document["paths"].get(path).is_some(), "{name}: {path}");
            }
        }
        assert_eq!(metadata["issuer"], base);
        assert_eq!(metadata["scopes_supported"][0], "user:read");
    }
}
