//! Who asks: what every verb wants to know about its caller.

use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use cp_model::{
    ApiKeyId, BrowserSessionId, ClientId, GrantId, Partner, RequestId, Scope, Scopes, UserId,
};
use cp_tokens::secret::hash_bytes;

use crate::{DomainError, DomainResult};

/// One request from outside.
#[derive(Debug, Clone)]
pub struct Caller {
    pub request_id: RequestId,
    pub address: Option<IpAddr>,
}

/// A request of an authenticated partner.
#[derive(Debug, Clone)]
pub struct PartnerCaller {
    pub partner: Arc<Partner>,
    pub caller: Caller,
}

impl PartnerCaller {
    /// How the audit log and operations name it.
    pub fn actor(&self) -> String {
        format!("partner:{}", self.partner.id)
    }
}

/// Who asks for something about a project: its partner, perhaps with an idempotency key, or somebody of its
/// organization.
#[derive(Clone, Copy)]
pub enum ProjectCaller<'a> {
    Partner(&'a PartnerCaller, Option<&'a IdempotentRequest>),
    Person(&'a UserCaller),
}

impl ProjectCaller<'_> {
    /// How the audit log and operations name it.
    pub fn actor(self) -> String {
        match self {
            Self::Partner(by, _) => by.actor(),
            Self::Person(by) => by.actor(),
        }
    }

    pub fn request_id(&self) -> &str {
        match self {
            Self::Partner(by, _) => by.caller.request_id.as_str(),
            Self::Person(by) => by.caller.request_id.as_str(),
        }
    }
}

/// What people and applications are told of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub id: UserId,
    pub email: String,
    pub name: String,
    pub avatar_url: Option<String>,
    pub email_verified: bool,
    pub created_at: DateTime<Utc>,
}

/// A request of a person, or of an application for one.
#[derive(Debug, Clone)]
pub struct UserCaller {
    pub user: Profile,
    pub credential: Credential,
    pub caller: Caller,
}

/// By what a person proved who they are.
#[derive(Debug, Clone)]
pub enum Credential {
    Browser(BrowserSessionId),
    ApiKey {
        id: ApiKeyId,
        /// None: everything that the person may do.
        scopes: Option<Scopes>,
    },
    AccessToken {
        grant: GrantId,
        client: ClientId,
        scopes: Scopes,
        /// Of an application of ours.
        first_party: bool,
        /// The token's own id.
        jti: String,
    },
}

impl UserCaller {
    /// How the audit log and operations name it.
    pub fn actor(&self) -> String {
        format!("user:{}", self.user.id)
    }

    /// Refuses a credential that was not given this scope; and, for more than to be known by name,
    /// an account whose address is not verified: it may be a stranger's until then.
    pub fn require(&self, scope: Scope) -> DomainResult<()> {
        if scope != Scope::UserRead {
            self.require_verified()?;
        }
        let has = match &self.credential {
            Credential::Browser(_) | Credential::ApiKey { scopes: None, .. } => true,
            Credential::ApiKey {
                scopes: Some(scopes),
                ..
            }
            | Credential::AccessToken { scopes, .. } => scopes.contains(scope),
        };
        if has {
            Ok(())
        } else {
            Err(DomainError::InsufficientScope {
                needed: scope.as_str(),
            })
        }
    }

    fn require_verified(&self) -> DomainResult<()> {
        match self.credential {
            Credential::AccessToken { .. } if !self.user.email_verified => {
                Err(DomainError::EmailNotVerified)
            }
            _ => Ok(()),
        }
    }

    /// Refuses a credential that stands for less than the person: what the four scopes do not
    /// name is open only to sessions, unrestricted keys and applications of ours.
    pub fn require_everything(&self) -> DomainResult<()> {
        self.require_verified()?;
        match &self.credential {
            Credential::Browser(_)
            | Credential::ApiKey { scopes: None, .. }
            | Credential::AccessToken {
                first_party: true, ..
            } => Ok(()),
            Credential::ApiKey { .. } | Credential::AccessToken { .. } => {
                Err(DomainError::InsufficientScope {
                    needed: "a session of the person",
                })
            }
        }
    }
}

/// A request that carries an `Idempotency-Key`.
#[derive(Debug, Clone)]
pub struct IdempotentRequest {
    pub key: String,
    pub fingerprint: [u8; 32],
}

/// What makes two requests the same: SHA-256 over method, path and body, each with its length, so
/// that no two different triples join to the same bytes.
pub fn fingerprint(method: &str, path: &str, body: &[u8]) -> [u8; 32] {
    let mut joined = Vec::with_capacity(method.len() + path.len() + body.len() + 24);
    for part in [method.as_bytes(), path.as_bytes(), body] {
        joined.extend_from_slice(&(part.len() as u64).to_be_bytes());
        joined.extend_from_slice(part);
    }
    hash_bytes(&joined)
}
