//! The keys that sign project authorizations, and the key set at `/.well-known/jwks.json` by which
//! project backends verify them.
//!
//! - [`SigningKey`]: making a key. [`Jwk`], [`Jwks`]: its public half on the wire.
//! - [`Signer`]: signing with it, RS256.
//! - [`ProjectAuthorization`]: what is signed. [`verify`]: the other end.
//! - [`plan_rotation`]: which key is published, signs, or goes, and when. Pure; the worker's
//!   rotation job carries the plan out in one transaction.
//! - [`Keyring`]: the keys of one process, loaded from the database and replaced as a whole
//!   whenever the rows change. The domain signs with it, the api publishes its [`Jwks`].

mod authorization;
mod jwk;
mod rotation;
mod signer;
mod verify;

pub use authorization::{
    BlankUserId, NewProjectAuthorization, PROJECT_AUTHORIZATION_LIFETIME, ProjectAuthorization,
    TokenType,
};
pub use jwk::{Jwk, JwkAlgorithm, JwkUse, Jwks, KeyType};
pub use rotation::{
    JWKS_CACHE_LIFETIME, KeyRecord, KeyState, PolicyError, RotationPlan, RotationPolicy,
    UnknownKeyState, plan_rotation,
};
pub use signer::{GenerateError, SignError, Signer, SignerError, SigningKey};
pub use verify::{Expected, verify};

use serde::Serialize;

/// A key as the database has it, with the private half where it is to sign.
pub struct KeyInRing {
    pub kid: String,
    pub state: KeyState,
    pub public_jwk: Jwk,
    /// Needed for the active key only: the others' private halves may stay sealed.
    pub signer: Option<Signer>,
}

/// Why a set of keys makes no keyring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    #[error("no signing key is active; run the key rotation")]
    NoActiveKey,
    #[error("signing keys {0} and {1} are both active; retire one")]
    SeveralActiveKeys(String, String),
    #[error("active signing key {0} came without its private half")]
    NoSigner(String),
    /// Every token would be refused by everyone, so nothing is signed at all.
    #[error("the private half of signing key {0} does not belong to its public half")]
    Mismatch(String),
}

/// The signing keys of one process: exactly one signs, all that are not retired are published.
pub struct Keyring {
    active: Signer,
    jwks: Jwks,
}

impl Keyring {
    pub fn new(keys: Vec<KeyInRing>) -> Result<Self, KeyringError> {
        let published = keys.iter().filter(|key| key.state.is_published());
        let jwks = Jwks::new(published.map(|key| key.public_jwk.clone()));

        let mut active: Option<Signer> = None;
        for key in keys {
            if key.state != KeyState::Active {
                continue;
            }
            if let Some(other) = &active {
                return Err(KeyringError::SeveralActiveKeys(
                    other.kid().to_owned(),
                    key.kid,
                ));
            }
            let Some(signer) = key.signer else {
                return Err(KeyringError::NoSigner(key.kid));
            };
            let belongs = signer.kid() == key.kid
                && key.public_jwk.kid == key.kid
                && signer.is_private_half_of(&key.public_jwk);
            if !belongs {
                return Err(KeyringError::Mismatch(key.kid));
            }
            active = Some(signer);
        }
        let active = active.ok_or(KeyringError::NoActiveKey)?;
        Ok(Self { active, jwks })
    }

    /// Signs with the active key: a compact JWS.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, SignError> {
        self.active.sign(claims)
    }

    pub fn active_kid(&self) -> &str {
        self.active.kid()
    }

    /// What `/.well-known/jwks.json` answers. The same rows give the same bytes in every process,
    /// so that an ETag made of them agrees.
    pub fn jwks(&self) -> &Jwks {
        &self.jwks
    }
}

#[cfg(test)]
mod tests;
