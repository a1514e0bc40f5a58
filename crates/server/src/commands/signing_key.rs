//! `insforge-cloud signing-key …`.

use chrono::{DateTime, Utc};
use cp_domain::{ControlPlane, SigningKeySummary};
use serde::Serialize;
use serde_json::json;

use super::output::{columns, confirm, show, time, time_or_dash};
use crate::cli::{Output, SigningKeyCommand};
use crate::config::Config;

#[derive(Serialize)]
struct Shown {
    kid: String,
    state: &'static str,
    created_at: DateTime<Utc>,
    activated_at: Option<DateTime<Utc>>,
    retiring_since: Option<DateTime<Utc>>,
}

impl From<SigningKeySummary> for Shown {
    fn from(key: SigningKeySummary) -> Self {
        Self {
            kid: key.kid,
            state: key.state.as_str(),
            created_at: key.created_at,
            activated_at: key.activated_at,
            retiring_since: key.retiring_since,
        }
    }
}

pub async fn run(config: &Config, command: SigningKeyCommand) -> anyhow::Result<()> {
    let control_plane = super::open(config).await?;
    match command {
        SigningKeyCommand::List(output) => list(&control_plane, output, "").await,
        SigningKeyCommand::Rotate {
            immediately: true,
            output,
        } => {
            control_plane.rotate_signing_keys_at_once().await?;
            let note = "\n\nA new key signs now. Backends accept it within 30 seconds. To refuse the tokens of the \
                        old one, run: signing-key retire <kid>";
            list(&control_plane, output, note).await
        }
        SigningKeyCommand::Rotate { output, .. } => {
            control_plane.rotate_signing_keys(true).await?;
            let note = format!(
                "\n\nThe next key signs once it has been published for {}; a worker sees to that.",
                config.signing.publish_ahead
            );
            list(&control_plane, output, &note).await
        }
        SigningKeyCommand::Retire {
            kid,
            confirm: asked,
            output,
        } => {
            confirm(
                &format!("Refuse from now on every token that key {kid} has signed?"),
                asked,
            )?;
            control_plane.retire_signing_key(&kid).await?;
            show(output, &json!({ "kid": kid, "state": "retired" }), || {
                format!("key {kid} is no longer published")
            })
        }
    }
}

async fn list(control_plane: &ControlPlane, output: Output, note: &str) -> anyhow::Result<()> {
    let keys = control_plane.list_signing_keys().await?;
    let keys: Vec<Shown> = keys.into_iter().map(Shown::from).collect();
    show(output, &keys, || {
        let rows: Vec<_> = keys
            .iter()
            .map(|key| {
                [
                    key.kid.clone(),
                    key.state.to_owned(),
                    time(key.created_at),
                    time_or_dash(key.activated_at),
                    time_or_dash(key.retiring_since),
                ]
            })
            .collect();
        let headers = ["KID", "STATE", "CREATED", "ACTIVATED", "RETIRING SINCE"];
        columns(headers, &rows) + note
    })
}
