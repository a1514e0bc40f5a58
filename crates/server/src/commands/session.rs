//! `insforge-cloud session …`.

use serde_json::json;

use super::output::{confirm, show};
use crate::cli::SessionCommand;
use crate::config::Config;

pub async fn run(config: &Config, command: SessionCommand) -> anyhow::Result<()> {
    let control_plane = super::open(config).await?;
    match command {
        SessionCommand::Revoke {
            email,
            confirm: asked,
            output,
        } => {
            confirm(&format!("Sign {email} out everywhere?"), asked)?;
            let revoked = control_plane.revoke_sessions(&email).await?;
            show(
                output,
                &json!({ "email": email, "revoked": revoked }),
                || match revoked {
                    0 => format!("{email} was signed in nowhere"),
                    1 => format!("{email} is signed out of the one place where they were"),
                    n => format!("{email} is signed out of all {n} places"),
                },
            )
        }
    }
}
