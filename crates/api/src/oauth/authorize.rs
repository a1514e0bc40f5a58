//! `GET /api/oauth/v1/authorize` (RFC 6749 section 3.1) as the OpenAPI document describes it. It is
//! a page that people see: [`crate::pages`] serves it.

use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

/// Where applications send people.
pub const PATH: &str = "/api/oauth/v1/authorize";

/// For the document.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
struct AuthorizeQuery {
    #[param(example = "clf_abc123xyz")]
    client_id: String,
    /// One of those that are registered, to the letter; on 127.0.0.1 and [::1] with any port.
    #[param(example = "https://example.com/callback")]
    redirect_uri: String,
    /// Always `code`.
    #[param(example = "code")]
    response_type: String,
    /// Separated by spaces.
    #[param(example = "user:read organizations:read")]
    scope: String,
    /// Random; comes back unchanged.
    state: String,
    /// The base64url of the SHA-256 of `code_verifier` (RFC 7636).
    #[param(example = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")]
    code_challenge: String,
    /// Always `S256`.
    #[param(example = "S256")]
    code_challenge_method: String,
    /// `login` asks for the password again, `consent` for consent, `none` for nothing.
    #[param(required = false, nullable = false)]
    prompt: Option<String>,
}

/// Sign a person in
///
/// Open this in the person's browser. It leads back to `redirect_uri` with `code`, `state` and
/// `iss`, or with `error`, `error_description`, `state` and `iss`. At most 100 times a minute from
/// one address.
#[utoipa::path(
    get,
    path = "/api/oauth/v1/authorize",
    tag = "OAuth",
    params(AuthorizeQuery),
    responses(
        (status = 200, description = "A page: to sign in, or to consent"),
        (status = 303, description = "Back to the application, or on to the page to sign in"),
        (status = 400, description = "A page: the client or its redirect URI is not known, so nothing leads back"),
        (status = 429, description = "A page: over the rate limit"),
    )
)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
fn authorize() {}

#[derive(OpenApi)]
#[openapi(paths(authorize))]
pub struct AuthorizeDocument;
