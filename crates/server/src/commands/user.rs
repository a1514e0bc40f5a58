//! `insforge-cloud user …`.

use anyhow::Context as _;
use cp_tokens::secret::random_text;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::output::{properties, show};
use crate::cli::UserCommand;
use crate::config::Config;

/// About 119 bits.
const PASSWORD_LENGTH: usize = 20;

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
            anyhow::ensure!(
                password.expose_secret().chars().count() >= 8,
                "the password must have at least 8 characters"
            );
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
        UserCommand::SetPlan { user, plan, output } => {
            control_plane.set_user_plan(user, plan).await?;
            show(output, &json!({ "id": user, "plan": plan }), || {
                format!("user {user} is on the {plan} plan now")
            })
        }
    }
}
