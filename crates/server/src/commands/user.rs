//! `insforge-cloud user …`.

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use cp_domain::Profile;
use cp_domain::people::UserSummary;
use cp_model::UserId;
use cp_tokens::secret::random_text;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde_json::json;

use super::output::{columns, confirm, properties, show, time, time_or_dash};
use crate::cli::UserCommand;
use crate::config::Config;

/// About 119 bits.
const PASSWORD_LENGTH: usize = 20;

/// An account as operators see it.
#[derive(Serialize)]
struct Shown<'a> {
    id: UserId,
    email: &'a str,
    name: &'a str,
    email_verified: bool,
    created_at: DateTime<Utc>,
    /// Told by those commands alone that change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled: Option<bool>,
}

/// The same in a list.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    user: Shown<'a>,
    has_password: bool,
    disabled_at: Option<DateTime<Utc>>,
}

impl<'a> Shown<'a> {
    fn of(user: &'a Profile) -> Self {
        Self {
            id: user.id,
            email: &user.email,
            name: &user.name,
            email_verified: user.email_verified,
            created_at: user.created_at,
            disabled: None,
        }
    }
}

impl<'a> Listed<'a> {
    fn of(user: &'a UserSummary) -> Self {
        Self {
            user: Shown::of(&user.profile),
            has_password: user.has_password,
            disabled_at: user.disabled_at,
        }
    }
}

pub async fn run(config: &Config, command: UserCommand) -> anyhow::Result<()> {
    let control_plane = super::open(config).await?;
    match command {
        UserCommand::Create {
            email,
            name,
            password_file,
            output,
        } => {
            let given = password_file
                .map(|path| {
                    std::fs::read_to_string(&path)
                        .map(|text| SecretString::from(text.trim_end_matches(['\r', '\n'])))
                        .with_context(|| format!("cannot read {}", path.display()))
                })
                .transpose()?;
            let made = given.is_none().then(|| random_text(PASSWORD_LENGTH));
            let Some(password) = given.as_ref().or(made.as_ref()) else {
                anyhow::bail!("there is no password");
            };
            let user = control_plane.create_user(&name, &email, password).await?;
            let mut shown = json!({ "id": user, "email": email });
            if let Some(made) = &made {
                shown["password"] = json!(made.expose_secret());
            }
            show(output, &shown, || {
                let mut lines = vec![("id", user.to_string()), ("email", email.clone())];
                if let Some(made) = &made {
                    lines.push(("password", made.expose_secret().to_owned()));
                    lines.push((
                        "",
                        "The password is shown this once; keep it now.".to_owned(),
                    ));
                }
                properties(&lines)
            })
        }
        UserCommand::List { limit, output } => {
            let users = control_plane.list_users(limit).await?;
            let shown: Vec<_> = users.iter().map(Listed::of).collect();
            show(output, &shown, || table(&shown))
        }
        UserCommand::Verify { email, output } => {
            let user = control_plane.verify_user(&email).await?;
            show(output, &Shown::of(&user), || {
                format!("{} is verified now", user.email)
            })
        }
        UserCommand::Disable {
            email,
            confirm: asked,
            output,
        } => {
            confirm(&format!("Lock {email} out, everywhere and at once?"), asked)?;
            let user = control_plane.disable_user(&email, true).await?;
            let shown = Shown {
                disabled: Some(true),
                ..Shown::of(&user)
            };
            show(output, &shown, || {
                let email = &user.email;
                format!("{email} is locked out; `user enable --email {email}` ends that")
            })
        }
        UserCommand::Enable { email, output } => {
            let user = control_plane.disable_user(&email, false).await?;
            let shown = Shown {
                disabled: Some(false),
                ..Shown::of(&user)
            };
            show(output, &shown, || {
                format!("{} may sign in again", user.email)
            })
        }
        UserCommand::SetPlan { user, plan, output } => {
            let has = control_plane.set_user_plan(user, plan).await?;
            show(output, &json!({ "id": user, "plan": has }), || {
                format!("user {user} is on the {has} plan now")
            })
        }
    }
}

fn table(users: &[Listed<'_>]) -> String {
    let yes = |holds| if holds { "yes" } else { "no" }.to_owned();
    let rows: Vec<_> = users
        .iter()
        .map(|listed| {
            let user = &listed.user;
            [
                user.id.to_string(),
                user.email.to_owned(),
                user.name.to_owned(),
                yes(user.email_verified),
                yes(listed.has_password),
                time_or_dash(listed.disabled_at),
                time(user.created_at),
            ]
        })
        .collect();
    columns(
        [
            "ID", "EMAIL", "NAME", "VERIFIED", "PASSWORD", "DISABLED", "CREATED",
        ],
        &rows,
    )
}
