//! Encryption at rest as the real server does it (project-backend 5.6), so that the control
//! plane can read and write rows itself, and small helpers for random keys and comparisons.

use aes_gcm::{
    AesGcm, KeyInit, Nonce, Tag,
    aead::{AeadInOut, consts::U16, inout::InOutBuf},
    aes::Aes256,
};
use aws_lc_rs::{constant_time, digest, hmac, rand};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

/// AES-256-GCM with a 16-byte nonce: unusual, and what the stored rows have.
type Cipher = AesGcm<Aes256, U16>;

const NONCE_BYTES: usize = 16;
const TAG_BYTES: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealError {
    #[error("the stored value is not of the form hex:hex:hex")]
    Malformed,
    #[error("the stored value was encrypted with another ENCRYPTION_KEY")]
    WrongKey,
    #[error("no randomness")]
    Randomness,
}

/// Seals and opens `system.secrets.value_ciphertext`.
pub(crate) struct Vault {
    cipher: Cipher,
}

impl Vault {
    /// The key is the SHA-256 of the text of `ENCRYPTION_KEY`.
    pub fn new(encryption_key: &SecretString) -> Self {
        let key = digest::digest(&digest::SHA256, encryption_key.expose_secret().as_bytes());
        let mut bytes = Zeroizing::new([0_u8; 32]);
        bytes.copy_from_slice(key.as_ref());
        Self {
            cipher: Cipher::new((&*bytes).into()),
        }
    }

    /// `hex(nonce):hex(tag):hex(ciphertext)`.
    pub fn seal(&self, plain: &str) -> Result<String, SealError> {
        let nonce = random::<NONCE_BYTES>()?;
        let mut text = plain.as_bytes().to_vec();
        let tag = self
            .cipher
            .encrypt_inout_detached(
                &Nonce::<U16>::from(nonce),
                b"",
                InOutBuf::from(text.as_mut_slice()),
            )
            .map_err(|_| SealError::Malformed)?;
        Ok(format!(
            "{}:{}:{}",
            hex::encode(nonce),
            hex::encode(tag),
            hex::encode(text)
        ))
    }

    pub fn open(&self, sealed: &str) -> Result<SecretString, SealError> {
        let mut parts = sealed.split(':');
        let (Some(nonce), Some(tag), Some(text), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SealError::Malformed);
        };
        let mut nonce_bytes = [0; NONCE_BYTES];
        let mut tag_bytes = [0; TAG_BYTES];
        hex::decode_to_slice(nonce, &mut nonce_bytes).map_err(|_| SealError::Malformed)?;
        hex::decode_to_slice(tag, &mut tag_bytes).map_err(|_| SealError::Malformed)?;
        let mut plain = hex::decode(text).map_err(|_| SealError::Malformed)?;
        self.cipher
            .decrypt_inout_detached(
                &Nonce::<U16>::from(nonce_bytes),
                b"",
                InOutBuf::from(plain.as_mut_slice()),
                &Tag::<U16>::from(tag_bytes),
            )
            .map_err(|_| SealError::WrongKey)?;
        String::from_utf8(plain)
            .map(SecretString::from)
            .map_err(|_| SealError::Malformed)
    }
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| SealError::Randomness)?;
    Ok(bytes)
}

/// `{prefix}` and 64 hex digits, as the real server generates its keys.
pub(crate) fn random_key(prefix: &str) -> Result<SecretString, SealError> {
    Ok(SecretString::from(format!(
        "{prefix}{}",
        hex::encode(random::<32>()?)
    )))
}

/// Whether two secrets are equal, in a time that tells nothing about where they differ.
pub(crate) fn same_secret(left: &str, right: &str) -> bool {
    let hash = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    constant_time::verify_slices_are_equal(hash(left).as_ref(), hash(right).as_ref()).is_ok()
}

/// A keyed fingerprint of `message`, in hex.
pub(crate) fn fingerprint(key: &SecretString, message: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose_secret().as_bytes());
    hex::encode(hmac::sign(&key, message.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vault(key: &str) -> Vault {
        Vault::new(&SecretString::from(key))
    }

    #[test]
    fn what_node_sealed_is_opened() {
        // createCipheriv("aes-256-gcm", sha256("k" × 32), 00 01 … 0f) of Node's crypto.
        let sealed = concat!(
            "000102030405060708090a0b0c0d0e0f:",
            "7d671f7b945222d19aba9970c606a63f:",
            "0879bccafaa72d",
        );
        let key = "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk";
        assert_eq!(vault(key).open(sealed).unwrap().expose_secret(), "ik_test");
    }

    #[test]
    fn the_stored_form_is_nonce_tag_text_in_hex() {
        let sealed = vault("key").seal("ik_test").unwrap();
        let lengths: Vec<usize> = sealed.split(':').map(str::len).collect();
        assert_eq!(lengths, [32, 32, 14]);
    }

    #[test]
    fn another_key_and_garbage_are_told_apart() {
        let sealed = vault("one").seal("text").unwrap();
        assert_eq!(
            vault("two").open(&sealed).map(drop),
            Err(SealError::WrongKey)
        );
        assert_eq!(
            vault("one").open("zz:zz").map(drop),
            Err(SealError::Malformed)
        );
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in ".*") {
            let vault = vault("a key");
            let opened = vault.open(&vault.seal(&text).unwrap()).unwrap();
            prop_assert_eq!(opened.expose_secret(), text.as_str());
        }
    }
}
