//! Making an RSA key and signing with it.
//!
//! Two libraries, on purpose. The `rsa` crate generates the key and gives its numbers, and does
//! nothing else: its private-key operations leak through their timing (Marvin,
//! RUSTSEC-2023-0071). Signatures come from AWS-LC, which works in constant time.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rsa::pkcs8::EncodePrivateKey as _;
use rsa::rand_core::OsRng;
use rsa::traits::PublicKeyParts as _;
use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::Jwk;
use crate::SecretBytes;

const MODULUS_BITS: usize = 2048;

#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    #[error("the RSA key could not be generated")]
    Generate(#[from] rsa::Error),
    #[error("the RSA key could not be encoded")]
    Encode(#[from] rsa::pkcs8::Error),
}

/// A key as it leaves generation: to be sealed and stored.
pub struct SigningKey {
    /// `insforge-key-` and the start of the key's thumbprint.
    pub kid: String,
    /// PKCS#8 DER.
    pub private_der: SecretBytes,
    pub public_jwk: Jwk,
}

impl SigningKey {
    /// A new RSA key of 2048 bits. Takes some 100 ms of one core: call it from a blocking thread.
    pub fn generate() -> Result<Self, GenerateError> {
        let key = rsa::RsaPrivateKey::new(&mut OsRng, MODULUS_BITS)?;
        let public_jwk = Jwk::from_numbers(&key.n().to_bytes_be(), &key.e().to_bytes_be());
        let private_der = SecretBytes::from(key.to_pkcs8_der()?.as_bytes().to_vec());
        Ok(Self {
            kid: public_jwk.kid.clone(),
            private_der,
            public_jwk,
        })
    }
}

/// The stored private key cannot be read: no PKCS#8, no RSA, below 2048 bits, or inconsistent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("signing key {kid} cannot be read: {reason}")]
pub struct SignerError {
    pub kid: String,
    /// A fixed word of AWS-LC, nothing of the key.
    pub reason: String,
}

#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("the claims could not be written as JSON")]
    Claims(#[from] serde_json::Error),
    #[error("the signature could not be made")]
    Signature,
}

/// Signs tokens with one key, RS256 (RFC 7518 section 3.3).
///
/// The key is parsed and checked once. jsonwebtoken 11 does both anew for every token; therefore
/// the token is put together here, at very nearly the speed of the bare signature.
pub struct Signer {
    kid: String,
    key: RsaKeyPair,
    /// The header, base64url, and the dot after it: the same for every token.
    header: String,
}

/// In this order, so that tokens of all releases look alike.
#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'static str,
    kid: &'a str,
}

impl Signer {
    pub fn from_pkcs8(kid: &str, private_der: &SecretBytes) -> Result<Self, SignerError> {
        let unreadable = |reason: String| SignerError {
            kid: kid.to_owned(),
            reason,
        };
        let key = RsaKeyPair::from_pkcs8(private_der.expose_secret())
            .map_err(|error| unreadable(error.to_string()))?;
        let header = serde_json::to_vec(&Header {
            alg: "RS256",
            typ: "JWT",
            kid,
        })
        .map_err(|error| unreadable(error.to_string()))?;
        let header = format!("{}.", URL_SAFE_NO_PAD.encode(header));
        Ok(Self {
            kid: kid.to_owned(),
            key,
            header,
        })
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Whether tokens of this signer verify with `jwk`.
    pub fn is_private_half_of(&self, jwk: &Jwk) -> bool {
        let public = self.key.public_key();
        let modulus = public.modulus().big_endian_without_leading_zero();
        let exponent = public.exponent().big_endian_without_leading_zero();
        jwk.n == URL_SAFE_NO_PAD.encode(modulus) && jwk.e == URL_SAFE_NO_PAD.encode(exponent)
    }

    /// A compact JWS (RFC 7515 section 7.1) of `claims`.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, SignError> {
        let claims = serde_json::to_vec(claims)?;
        let mut signature = vec![0; self.key.public_modulus_len()];

        let capacity = self.header.len() + (claims.len() + signature.len()) * 4 / 3 + 8;
        let mut token = String::with_capacity(capacity);
        token.push_str(&self.header);
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);

        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                token.as_bytes(),
                &mut signature,
            )
            .map_err(|_| SignError::Signature)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}
