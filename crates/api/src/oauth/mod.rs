//! The OAuth 2.0 interface (contract/oauth.md, seeds/oauth-server.md), one file per endpoint. The
//! page that `authorize` shows is in [`crate::pages`].

pub mod authorize;
mod client_auth;
mod device_authorization;
pub mod error;
mod introspect;
mod metadata;
mod params;
mod revoke;
mod token;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiState;

pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(token::issue_token))
        .routes(routes!(revoke::revoke_token))
        .routes(routes!(introspect::introspect_token))
        .routes(routes!(device_authorization::authorize_device))
        .routes(routes!(metadata::get_metadata))
}
