//! `insforge-cloud site …`: what projects' backends deploy sites with.

use std::path::Path;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use cp_domain::{SiteSettings, SiteSummary};
use cp_model::ProjectId;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::json;

use super::output::{confirm, properties, show, time};
use crate::cli::SiteCommand;
use crate::config::Config;

/// A site as operators see it: without its secrets.
#[derive(Serialize)]
struct Shown {
    project: ProjectId,
    team_id: String,
    vercel_project_id: String,
    token_expires_at: Option<DateTime<Utc>>,
    has_webhook_secret: bool,
    slug: Option<String>,
    domain: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<SiteSummary> for Shown {
    fn from(site: SiteSummary) -> Self {
        Self {
            project: site.project,
            team_id: site.team_id,
            vercel_project_id: site.vercel_project_id,
            token_expires_at: site.token_expires_at,
            has_webhook_secret: site.has_webhook_secret,
            slug: site.slug,
            domain: site.domain,
            created_at: site.created_at,
            updated_at: site.updated_at,
        }
    }
}

impl Shown {
    fn lines(&self) -> String {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let ends = self.token_expires_at.map(|at| {
            let ended = if at <= Utc::now() { " (over)" } else { "" };
            format!("{}{ended}", time(at))
        });
        let secret = if self.has_webhook_secret { "set" } else { "-" };
        properties(&[
            ("project", self.project.to_string()),
            ("team", self.team_id.clone()),
            ("vercel project", self.vercel_project_id.clone()),
            ("token ends", or_dash(&ends)),
            ("webhook secret", secret.to_owned()),
            ("slug", or_dash(&self.slug)),
            ("domain", or_dash(&self.domain)),
            ("created", time(self.created_at)),
            ("changed", time(self.updated_at)),
        ])
    }
}

pub async fn run(config: &Config, command: SiteCommand) -> anyhow::Result<()> {
    let control_plane = super::open(config).await?;
    match command {
        SiteCommand::Set(new) => {
            let token = read_secret(&new.token_file)?;
            let webhook_secret = new.webhook_secret_file.as_deref();
            let webhook_secret = webhook_secret.map(read_secret).transpose()?;
            let settings = SiteSettings {
                team_id: &new.team_id,
                vercel_project_id: &new.vercel_project_id,
                token: &token,
                token_expires_at: new.expires_at,
                webhook_secret: webhook_secret.as_ref(),
            };
            let site = control_plane.set_site(new.project, &settings).await?;
            let shown = Shown::from(site);
            show(new.output, &shown, || shown.lines())
        }
        SiteCommand::Show { project, output } => {
            let shown = Shown::from(control_plane.show_site(project).await?);
            show(output, &shown, || shown.lines())
        }
        SiteCommand::Remove {
            project,
            confirm: asked,
            output,
        } => {
            confirm(
                &format!("Let project {project} deploy its site no more, and free its slug?"),
                asked,
            )?;
            control_plane.remove_site(project).await?;
            show(
                output,
                &json!({ "project": project, "removed": true }),
                || {
                    format!(
                        "project {project} has no site any more; its backend may keep the token until it is restarted, so \
                         end the token at Vercel, too"
                    )
                },
            )
        }
    }
}

/// The file's one line.
fn read_secret(path: &Path) -> anyhow::Result<SecretString> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(SecretString::from(text.trim()))
}
