//! `insforge-cloud oauth-client …`.

use chrono::{DateTime, Utc};
use cp_domain::oauth::NewOAuthClient;
use cp_model::oauth::{ClientKind, OAuthClient};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::output::{columns, confirm, properties, show, time, time_or_dash};
use crate::cli::{self, OAuthClientCommand, Output, wanted_scopes};
use crate::config::Config;

/// A client as operators see it. The secret is there only when it was just made.
#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    name: &'a str,
    kind: &'static str,
    redirect_uris: &'a [String],
    scopes: Vec<String>,
    first_party: bool,
    device_grant: bool,
    rate_limit: u32,
    logo_url: Option<&'a str>,
    color: Option<&'a str>,
    homepage_url: Option<&'a str>,
    disabled_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_secret_until: Option<DateTime<Utc>>,
}

pub async fn run(config: &Config, command: OAuthClientCommand) -> anyhow::Result<()> {
    let control_plane = super::open(config).await?;
    match command {
        OAuthClientCommand::Create(new) => {
            let output = new.output;
            let (client, secret) = control_plane.create_oauth_client(&wanted(new)).await?;
            show_credentials(output, &client, secret.as_ref(), None)
        }
        OAuthClientCommand::List(output) => {
            let clients = control_plane.list_oauth_clients().await?;
            let shown: Vec<_> = clients.iter().map(Shown::of).collect();
            show(output, &shown, || table(&shown))
        }
        OAuthClientCommand::RotateSecret {
            client,
            overlap,
            output,
        } => {
            let (client, secret, previous_until) = control_plane
                .rotate_client_secret(&client, overlap.get())
                .await?;
            show_credentials(output, &client, Some(&secret), previous_until)
        }
        OAuthClientCommand::Disable {
            client,
            confirm: asked,
            output,
        } => {
            confirm(
                &format!("Refuse everything that {client} asks for, for all people?"),
                asked,
            )?;
            let disabled = control_plane.disable_oauth_client(&client, true).await?;
            show(output, &Shown::of(&disabled), || {
                format!("{client} is disabled; `oauth-client enable {client}` ends that")
            })
        }
        OAuthClientCommand::Enable { client, output } => {
            let enabled = control_plane.disable_oauth_client(&client, false).await?;
            show(output, &Shown::of(&enabled), || {
                format!("{client} is no longer disabled")
            })
        }
    }
}

fn wanted(new: cli::NewOAuthClient) -> NewOAuthClient {
    NewOAuthClient {
        name: new.name,
        kind: if new.kind.confidential {
            ClientKind::Confidential
        } else {
            ClientKind::Public
        },
        redirect_uris: new.redirect_uris,
        scopes: wanted_scopes(&new.scopes),
        first_party: new.first_party,
        device_grant: new.device,
        rate_limit: new.rate_limit,
        logo_url: new.logo_url,
        color: new.color,
        homepage_url: new.homepage_url,
    }
}

impl<'a> Shown<'a> {
    fn of(client: &'a OAuthClient) -> Self {
        Self {
            id: client.id.as_str(),
            name: &client.name,
            kind: client.kind.as_str(),
            redirect_uris: &client.redirect_uris,
            scopes: client.scopes.to_texts(),
            first_party: client.first_party,
            device_grant: client.device_grant,
            rate_limit: client.rate_limit,
            logo_url: client.logo_url.as_deref(),
            color: client.color.as_deref(),
            homepage_url: client.homepage_url.as_deref(),
            disabled_at: client.disabled_at,
            created_at: client.created_at,
            secret: None,
            previous_secret_until: None,
        }
    }
}

fn table(clients: &[Shown<'_>]) -> String {
    let yes = |holds| if holds { "yes" } else { "no" }.to_owned();
    let rows: Vec<_> = clients
        .iter()
        .map(|c| {
            [
                c.id.to_owned(),
                c.name.to_owned(),
                c.kind.to_owned(),
                yes(c.first_party),
                yes(c.device_grant),
                format!("{}/min", c.rate_limit),
                time_or_dash(c.disabled_at),
                c.redirect_uris.join(" "),
            ]
        })
        .collect();
    columns(
        [
            "ID",
            "NAME",
            "KIND",
            "FIRST PARTY",
            "DEVICE",
            "RATE LIMIT",
            "DISABLED",
            "REDIRECT URIS",
        ],
        &rows,
    )
}

fn show_credentials(
    output: Output,
    client: &OAuthClient,
    secret: Option<&SecretString>,
    previous_secret_until: Option<DateTime<Utc>>,
) -> anyhow::Result<()> {
    let shown = Shown {
        secret: secret.map(SecretString::expose_secret),
        previous_secret_until,
        ..Shown::of(client)
    };
    show(output, &shown, || {
        let mut lines = vec![
            ("id", shown.id.to_owned()),
            ("name", shown.name.to_owned()),
            ("kind", shown.kind.to_owned()),
            ("scopes", shown.scopes.join(" ")),
        ];
        lines.extend(
            shown
                .redirect_uris
                .iter()
                .map(|uri| ("redirect URI", uri.clone())),
        );
        if let Some(until) = shown.previous_secret_until {
            lines.push(("old secret", format!("goes on until {}", time(until))));
        }
        let Some(secret) = shown.secret else {
            return properties(&lines);
        };
        lines.push(("secret", secret.to_owned()));
        format!(
            "{}\n\nThe secret is shown this once and cannot be read again; keep it now.",
            properties(&lines)
        )
    })
}
