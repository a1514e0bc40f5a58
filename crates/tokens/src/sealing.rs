//! Sealing at rest: what must be shown or used again (API keys, database passwords, private
//! signing keys) is stored encrypted. Storage and domain call it; nobody else sees a sealed value.
//!
//! AES-256-GCM with a random 96-bit nonce. A sealed value describes itself:
//!
//! ```text
//! version (1 byte) | length of key id (1 byte) | key id | nonce (12 bytes) | ciphertext | tag (16 bytes)
//! ```
//!
//! Everything before the nonce, and the caller's context, is associated data: a value copied into
//! another row or column, or relabelled with another key id, does not open.
//!
//! Rotation: a new key becomes the primary and the former one goes to the older keys. Old values
//! still open; [`Sealer::needs_reseal`] names those to write anew; then the old key can go.
//! NIST SP 800-38D section 8.3 allows 2^32 values per key with random nonces.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, ExposeSecretMut as _, SecretString};

use crate::{SecretBytes, random};

const VERSION: u8 = 1;
const TAG_LEN: usize = 16;
const KEY_LEN: usize = 32;
const MAX_ID_LEN: usize = 32;

/// Base64 as `openssl rand -base64 32` writes it; the padding may be missing.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a sealing key, or a set of them, cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealingKeyError {
    #[error("a sealing key is written id:base64")]
    MissingId,
    #[error("the id of a sealing key has 1 to 32 characters of a-z, 0-9 and -")]
    InvalidId,
    #[error("sealing key {0} must be 32 bytes in base64")]
    InvalidKey(String),
    #[error("two sealing keys have the id {0}; give each its own")]
    DuplicateId(String),
}

/// Why a sealed value does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("sealed with key {0}, which is not configured; add it to the older sealing keys")]
    UnknownKey(String),
    #[error("not a sealed value")]
    Malformed,
    /// Changed bytes, another context than it was sealed for, or another key under the same id.
    #[error("the sealed value was changed, moved, or sealed with another key of the same id")]
    Tampered,
    #[error("the sealed value is not text")]
    NotText,
}

/// A key and the name under which sealed values refer to it.
pub struct SealingKey {
    id: String,
    key: Zeroizing<[u8; KEY_LEN]>,
}

impl SealingKey {
    /// # Errors
    /// [`SealingKeyError::InvalidId`] unless `id` is 1 to 32 of `[a-z0-9-]`.
    pub fn new(id: &str, key: [u8; KEY_LEN]) -> Result<Self, SealingKeyError> {
        let key = Zeroizing::new(key);
        if !is_key_id(id) {
            return Err(SealingKeyError::InvalidId);
        }
        Ok(Self {
            id: id.to_owned(),
            key,
        })
    }

    /// A new random key with a new random id, such as `k-4fz81q0c`.
    pub fn generate() -> Self {
        let id = random::text_from(b"abcdefghijklmnopqrstuvwxyz0123456789", 8);
        Self {
            id: format!("k-{}", id.expose_secret()),
            key: random::bytes(),
        }
    }

    /// Reads `id:base64`, as configuration and key files hold it. Whitespace around it is ignored.
    pub fn parse(text: &str) -> Result<Self, SealingKeyError> {
        let (id, encoded) = text
            .trim()
            .split_once(':')
            .ok_or(SealingKeyError::MissingId)?;
        if !is_key_id(id) {
            return Err(SealingKeyError::InvalidId);
        }
        let invalid = || SealingKeyError::InvalidKey(id.to_owned());
        let decoded = Zeroizing::new(BASE64.decode(encoded).map_err(|_| invalid())?);
        let key = <[u8; KEY_LEN]>::try_from(decoded.as_slice()).map_err(|_| invalid())?;
        Self::new(id, key)
    }

    /// What [`SealingKey::parse`] reads.
    pub fn to_secret_text(&self) -> SecretString {
        let encoded = Zeroizing::new(BASE64.encode(self.key.as_slice()));
        SecretString::from(format!("{}:{}", self.id, encoded.as_str()))
    }

    pub fn id(&self) -> &str {
        &self.id
    }
}

fn is_key_id(id: &str) -> bool {
    (1..=MAX_ID_LEN).contains(&id.len())
        && id
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// Seals with the primary key, opens with any. Key schedules are made once, so that opening costs
/// about a microsecond.
pub struct Sealer {
    /// The first is the primary.
    keys: Vec<ScheduledKey>,
}

struct ScheduledKey {
    id: String,
    /// The head of every value sealed with this key: version, id length, id.
    head: Vec<u8>,
    cipher: LessSafeKey,
    /// What other keys are derived from.
    root: Prk,
}

impl Sealer {
    /// # Errors
    /// [`SealingKeyError::DuplicateId`]: values name their key by id alone.
    pub fn new(primary: SealingKey, older: Vec<SealingKey>) -> Result<Self, SealingKeyError> {
        let mut keys: Vec<ScheduledKey> = Vec::with_capacity(1 + older.len());
        for key in std::iter::once(primary).chain(older) {
            if keys.iter().any(|known| known.id == key.id) {
                return Err(SealingKeyError::DuplicateId(key.id));
            }
            keys.push(ScheduledKey::new(key)?);
        }
        Ok(Self { keys })
    }

    fn primary(&self) -> &ScheduledKey {
        // `new` puts the primary first and nothing removes a key.
        &self.keys[0]
    }

    pub fn primary_key_id(&self) -> &str {
        &self.primary().id
    }

    /// A key of 32 bytes for another purpose, one per sealing key and named like it, the primary's
    /// first (HKDF, RFC 5869, with `purpose` as info). Whoever rotates the sealing key so rotates
    /// these, too, and what was made with the former ones is still recognised.
    pub fn derived_keys(&self, purpose: &str) -> Vec<(String, SecretBytes)> {
        self.keys
            .iter()
            .map(|key| {
                let mut derived = SecretBytes::from(vec![0; KEY_LEN]);
                key.root
                    .expand(&[purpose.as_bytes()], HKDF_SHA256)
                    .and_then(|okm| okm.fill(derived.expose_secret_mut()))
                    // Refused only for more than 255 hashes' length (RFC 5869 section 2.3).
                    .expect("HKDF gives 32 bytes");
                (key.id.clone(), derived)
            })
            .collect()
    }

    /// Encrypts for one place: `context` names it (`project:<id>:api_key`) and must be given again
    /// to open.
    pub fn seal(&self, plaintext: &[u8], context: &str) -> Vec<u8> {
        let key = self.primary();
        let mut nonce = [0; NONCE_LEN];
        random::fill(&mut nonce);

        // The full capacity at once: growing would leave copies of the plaintext behind.
        let capacity = key.head.len() + NONCE_LEN + plaintext.len() + TAG_LEN;
        let mut sealed = Vec::with_capacity(capacity);
        sealed.extend_from_slice(&key.head);
        sealed.extend_from_slice(&nonce);
        let body = sealed.len();
        sealed.extend_from_slice(plaintext);

        let tag = key
            .cipher
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated_data(&key.head, context)),
                &mut sealed[body..],
            )
            // AES-GCM refuses only what is longer than 2^36 bytes (SP 800-38D section 5.2.1.1):
            // more than is ever held in memory here.
            .expect("AES-GCM seals every length that fits in memory");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Decrypts what [`Sealer::seal`] made for the same `context`.
    pub fn open(&self, sealed: &[u8], context: &str) -> Result<SecretBytes, SealError> {
        let parts = Parts::of(sealed)?;
        let key = self
            .keys
            .iter()
            .find(|key| key.id == parts.key_id)
            .ok_or_else(|| SealError::UnknownKey(parts.key_id.to_owned()))?;

        let mut plaintext = SecretBytes::from(vec![0; parts.ciphertext.len()]);
        key.cipher
            .open_separate_gather(
                Nonce::assume_unique_for_key(parts.nonce),
                Aad::from(associated_data(&key.head, context)),
                parts.ciphertext,
                parts.tag,
                plaintext.expose_secret_mut(),
            )
            .map_err(|_| SealError::Tampered)?;
        Ok(plaintext)
    }

    /// [`Sealer::open`] for what was text.
    pub fn open_text(&self, sealed: &[u8], context: &str) -> Result<SecretString, SealError> {
        let plaintext = self.open(sealed, context)?;
        std::str::from_utf8(plaintext.expose_secret())
            .map(SecretString::from)
            .map_err(|_| SealError::NotText)
    }

    /// Whether to open and seal the value again so that an older key can be dropped. Also true for
    /// what is no sealed value: the job that reseals meets the error and reports it.
    pub fn needs_reseal(&self, sealed: &[u8]) -> bool {
        Parts::of(sealed).map_or(true, |parts| parts.key_id != self.primary().id)
    }
}

/// The id of the key that a value was sealed with. Needs no key.
///
/// # Errors
/// [`SealError::Malformed`]
pub fn key_id_of(sealed: &[u8]) -> Result<&str, SealError> {
    Parts::of(sealed).map(|parts| parts.key_id)
}

impl ScheduledKey {
    fn new(key: SealingKey) -> Result<Self, SealingKeyError> {
        let invalid = || SealingKeyError::InvalidKey(key.id.clone());
        let id_len = u8::try_from(key.id.len()).map_err(|_| SealingKeyError::InvalidId)?;
        let cipher = UnboundKey::new(&AES_256_GCM, key.key.as_slice()).map_err(|_| invalid())?;
        let mut head = vec![VERSION, id_len];
        head.extend_from_slice(key.id.as_bytes());
        Ok(Self {
            root: Salt::new(HKDF_SHA256, b"insforge").extract(key.key.as_slice()),
            id: key.id,
            head,
            cipher: LessSafeKey::new(cipher),
        })
    }
}

fn associated_data(head: &[u8], context: &str) -> Vec<u8> {
    // The head carries its own length, so no two pairs of head and context give the same bytes.
    [head, context.as_bytes()].concat()
}

/// A sealed value, taken apart.
struct Parts<'a> {
    key_id: &'a str,
    nonce: [u8; NONCE_LEN],
    ciphertext: &'a [u8],
    tag: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(sealed: &'a [u8]) -> Result<Self, SealError> {
        Self::split(sealed).ok_or(SealError::Malformed)
    }

    fn split(sealed: &'a [u8]) -> Option<Self> {
        let (&[version, id_len], rest) = sealed.split_first_chunk()?;
        if version != VERSION {
            return None;
        }
        let (key_id, rest) = rest.split_at_checked(usize::from(id_len))?;
        let key_id = std::str::from_utf8(key_id)
            .ok()
            .filter(|id| is_key_id(id))?;
        let (&nonce, rest) = rest.split_first_chunk()?;
        let (ciphertext, tag) = rest.split_at_checked(rest.len().checked_sub(TAG_LEN)?)?;
        Some(Self {
            key_id,
            nonce,
            ciphertext,
            tag,
        })
    }
}

#[cfg(test)]
mod derived_key_tests {
    use super::*;

    #[test]
    fn a_derived_key_belongs_to_its_sealing_key_and_purpose() {
        let key = |id| SealingKey::new(id, [7; KEY_LEN]).unwrap();
        let sealer = Sealer::new(key("b"), vec![SealingKey::generate()]).unwrap();
        let exposed = |purpose| -> Vec<(String, Vec<u8>)> {
            let keys = sealer.derived_keys(purpose).into_iter();
            keys.map(|(id, key)| (id, key.expose_secret().to_vec()))
                .collect()
        };
        let tokens = exposed("tokens");
        assert_eq!(tokens.len(), 2);
        assert_eq!(tokens[0].0, "b");
        assert_eq!(tokens, exposed("tokens"));
        assert_ne!(tokens[0].1, exposed("cookies")[0].1);
        assert_ne!(tokens[0].1, tokens[1].1);
        assert_ne!(tokens[0].1, vec![7; KEY_LEN]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(id: &str, byte: u8) -> SealingKey {
        SealingKey::new(id, [byte; KEY_LEN]).unwrap()
    }

    fn sealer() -> Sealer {
        Sealer::new(key("k2", 2), vec![key("k1", 1)]).unwrap()
    }

    fn open_error(sealer: &Sealer, sealed: &[u8], context: &str) -> SealError {
        sealer.open(sealed, context).err().unwrap()
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_for_the_same_context_only(
            plaintext in proptest::collection::vec(any::<u8>(), 0..300),
            context in ".{0,40}",
            other in ".{0,40}",
        ) {
            let sealer = sealer();
            let sealed = sealer.seal(&plaintext, &context);
            let opened = sealer.open(&sealed, &context).unwrap();
            prop_assert_eq!(opened.expose_secret(), &plaintext[..]);
            if other != context {
                prop_assert_eq!(open_error(&sealer, &sealed, &other), SealError::Tampered);
            }
        }

        #[test]
        fn no_changed_bit_goes_unnoticed(
            plaintext in proptest::collection::vec(any::<u8>(), 0..60),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let sealer = sealer();
            let mut sealed = sealer.seal(&plaintext, "here");
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(sealer.open(&sealed, "here").is_err());
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(sealer().open(&bytes, "").is_err());
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let sealer = sealer();
        let sealed = sealer.seal(b"value", "here");
        for len in 0..sealed.len() {
            assert!(
                sealer.open(&sealed[..len], "here").is_err(),
                "{len} bytes opened"
            );
        }
    }

    #[test]
    fn sealing_twice_gives_different_bytes_and_never_the_plaintext() {
        let sealer = sealer();
        let (one, two) = (
            sealer.seal(b"ik_secret", "c"),
            sealer.seal(b"ik_secret", "c"),
        );
        assert_ne!(one, two);
        assert!(!one.windows(9).any(|window| window == b"ik_secret"));
    }

    #[test]
    fn rotation_opens_old_values_and_tells_which_to_reseal() {
        let before = Sealer::new(key("k1", 1), vec![]).unwrap();
        let old = before.seal(b"value", "here");
        let after = sealer();
        assert_eq!(
            after.open_text(&old, "here").unwrap().expose_secret(),
            "value"
        );
        assert!(after.needs_reseal(&old));

        let plaintext = after.open(&old, "here").unwrap();
        let new = after.seal(plaintext.expose_secret(), "here");
        assert!(!after.needs_reseal(&new));
        assert_eq!(key_id_of(&new).unwrap(), "k2");
        assert_eq!(
            open_error(&before, &new, "here"),
            SealError::UnknownKey("k2".into())
        );
    }

    #[test]
    fn another_key_under_the_same_id_is_noticed() {
        let sealed = sealer().seal(b"value", "here");
        let impostor = Sealer::new(key("k2", 9), vec![]).unwrap();
        assert_eq!(open_error(&impostor, &sealed, "here"), SealError::Tampered);
    }

    #[test]
    fn bytes_that_are_no_text_are_reported_as_such() {
        let sealer = sealer();
        let sealed = sealer.seal(&[0xff, 0xfe], "here");
        assert_eq!(
            sealer.open_text(&sealed, "here").err(),
            Some(SealError::NotText)
        );
    }

    #[test]
    fn what_is_no_sealed_value_is_malformed_and_asks_for_attention() {
        assert_eq!(
            open_error(&sealer(), b"plain text", ""),
            SealError::Malformed
        );
        assert!(sealer().needs_reseal(b"plain text"));
    }

    #[test]
    fn a_key_survives_being_written_and_read() {
        let key = SealingKey::generate();
        let text = key.to_secret_text();
        let read = SealingKey::parse(&format!(" {}\n", text.expose_secret())).unwrap();
        assert_eq!(read.id(), key.id());
        assert_eq!(*read.key, *key.key);
        assert_ne!(*SealingKey::generate().key, *key.key);

        let unpadded = text.expose_secret().trim_end_matches('=');
        assert_eq!(*SealingKey::parse(unpadded).unwrap().key, *key.key);
    }

    #[test]
    fn bad_keys_are_refused_with_their_reason() {
        let refused = |text: &str| SealingKey::parse(text).err().unwrap();
        assert_eq!(refused("AAAA"), SealingKeyError::MissingId);
        assert_eq!(refused(":AAAA"), SealingKeyError::InvalidId);
        assert_eq!(refused("Upper:AAAA"), SealingKeyError::InvalidId);
        assert_eq!(
            refused(&format!("{}:AAAA", "a".repeat(33))),
            SealingKeyError::InvalidId
        );
        assert_eq!(
            refused("short:AAAA"),
            SealingKeyError::InvalidKey("short".into())
        );
        assert_eq!(
            refused("k:not base64"),
            SealingKeyError::InvalidKey("k".into())
        );
        assert_eq!(
            Sealer::new(key("k1", 1), vec![key("k1", 2)]).err(),
            Some(SealingKeyError::DuplicateId("k1".into()))
        );
    }

    #[test]
    fn an_error_never_repeats_the_key() {
        let text = "k:c2VjcmV0LWtleS1tYXRlcmlhbA==";
        let error = SealingKey::parse(text).err().unwrap();
        assert!(!format!("{error} {error:?}").contains("c2Vj"));
    }
}
