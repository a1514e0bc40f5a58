//! Operators' commands: one file per noun. Each opens the database that the configuration names,
//! asks the domain for one verb and writes the result, as a table for people or JSON for programs.

pub mod doctor;
pub mod merge;
pub mod migrate;
pub mod oauth_client;
pub mod operation;
pub mod organization;
mod output;
pub mod partner;
mod partner_limit;
mod partner_statement;
mod partner_webhook;
pub mod project;
pub mod session;
pub mod signing_key;
pub mod usage;
pub mod usage_token;
pub mod user;

use anyhow::Context as _;
use cp_domain::{ControlPlane, DomainError, Thing};
use cp_storage::StorageError;
use serde_json::json;

use crate::config::Config;
use crate::plane;

/// The business, on a database that answers and has our schema.
async fn open(config: &Config) -> anyhow::Result<ControlPlane> {
    let database = plane::database(config, "command")?;
    let pending = database
        .pending_migrations()
        .await
        .map_err(DomainError::from)?;
    if pending > 0 {
        anyhow::bail!(
            "the database lacks {pending} migrations; run `insforge-cloud migrate` first"
        );
    }
    // No operator's verb puts our URL anywhere.
    let base_url = config
        .http
        .base_url
        .as_deref()
        .unwrap_or("http://127.0.0.1");
    plane::control_plane(config, database, base_url)
}

/// Writes why a command failed and what to do next, to stderr.
pub fn report_error(error: &anyhow::Error, json: bool) {
    let (message, hint) = (format!("{error:#}"), hint(error));
    if json {
        eprintln!("{}", json!({ "error": message, "hint": hint }));
        return;
    }
    eprintln!("error: {message}");
    if let Some(hint) = hint {
        eprintln!("  {hint}");
    }
}

/// What the domain cannot know: which command helps.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let error = error
        .chain()
        .find_map(|e| e.downcast_ref::<DomainError>())?;
    match error {
        DomainError::NotFound(Thing::Partner) => {
            Some("`insforge-cloud partner list` shows the partners there are")
        }
        DomainError::NotFound(Thing::Operation) => Some(
            "`insforge-cloud operation list` shows the operations there are; finished ones go after 90 days",
        ),
        DomainError::NotFound(Thing::Project) => {
            Some("only a project that lives and belongs to a person can be shared; check its id")
        }
        DomainError::NotFound(Thing::User) => {
            Some("`insforge-cloud user list` shows the accounts there are")
        }
        DomainError::NotFound(Thing::Organization) => {
            Some("`insforge-cloud organization list` shows the organizations there are")
        }
        DomainError::NotFound(Thing::Webhook) => {
            Some("`insforge-cloud partner webhook set` gives the partner one")
        }
        DomainError::NotFound(Thing::WebhookEvent) => Some(
            "`insforge-cloud partner webhook list` shows the events there are; done ones go after 30 days",
        ),
        DomainError::NotFound(Thing::UsageLimit) => {
            Some("`insforge-cloud partner limit list` shows the limits there are")
        }
        DomainError::NotFound(Thing::OAuthClient) => {
            Some("`insforge-cloud oauth-client list` shows the applications there are")
        }
        DomainError::Unavailable => Some(
            "check that Postgres runs and that database.url is right (`insforge-cloud doctor`); \
             the database of `insforge-cloud dev` runs only while dev does",
        ),
        _ => None,
    }
}

/// Connects and says in one line what is wrong if that fails.
async fn ping(database: &cp_storage::Database) -> anyhow::Result<()> {
    match database.ping().await {
        Ok(()) => Ok(()),
        Err(StorageError::Unavailable(cause)) => {
            Err(anyhow::anyhow!("{cause}")).context("it does not answer")
        }
        Err(error) => Err(error).context("it refuses us"),
    }
}
