//! `/auth/v1`: signing in with e-mail and password as the command-line client and our own pages
//! do it (contract/platform-api.md section 4), and who is signed in.

mod login;
mod logout;
mod origin;
mod profile;
mod refresh;
mod refresh_cookie;
mod signup;
mod user;

use std::sync::Arc;

use cp_domain::oauth::ClientCredentials;
use cp_domain::{Caller, ControlPlane, DomainResult};
use cp_model::{CLI_CLIENT_ID, OAuthClient};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiState;

pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(profile::get_profile))
        .routes(routes!(login::log_in))
        .routes(routes!(signup::sign_up))
        .routes(routes!(refresh::refresh_session))
        .routes(routes!(logout::log_out))
}

/// The public client whose refresh token the cookie holds.
async fn command_line_client(
    control_plane: &ControlPlane,
    caller: &Caller,
) -> DomainResult<Arc<OAuthClient>> {
    let by_its_name = ClientCredentials::None {
        client_id: CLI_CLIENT_ID.to_owned(),
    };
    control_plane
        .authenticate_client(&by_its_name, caller)
        .await
}
