//! The interface described: the OpenAPI document, made from the handlers that serve it, a page to
//! browse it, and a signpost at `/`.

pub mod errors;

use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use http::{HeaderValue, StatusCode};
use serde_json::json;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa::{OpenApi as _, PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::ApiState;
use crate::oauth::authorize::AuthorizeDocument;
use crate::oauth::error::OAuthErrorBody;
use crate::partner_auth::SECRET_HEADER;
use crate::problem::{PartnershipError, PlatformError};

/// The names under which the document knows the ways to authenticate.
const PARTNERSHIP_SECRET: &str = "partnership_secret";
const AGENT_TOKEN: &str = "agent_token";
const BEARER: &str = "bearer";
const CLIENT_SECRET: &str = "client_secret";
const SERVICE_TOKEN: &str = "service_token";
const SIGNATURE: &str = "signature";

const DESCRIPTION: &str = "\
Create and run backends for your users.

Partners authenticate with the header `X-Partnership-Secret`. Every answer tells in \
`X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` (seconds) what is left of the \
rate limit, and in `X-Request-Id` the name of the request in our logs. Send `Idempotency-Key` with \
a POST or DELETE of theirs to make it safe to repeat. What their projects used is also a page with \
charts: [ask for a link](#/Both%20models/create_usage_report_link), which any browser opens.

Applications sign people in with OAuth 2.0 (authorization code with PKCE, or the device flow); \
client libraries find everything at `/.well-known/oauth-authorization-server`. What they get is an \
access token for `Authorization: Bearer`.";

/// The OpenAPI 3.1 document of the public interface.
pub fn openapi() -> OpenApi {
    let mut document = OpenApiRouter::with_openapi(skeleton())
        .merge(crate::open_routes())
        .merge(crate::partnership::routes())
        .into_openapi();
    document.merge(AuthorizeDocument::openapi());
    document
}

/// All of the document that no handler owns.
fn skeleton() -> OpenApi {
    let mut schemas = vec![
        (
            PartnershipError::name().into_owned(),
            PartnershipError::schema(),
        ),
        (PlatformError::name().into_owned(), PlatformError::schema()),
        (
            OAuthErrorBody::name().into_owned(),
            OAuthErrorBody::schema(),
        ),
    ];
    PartnershipError::schemas(&mut schemas);
    let secret = ApiKeyValue::with_description(
        SECRET_HEADER,
        "The secret that came with your partner id. It begins with `ifps_`.",
    );
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The token that the machine's agent registered."))
        .build();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "An access token from the token endpoint, or an API key that begins with `uak_`. What a route asks of it \
             stands beside it: a scope; `account`, what stands for the whole person (a session, an API key without \
             limits, InsForge's own applications); `administrator`, somebody who is one in the organization.",
        ))
        .build();
    let client_secret = HttpBuilder::new()
        .scheme(HttpAuthScheme::Basic)
        .description(Some(
            "Client id and client secret. May be sent in the body instead; public clients send their id there alone.",
        ))
        .build();
    let service = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A usage token, made by an operator. It begins with `ist_`.",
        ))
        .build();
    let signature = ApiKeyValue::with_description(
        "sign",
        "HS256 by the project's `JWT_SECRET`, good for ten minutes and one call. Some calls carry it in the query or the body.",
    );
    let tag = |name: &str, text: &str| TagBuilder::new().name(name).description(Some(text)).build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("InsForge control plane")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(DESCRIPTION))
                .license(Some(
                    LicenseBuilder::new()
                        .name("Apache-2.0")
                        .identifier(Some("Apache-2.0"))
                        .build(),
                )),
        )
        .tags(Some([
            tag(
                "Co-branded",
                "Your users are InsForge users and own their projects.",
            ),
            tag(
                "White-label",
                "Your partnership owns the projects; your users never see InsForge.",
            ),
            tag("Both models", "Reading what your partnership has."),
            tag(
                "Organizations",
                "What people share projects in: who belongs to it, and as what.",
            ),
            tag("Projects", "The backends of your organizations."),
            tag(
                "Backups",
                "Copies of a project's database, to bring it back to.",
            ),
            tag("Billing", "What your organizations use and pay for."),
            tag("Diagnostics", "What may be wrong with a project."),
            tag("Integrations", "Services of others that projects use."),
            tag(
                "Branches",
                "Copies of a backend, to be changed and merged back.",
            ),
            tag("OAuth", "Sign in with InsForge."),
            tag("Accounts", "People: who they are, and how they log in."),
            tag("Keys", "Public keys that verify our tokens."),
            tag(
                "Usage",
                "For services of ours that count. Not for partners.",
            ),
            tag(
                "Backends",
                "For projects' own backends, signed with their secret. Not for partners.",
            ),
            tag("Agents", "For the agent on each machine. Not for partners."),
        ]))
        .components(Some(
            ComponentsBuilder::new()
                .schemas_from_iter(schemas)
                .security_scheme(
                    PARTNERSHIP_SECRET,
                    SecurityScheme::ApiKey(ApiKey::Header(secret)),
                )
                .security_scheme(AGENT_TOKEN, SecurityScheme::Http(token))
                .security_scheme(BEARER, SecurityScheme::Http(bearer))
                .security_scheme(SERVICE_TOKEN, SecurityScheme::Http(service))
                .security_scheme(SIGNATURE, SecurityScheme::ApiKey(ApiKey::Header(signature)))
                .security_scheme(CLIENT_SECRET, SecurityScheme::Http(client_secret))
                .build(),
        ))
        .build()
}

/// The document, its page and the signpost.
pub fn router() -> Router<ApiState> {
    // Serialised once: it cannot change while the process runs.
    let document = openapi().to_json().map(Bytes::from).ok();
    let document = get(move || std::future::ready(served(document.clone())));
    // Deep links, so that the description can lead to an operation.
    let config = Config::from("/openapi.json").deep_linking(true);
    Router::from(SwaggerUi::new("/docs").config(config))
        .route("/openapi.json", document)
        .route("/", get(signpost))
}

fn served(document: Option<Bytes>) -> Response {
    match document {
        Some(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn signpost() -> impl IntoResponse {
    Json(json!({
        "service": "InsForge control plane",
        "version": env!("CARGO_PKG_VERSION"),
        "documentation": "/docs",
        "openapi": "/openapi.json",
        "keys": "/.well-known/jwks.json",
    }))
}

/// For what browsers show.
pub async fn set_security_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

#[cfg(test)]
mod tests;
