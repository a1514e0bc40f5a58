//! Signatures under what partners' webhooks are told.

use std::fmt::Write as _;

use aws_lc_rs::hmac;
use secrecy::{ExposeSecret as _, SecretString};

/// HMAC-SHA256 of `<timestamp>.<body>` in lowercase hex. The key is the secret as its owner has
/// it, prefix included. The timestamp lets receivers refuse a request that somebody sends again
/// much later.
pub fn sign(secret: &SecretString, timestamp: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{timestamp}.").as_bytes());
    context.update(body);
    let tag = context.sign();
    tag.as_ref()
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            // Writing into a String does not fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected value is that of `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac whsec_test`.
    #[test]
    fn signs_as_openssl_does() {
        let secret = SecretString::from("whsec_test");
        assert_eq!(
            sign(&secret, 1_700_000_000, br#"{"a":1}"#),
            "38877139021993b830af32feea6e18a8da83eb2f6e49ee50bd9e4cf4ca4d3789"
        );
    }
}
