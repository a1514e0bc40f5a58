//! "Sign in with InsForge", as applications see it: the public document (seeds/oauth-server.md),
//! and the command-line client's page (contract/platform-api.md, sections 4 to 6).

mod clients;
mod command_line;
mod devices;
mod flow;
mod lifetimes;
mod limits;

use cp_model::CLI_CLIENT_ID;
use cp_tests::{App, RelyingParty};

const DEVICE: &str = "/api/oauth/v1/device_authorization";
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The command-line client (platform-api.md, 5).
async fn command_line(app: &App) -> RelyingParty {
    RelyingParty {
        client_id: CLI_CLIENT_ID.into(),
        redirect_uri: "http://127.0.0.1:53121/callback".into(),
        scope: "user:read organizations:read projects:read projects:write".into(),
        ..app.public_relying_party().await
    }
}
