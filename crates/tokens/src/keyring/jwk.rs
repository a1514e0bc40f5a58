//! Public keys on the wire: JSON Web Key (RFC 7517, RFC 7518 section 6.3) and its thumbprint
//! (RFC 7638).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::secret::hash_bytes;

/// `kty`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyType {
    #[serde(rename = "RSA")]
    Rsa,
}

/// `use`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JwkUse {
    #[serde(rename = "sig")]
    Signature,
}

/// `alg`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JwkAlgorithm {
    #[serde(rename = "RS256")]
    Rs256,
}

/// The public half of a signing key. Also what the database stores of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    pub kty: KeyType,
    #[serde(rename = "use")]
    pub public_key_use: JwkUse,
    pub alg: JwkAlgorithm,
    pub kid: String,
    /// Modulus: big-endian, base64url without padding.
    pub n: String,
    /// Exponent: likewise.
    pub e: String,
}

impl Jwk {
    /// The key of these numbers (big-endian, no leading zeros), named after itself: two keys never
    /// share a `kid`, and the name can be checked.
    pub(super) fn from_numbers(modulus: &[u8], exponent: &[u8]) -> Self {
        let n = URL_SAFE_NO_PAD.encode(modulus);
        let e = URL_SAFE_NO_PAD.encode(exponent);
        let thumbprint = thumbprint(&n, &e);
        Self {
            kty: KeyType::Rsa,
            public_key_use: JwkUse::Signature,
            alg: JwkAlgorithm::Rs256,
            // 16 characters are 96 bits: no two keys ever made will meet.
            kid: format!("insforge-key-{}", &thumbprint[..16]),
            n,
            e,
        }
    }

    /// RFC 7638 with SHA-256.
    pub fn thumbprint(&self) -> String {
        thumbprint(&self.n, &self.e)
    }
}

fn thumbprint(n: &str, e: &str) -> String {
    // Section 3.3: the required members only, in lexicographic order, no whitespace. Base64url
    // needs no escapes.
    let canonical = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
    URL_SAFE_NO_PAD.encode(hash_bytes(canonical.as_bytes()))
}

/// A JWK set, RFC 7517 section 5. Ordered by `kid`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwks {
    pub keys: Vec<Jwk>,
}

impl Jwks {
    pub fn new(keys: impl IntoIterator<Item = Jwk>) -> Self {
        let mut keys: Vec<Jwk> = keys.into_iter().collect();
        keys.sort_by(|one, other| one.kid.cmp(&other.kid));
        Self { keys }
    }

    pub fn find(&self, kid: &str) -> Option<&Jwk> {
        self.keys.iter().find(|key| key.kid == kid)
    }
}
