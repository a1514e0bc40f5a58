//! `insforge-cloud partner …`.

use chrono::{DateTime, Utc};
use cp_domain::{NewPartner, PartnerCredentials};
use cp_model::Partner;
use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::output::{columns, confirm, properties, show, time, time_or_dash};
use super::{partner_limit, partner_statement, partner_webhook};
use crate::cli::{self, Model, Output, PartnerCommand};
use crate::config::Config;

/// A partner as operators see it. The secret is there only when it was just made.
#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    name: &'a str,
    model: &'static str,
    rate_limit: u32,
    trusted: bool,
    suspended_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_secret_until: Option<DateTime<Utc>>,
}

pub async fn run(config: &Config, command: PartnerCommand) -> anyhow::Result<()> {
    let control_plane = super::open(config).await?;
    match command {
        PartnerCommand::Create(new) => {
            let output = new.output;
            let created = control_plane.create_partner(&wanted(new)).await?;
            show_credentials(output, &created)
        }
        PartnerCommand::List(output) => {
            let partners = control_plane.list_partners().await?;
            let shown: Vec<_> = partners.iter().map(Shown::of).collect();
            show(output, &shown, || table(&shown))
        }
        PartnerCommand::RotateSecret {
            partner,
            overlap,
            output,
        } => {
            let rotated = control_plane
                .rotate_partner_secret(&partner, overlap.get())
                .await?;
            show_credentials(output, &rotated)
        }
        PartnerCommand::Suspend {
            partner,
            confirm: asked,
            output,
        } => {
            confirm(
                &format!("Refuse everything that partner {partner} asks for?"),
                asked,
            )?;
            let suspended = control_plane.suspend_partner(&partner, true).await?;
            show(output, &Shown::of(&suspended), || {
                format!("partner {partner} is suspended; `partner resume {partner}` ends that")
            })
        }
        PartnerCommand::Statement(command) => partner_statement::run(&control_plane, command).await,
        PartnerCommand::Webhook(command) => partner_webhook::run(&control_plane, command).await,
        PartnerCommand::Limit(command) => partner_limit::run(&control_plane, command).await,
        PartnerCommand::Resume { partner, output } => {
            let resumed = control_plane.suspend_partner(&partner, false).await?;
            show(output, &Shown::of(&resumed), || {
                format!("partner {partner} is no longer suspended")
            })
        }
    }
}

fn wanted(new: cli::NewPartner) -> NewPartner {
    NewPartner {
        name: new.partner_name.or(new.name).unwrap_or_default(),
        co_branded: new.model != Model::WhiteLabel,
        white_label: new.model != Model::CoBranded,
        rate_limit: new.rate_limit,
        trusted: new.trusted,
    }
}

impl<'a> Shown<'a> {
    fn of(partner: &'a Partner) -> Self {
        Self {
            id: partner.id.as_str(),
            name: &partner.name,
            model: match (partner.co_branded, partner.white_label) {
                (true, true) => "both",
                (true, false) => "co_branded",
                (false, _) => "white_label",
            },
            rate_limit: partner.rate_limit,
            trusted: partner.trusted,
            suspended_at: partner.suspended_at,
            created_at: partner.created_at,
            secret: None,
            previous_secret_until: None,
        }
    }
}

fn table(partners: &[Shown<'_>]) -> String {
    let rows: Vec<_> = partners
        .iter()
        .map(|p| {
            [
                p.id.to_owned(),
                p.name.to_owned(),
                p.model.to_owned(),
                format!("{}/min", p.rate_limit),
                if p.trusted { "yes" } else { "no" }.to_owned(),
                time_or_dash(p.suspended_at),
                time(p.created_at),
            ]
        })
        .collect();
    columns(
        [
            "ID",
            "NAME",
            "MODEL",
            "RATE LIMIT",
            "TRUSTED",
            "SUSPENDED",
            "CREATED",
        ],
        &rows,
    )
}

fn show_credentials(output: Output, credentials: &PartnerCredentials) -> anyhow::Result<()> {
    let shown = Shown {
        secret: Some(credentials.secret.expose_secret()),
        previous_secret_until: credentials.previous_until,
        ..Shown::of(&credentials.partner)
    };
    show(output, &shown, || {
        let mut lines = vec![
            ("id", shown.id.to_owned()),
            ("name", shown.name.to_owned()),
            ("secret", shown.secret.unwrap_or_default().to_owned()),
        ];
        if let Some(until) = shown.previous_secret_until {
            lines.push(("old secret", format!("goes on until {}", time(until))));
        }
        format!(
            "{}\n\nThe secret is shown this once and cannot be read again; keep it now.",
            properties(&lines)
        )
    })
}
