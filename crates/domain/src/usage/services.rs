//! Services of ours that post usage events, and the tokens that let them.

use chrono::{DateTime, Utc};
use cp_model::{FieldError, FieldResult, field};
use cp_storage::{StorageError, usage_tokens};
use cp_tokens::secret::{OpaqueSecret, SecretKind};
use secrecy::SecretString;
use serde_json::json;

use crate::{ControlPlane, DomainError, DomainResult, Thing};

pub use cp_storage::usage_tokens::UsageTokenSummary;

/// A service that has shown its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageService {
    pub name: String,
    /// What it may call itself in its events.
    pub sources: Vec<String>,
}

/// A token just made; it is shown this once.
pub struct NewUsageToken {
    pub name: String,
    pub sources: Vec<String>,
    pub token: SecretString,
    pub created_at: DateTime<Utc>,
}

/// 1 to 64 of `a-z 0-9 . _ -`.
pub(super) fn check_source(source: &str) -> FieldResult<()> {
    let well_formed = (1..=64).contains(&source.len())
        && source
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
    if well_formed {
        return Ok(());
    }
    Err(FieldError::new(
        "source",
        "must be 1 to 64 of a-z, 0-9, '.', '_' and '-'",
    ))
}

impl ControlPlane {
    /// Whose token this is. A malformed, unknown and revoked one are the same refusal.
    pub async fn authenticate_usage_service(&self, token: &str) -> DomainResult<UsageService> {
        let token = OpaqueSecret::parse(SecretKind::ServiceToken, token)
            .map_err(|_| DomainError::Unauthorized)?;
        let mut conn = self.db().acquire().await?;
        let found = usage_tokens::find_live(&mut conn, token.hash().as_bytes()).await?;
        let (name, sources) = found.ok_or(DomainError::Unauthorized)?;
        Ok(UsageService { name, sources })
    }

    /// For operators: lets a service post events under these sources.
    pub async fn create_usage_token(
        &self,
        name: &str,
        sources: &[String],
    ) -> DomainResult<NewUsageToken> {
        let name = field::person_name("name", name)?;
        if sources.is_empty() {
            return Err(FieldError::new("source", "is needed at least once").into());
        }
        for source in sources {
            check_source(source)?;
            if source == super::collect::SOURCE {
                return Err(FieldError::new("source", "is our own collector's").into());
            }
        }
        let token = OpaqueSecret::generate(SecretKind::ServiceToken);
        let now = self.now();
        let mut tx = self.db().begin().await?;
        let hash = token.hash();
        if !usage_tokens::insert_token(&mut tx, &name, sources, hash.as_bytes(), now).await? {
            return Err(DomainError::Conflict(format!(
                "there is a usage token named {name}; revoke it first, or choose another name"
            )));
        }
        let details = json!({ "sources": sources });
        self.audit_service(
            &mut tx,
            "operator",
            "usage_token.created",
            ("usage_token", &name),
            None,
            details,
        )
        .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(NewUsageToken {
            name,
            sources: sources.to_vec(),
            token: token.into_secret_string(),
            created_at: now,
        })
    }

    pub async fn list_usage_tokens(&self) -> DomainResult<Vec<UsageTokenSummary>> {
        let mut conn = self.db().acquire().await?;
        Ok(usage_tokens::list_tokens(&mut conn).await?)
    }

    /// For operators: the token stops working at once.
    pub async fn revoke_usage_token(&self, name: &str) -> DomainResult<()> {
        let mut tx = self.db().begin().await?;
        if !usage_tokens::mark_revoked(&mut tx, name, self.now()).await? {
            return Err(DomainError::NotFound(Thing::UsageToken));
        }
        self.audit_service(
            &mut tx,
            "operator",
            "usage_token.revoked",
            ("usage_token", name),
            None,
            json!({}),
        )
        .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(())
    }
}
