//! `GET /.well-known/jwks.json`: the public keys that verify our tokens (RFC 7517). Backends and
//! partners fetch it; they may keep it for five minutes, which is how long before its first use a
//! new key is published.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cp_domain::ControlPlane;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, StatusCode};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiState;
use crate::docs::errors::OpenErrors;
use crate::etag::is_known;
use crate::problem::Problem;

pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(get_jwks))
}

/// For the document: a JSON Web Key Set.
#[derive(ToSchema)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
struct JsonWebKeySet {
    keys: Vec<JsonWebKey>,
}

/// For the document: an RSA public key (RFC 7518 section 6.3).
#[derive(ToSchema)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
struct JsonWebKey {
    #[schema(example = "RSA")]
    kty: String,
    /// The `kid` in the header of the tokens that this key verifies.
    kid: String,
    #[schema(example = "RS256")]
    alg: String,
    #[schema(rename = "use", example = "sig")]
    purpose: String,
    /// Modulus, base64url.
    n: String,
    /// Exponent, base64url.
    #[schema(example = "AQAB")]
    e: String,
}

/// Get the signing keys
///
/// The public keys that verify project authorizations, as a JSON Web Key Set.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "Keys",
    responses(
        (status = 200, description = "The key set", body = JsonWebKeySet),
        (status = 304, description = "The key set is the one that `If-None-Match` names"),
        OpenErrors,
    )
)]
async fn get_jwks(
    State(control_plane): State<ControlPlane>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let published = control_plane.jwks();
    let etag = HeaderValue::from_str(&published.etag)
        .map_err(|_| Problem::internal("the key set's ETag is not a header value"))?;
    let mut response = if is_known(&headers, &published.etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let json = HeaderValue::from_static("application/json");
        ([(CONTENT_TYPE, json)], Body::from(published.json.clone())).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, etag);
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=300"),
    );
    Ok(response)
}
