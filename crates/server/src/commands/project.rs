//! `insforge-cloud project …`.

use serde_json::json;

use super::output::show;
use crate::cli::ProjectCommand;
use crate::config::Config;

pub async fn run(config: &Config, command: ProjectCommand) -> anyhow::Result<()> {
    let control_plane = super::open(config).await?;
    match command {
        ProjectCommand::Share {
            project,
            partner,
            output,
        } => {
            control_plane.share_project(project, &partner).await?;
            show(
                output,
                &json!({ "project": project, "partner": partner }),
                || format!("partner {partner} can read the keys of project {project} now"),
            )
        }
    }
}
