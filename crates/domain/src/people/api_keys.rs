//! People's API keys (`uak_…`): shown once, for programs that act as the person.

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::field::{self, FieldError};
use cp_model::{ApiKeyId, Scopes};
use cp_storage::api_keys::{self, ApiKeyRecord};
use cp_storage::{StorageError, accounts};
use cp_tokens::secret::{OpaqueSecret, SecretKind};
use secrecy::SecretString;
use serde_json::json;

use super::mail_texts;
use crate::{Caller, ControlPlane, Credential, DomainError, DomainResult, Thing, UserCaller};

/// More than anybody needs, and few enough to look through.
const MOST_KEYS: i64 = 100;
const MOST_DAYS: u32 = 3650;
/// When a key was last used is known to this.
const USED_EVERY: TimeDelta = TimeDelta::minutes(1);

/// What a person decides about a new key.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// 1 to 100 characters.
    pub name: String,
    /// None: everything that the person may do.
    pub scopes: Option<Scopes>,
    /// 1 to 3650; none: the key lives until it is revoked.
    pub expires_in_days: Option<u32>,
}

/// What a person sees of a key after it was made.
#[derive(Debug, Clone)]
pub struct ApiKeySummary {
    pub id: ApiKeyId,
    pub name: String,
    /// Its last four characters.
    pub hint: String,
    pub scopes: Option<Scopes>,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub last_used_at: Option<DateTime<Utc>>,
}

impl From<ApiKeyRecord> for ApiKeySummary {
    fn from(key: ApiKeyRecord) -> Self {
        Self {
            id: key.id,
            name: key.name,
            hint: key.hint,
            scopes: key.scopes,
            created_at: key.created_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
        }
    }
}

impl ControlPlane {
    /// Makes a key; its secret is shown this once. The person is told by mail: a key outlives the
    /// session of whoever made it.
    pub async fn create_api_key(
        &self,
        by: &UserCaller,
        new: &NewApiKey,
    ) -> DomainResult<(ApiKeySummary, SecretString)> {
        by.require_everything()?;
        let name = field::person_name("name", &new.name)?;
        if new.scopes.as_ref().is_some_and(Scopes::is_empty) {
            return Err(FieldError::new("scopes", "must name at least one scope").into());
        }
        let now = self.now();
        let expires_at = match new.expires_in_days {
            Some(days) if (1..=MOST_DAYS).contains(&days) => {
                Some(now + TimeDelta::days(i64::from(days)))
            }
            Some(_) => {
                let rule = format!("must be 1 to {MOST_DAYS} days");
                return Err(FieldError::new("expires_in_days", rule).into());
            }
            None => None,
        };
        let secret = OpaqueSecret::generate(SecretKind::UserApiKey);
        let key = ApiKeyRecord {
            id: ApiKeyId::generate(),
            name,
            // Part of the checksum, which anybody can compute who has the rest.
            hint: secret.expose()[secret.expose().len() - 4..].to_owned(),
            scopes: new.scopes.clone(),
            created_at: now,
            expires_at,
            last_used_at: None,
        };
        let mut tx = self.db().begin().await?;
        // Locked: the limit holds for keys made at once, and the address may have been proven, or
        // the account disabled, since the request came in.
        let user = accounts::lock_user(&mut tx, by.user.id)
            .await?
            .filter(|user| user.disabled_at.is_none())
            .ok_or(DomainError::Unauthorized)?;
        self.check_still_signed_in(&mut tx, by).await?;
        if user.email_verified_at.is_none() {
            return Err(DomainError::EmailNotVerified);
        }
        if api_keys::count_keys(&mut tx, user.id).await? >= MOST_KEYS {
            return Err(DomainError::Conflict(format!(
                "There are {MOST_KEYS} API keys. Revoke one that is not used any more."
            )));
        }
        api_keys::insert_key(&mut tx, user.id, &key, secret.hash().as_bytes()).await?;
        let mail = mail_texts::api_key_created(&user.name, &key.name, &self.settings().base_url);
        self.queue_mail(&mut tx, &user.email, mail, None).await?;
        let target = key.id.to_string();
        let details = json!({
            "scopes": key.scopes.as_ref().map(Scopes::to_texts),
            "expires_at": key.expires_at,
        });
        self.audit_by_user(
            &mut tx,
            by,
            "api_key.created",
            ("api_key", &target),
            details,
        )
        .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok((key.into(), secret.into_secret_string()))
    }

    /// The person's keys that are not revoked, the newest first; expired ones too.
    pub async fn list_api_keys(&self, by: &UserCaller) -> DomainResult<Vec<ApiKeySummary>> {
        by.require_everything()?;
        let mut conn = self.db().acquire().await?;
        let keys = api_keys::list_keys(&mut conn, by.user.id).await?;
        Ok(keys.into_iter().map(ApiKeySummary::from).collect())
    }

    pub async fn revoke_api_key(&self, by: &UserCaller, id: ApiKeyId) -> DomainResult<()> {
        by.require_everything()?;
        let mut tx = self.db().begin().await?;
        if !api_keys::mark_revoked(&mut tx, by.user.id, id, self.now()).await? {
            return Err(DomainError::NotFound(Thing::ApiKey));
        }
        let target = id.to_string();
        self.audit_by_user(
            &mut tx,
            by,
            "api_key.revoked",
            ("api_key", &target),
            json!({}),
        )
        .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(())
    }

    /// Who presents this key. Unknown, revoked and expired ones, and those of disabled accounts,
    /// are refused alike.
    pub async fn authenticate_api_key(
        &self,
        key: &str,
        caller: &Caller,
    ) -> DomainResult<UserCaller> {
        let secret = OpaqueSecret::parse(SecretKind::UserApiKey, key)
            .map_err(|_| DomainError::Unauthorized)?;
        let now = self.now();
        let mut conn = self.db().acquire().await?;
        let key = api_keys::find_key(&mut conn, secret.hash().as_bytes(), now)
            .await?
            .ok_or(DomainError::Unauthorized)?;
        if key.last_used_at.is_none_or(|at| now - at >= USED_EVERY) {
            api_keys::mark_used(&mut conn, key.id, now).await?;
        }
        Ok(UserCaller {
            user: key.user.into(),
            credential: Credential::ApiKey {
                id: key.id,
                scopes: key.scopes,
            },
            caller: caller.clone(),
        })
    }
}
