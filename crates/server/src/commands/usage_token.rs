//! `insforge-cloud usage-token …`.

use chrono::{DateTime, Utc};
use cp_domain::usage::UsageTokenSummary;
use secrecy::ExposeSecret as _;
use serde::Serialize;
use serde_json::json;

use super::output::{columns, confirm, properties, show, time, time_or_dash};
use crate::cli::UsageTokenCommand;
use crate::config::Config;

#[derive(Serialize)]
struct Shown {
    name: String,
    sources: Vec<String>,
    created_at: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
}

impl From<UsageTokenSummary> for Shown {
    fn from(token: UsageTokenSummary) -> Self {
        Self {
            name: token.name,
            sources: token.sources,
            created_at: token.created_at,
            revoked_at: token.revoked_at,
        }
    }
}

pub async fn run(config: &Config, command: UsageTokenCommand) -> anyhow::Result<()> {
    let control_plane = super::open(config).await?;
    match command {
        UsageTokenCommand::Create {
            name,
            sources,
            output,
        } => {
            let made = control_plane.create_usage_token(&name, &sources).await?;
            let token = made.token.expose_secret();
            let value = json!({
                "name": made.name, "sources": made.sources, "token": token, "created_at": made.created_at,
            });
            show(output, &value, || {
                let lines = [
                    ("name", made.name.clone()),
                    ("sources", made.sources.join(", ")),
                    ("token", token.to_owned()),
                ];
                format!(
                    "{}\n\nKeep the token now: it is not shown again.",
                    properties(&lines)
                )
            })
        }
        UsageTokenCommand::List(output) => {
            let tokens: Vec<Shown> = control_plane
                .list_usage_tokens()
                .await?
                .into_iter()
                .map(Into::into)
                .collect();
            show(output, &tokens, || table(&tokens))
        }
        UsageTokenCommand::Revoke {
            name,
            confirm: asked,
            output,
        } => {
            confirm(&format!("Refuse what {name} posts from now on?"), asked)?;
            control_plane.revoke_usage_token(&name).await?;
            show(output, &json!({ "name": name, "revoked": true }), || {
                format!("the token of {name} is revoked")
            })
        }
    }
}

fn table(tokens: &[Shown]) -> String {
    let rows: Vec<_> = tokens
        .iter()
        .map(|token| {
            [
                token.name.clone(),
                token.sources.join(", "),
                time(token.created_at),
                time_or_dash(token.revoked_at),
            ]
        })
        .collect();
    columns(["NAME", "SOURCES", "CREATED", "REVOKED"], &rows)
}
