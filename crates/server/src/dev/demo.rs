//! A partner and a user to try things with, made on the first run and written to `demo.json`.
//! OAuth clients will join them with the OAuth provider.

use anyhow::Context as _;
use cp_domain::{ControlPlane, DomainError, NewPartner};
use cp_tokens::secret::random_text;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::DevFolder;

pub(super) const FILE: &str = "demo.json";
const EMAIL: &str = "demo@insforge.local";
/// Enough for load tests.
const RATE_LIMIT: u32 = 1_000_000;

/// What `demo.json` says. Holds secrets, so it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Demo {
    pub base_url: String,
    pub partner: DemoPartner,
    pub user: DemoUser,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct DemoPartner {
    pub id: String,
    pub secret: String,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct DemoUser {
    pub email: String,
    pub password: String,
}

/// The demo data of this folder, which still work on this database; else new ones.
pub(super) async fn ensure(
    control_plane: &ControlPlane,
    folder: &DevFolder,
    base_url: &str,
) -> anyhow::Result<Demo> {
    let demo = match read(folder)? {
        Some(demo) if is_valid(control_plane, &demo.partner).await? => Demo {
            base_url: base_url.to_owned(),
            ..demo
        },
        _ => make(control_plane, base_url)
            .await
            .context("the demo data cannot be made")?,
    };
    folder.write(FILE, &(serde_json::to_string_pretty(&demo)? + "\n"))?;
    Ok(demo)
}

/// Where the `dev` before this one was reached.
pub(super) fn base_url_of_last_time(folder: &DevFolder) -> anyhow::Result<Option<String>> {
    Ok(read(folder)?.map(|demo| demo.base_url))
}

/// None also for a file that somebody spoilt: it is written anew.
fn read(folder: &DevFolder) -> anyhow::Result<Option<Demo>> {
    let text = folder.read(FILE)?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// The database may be another one than when the file was written.
async fn is_valid(control_plane: &ControlPlane, partner: &DemoPartner) -> anyhow::Result<bool> {
    match control_plane
        .authenticate_partner(&partner.id, Some(&partner.secret), None)
        .await
    {
        Ok(_) | Err(DomainError::PartnerSuspended) => Ok(true),
        Err(DomainError::Unauthorized) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn make(control_plane: &ControlPlane, base_url: &str) -> anyhow::Result<Demo> {
    let partner = NewPartner {
        name: "Demo".to_owned(),
        co_branded: true,
        white_label: true,
        rate_limit: RATE_LIMIT,
        trusted: false,
    };
    let created = control_plane.create_partner(&partner).await?;
    let password: SecretString = random_text(20);
    control_plane
        .create_user("Demo User", EMAIL, &password)
        .await?;
    Ok(Demo {
        base_url: base_url.to_owned(),
        partner: DemoPartner {
            id: created.partner.id.to_string(),
            secret: created.secret.expose_secret().to_owned(),
        },
        user: DemoUser {
            email: EMAIL.to_owned(),
            password: password.expose_secret().to_owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demo_json_has_the_form_that_the_documents_give() {
        let demo = Demo {
            base_url: "http://127.0.0.1:8080".into(),
            partner: DemoPartner {
                id: "ps_1".into(),
                secret: "ifps_1".into(),
            },
            user: DemoUser {
                email: "a@b.c".into(),
                password: "x".into(),
            },
        };
        assert_eq!(
            serde_json::to_value(&demo).unwrap(),
            serde_json::json!({
                "base_url": "http://127.0.0.1:8080",
                "partner": { "id": "ps_1", "secret": "ifps_1" },
                "user": { "email": "a@b.c", "password": "x" },
            })
        );
    }
}
