//! A partner, a user and two OAuth clients to try things with, made on the first run and written to
//! `demo.json`.

use anyhow::Context as _;
use cp_domain::oauth::{ClientCredentials, NewOAuthClient};
use cp_domain::{Caller, ControlPlane, DomainError, NewPartner};
use cp_model::{ClientKind, RequestId, Scopes};
use cp_tokens::secret::random_text;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::DevFolder;

pub(super) const FILE: &str = "demo.json";
const EMAIL: &str = "demo@insforge.local";
/// Enough for load tests.
const RATE_LIMIT: u32 = 1_000_000;
const OAUTH_RATE_LIMIT: u32 = 100_000;
/// Where applications on this computer take people back: the one in examples/, and any that listen
/// on a port of their own choice.
const REDIRECT_URIS: [&str; 3] = [
    "http://localhost:3000/auth/callback",
    "http://127.0.0.1/callback",
    "http://[::1]/callback",
];

/// What `demo.json` says. Holds secrets, so it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Demo {
    pub base_url: String,
    pub partner: DemoPartner,
    pub user: DemoUser,
    /// None only in a file that an older release wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth: Option<DemoOAuth>,
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

#[derive(Clone, Serialize, Deserialize)]
pub struct DemoOAuth {
    pub public_client_id: String,
    pub confidential_client_id: String,
    pub confidential_client_secret: String,
}

/// The demo data of this folder, which still work on this database; else new ones.
pub(super) async fn ensure(
    control_plane: &ControlPlane,
    folder: &DevFolder,
    base_url: &str,
) -> anyhow::Result<Demo> {
    let mut demo = match read(folder)? {
        Some(demo) if is_valid(control_plane, &demo.partner).await? => Demo {
            base_url: base_url.to_owned(),
            ..demo
        },
        _ => make(control_plane, base_url)
            .await
            .context("the demo data cannot be made")?,
    };
    let still_works = match &demo.oauth {
        Some(oauth) => takes_clients(control_plane, oauth).await?,
        None => false,
    };
    if !still_works {
        let oauth = make_clients(control_plane).await;
        demo.oauth = Some(oauth.context("the demo's OAuth clients cannot be made")?);
    }
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

/// The same of the OAuth clients. A disabled one is left so: somebody tries that.
async fn takes_clients(control_plane: &ControlPlane, oauth: &DemoOAuth) -> anyhow::Result<bool> {
    let known = control_plane.list_oauth_clients().await?;
    let find = |id: &str| known.iter().find(|client| client.id.as_str() == id);
    let (Some(_), Some(confidential)) = (
        find(&oauth.public_client_id),
        find(&oauth.confidential_client_id),
    ) else {
        return Ok(false);
    };
    if confidential.disabled_at.is_some() {
        return Ok(true);
    }
    let credentials = ClientCredentials::Secret {
        client_id: oauth.confidential_client_id.clone(),
        secret: oauth.confidential_client_secret.clone().into(),
    };
    let caller = Caller {
        request_id: RequestId::generate(),
        address: None,
    };
    match control_plane
        .authenticate_client(&credentials, &caller)
        .await
    {
        Ok(_) => Ok(true),
        Err(DomainError::OAuth(_) | DomainError::Unauthorized) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn make_clients(control_plane: &ControlPlane) -> anyhow::Result<DemoOAuth> {
    let client = |name: &str, kind| NewOAuthClient {
        name: name.to_owned(),
        kind,
        redirect_uris: REDIRECT_URIS.map(str::to_owned).to_vec(),
        scopes: Scopes::all(),
        first_party: false,
        device_grant: kind == ClientKind::Public,
        rate_limit: OAUTH_RATE_LIMIT,
        logo_url: None,
        color: None,
        homepage_url: None,
    };
    let (public, _) = control_plane
        .create_oauth_client(&client("Demo App", ClientKind::Public))
        .await?;
    let (confidential, secret) = control_plane
        .create_oauth_client(&client("Demo Server", ClientKind::Confidential))
        .await?;
    let secret = secret.context("a confidential client has a secret")?;
    Ok(DemoOAuth {
        public_client_id: public.id.to_string(),
        confidential_client_id: confidential.id.to_string(),
        confidential_client_secret: secret.expose_secret().to_owned(),
    })
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
        oauth: None,
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
            oauth: Some(DemoOAuth {
                public_client_id: "clf_1".into(),
                confidential_client_id: "clf_2".into(),
                confidential_client_secret: "ics_2".into(),
            }),
        };
        assert_eq!(
            serde_json::to_value(&demo).unwrap(),
            serde_json::json!({
                "base_url": "http://127.0.0.1:8080",
                "partner": { "id": "ps_1", "secret": "ifps_1" },
                "user": { "email": "a@b.c", "password": "x" },
                "oauth": {
                    "public_client_id": "clf_1",
                    "confidential_client_id": "clf_2",
                    "confidential_client_secret": "ics_2",
                },
            })
        );
    }

    #[test]
    fn the_file_of_an_older_release_is_read_and_completed() {
        let older = serde_json::json!({
            "base_url": "http://127.0.0.1:8080",
            "partner": { "id": "ps_1", "secret": "ifps_1" },
            "user": { "email": "a@b.c", "password": "x" },
        });
        let demo: Demo = serde_json::from_value(older).unwrap();
        assert!(demo.oauth.is_none());
        assert_eq!(demo.partner.id, "ps_1");
    }

    #[test]
    fn the_demo_clients_redirects_may_be_registered() {
        for uri in REDIRECT_URIS {
            assert!(
                cp_model::oauth::check_redirect_uri("redirect_uri", uri).is_ok(),
                "{uri}"
            );
        }
    }
}
