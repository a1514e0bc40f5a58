//! Secrets that the control plane makes: opaque tokens that it later recognises by their hash
//! ([`OpaqueSecret`]), keys and passwords that it hands to a project's machine, and names that
//! must not be guessed. The domain makes them, api and agent parse what callers present.
//!
//! An opaque secret is `prefix` + 43 characters (256 random bits in base 62) + 6 characters
//! (CRC32 of all before, base 62). The prefix tells people and secret scanners what leaked; the
//! checksum lets them tell a real secret from look-alikes, and refuses typing errors without a
//! look at the database. It is no protection: anyone can compute it.

use aws_lc_rs::{constant_time, digest, hmac};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use crate::{SecretBytes, random};

const ALPHANUMERIC: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const LOWERCASE: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";
const LOWERCASE_OR_DIGIT: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const LOWERCASE_HEX: &[u8; 16] = b"0123456789abcdef";

/// The fewest digits of base 62 that hold 256 bits: 62^43 > 2^256.
const BODY_LEN: usize = 43;
/// The fewest digits of base 62 that hold 32 bits.
const CHECKSUM_LEN: usize = 6;

/// What an opaque secret opens; decides its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecretKind {
    /// `X-Partnership-Secret` of a partner.
    PartnerSecret,
    /// What the agent on a machine authenticates with after it has registered.
    AgentToken,
    /// Single use, in a machine's user-data, buys the agent token.
    BootstrapToken,
    /// A user's own API key.
    UserApiKey,
    /// Secret of a confidential OAuth client.
    ClientSecret,
    /// OAuth authorization code.
    AuthorizationCode,
    /// OAuth refresh token.
    RefreshToken,
    /// OAuth device code (RFC 8628).
    DeviceCode,
    /// Session cookie of the server-rendered pages.
    BrowserSession,
    /// Single use, in a mailed link: verify an address, reset a password, accept an invitation.
    MailToken,
    /// What services that post usage events authenticate with.
    ServiceToken,
    /// What a partner checks the signatures of webhooks with.
    WebhookSecret,
}

impl SecretKind {
    pub const ALL: [Self; 12] = [
        Self::PartnerSecret,
        Self::AgentToken,
        Self::BootstrapToken,
        Self::UserApiKey,
        Self::ClientSecret,
        Self::AuthorizationCode,
        Self::RefreshToken,
        Self::DeviceCode,
        Self::BrowserSession,
        Self::MailToken,
        Self::ServiceToken,
        Self::WebhookSecret,
    ];

    pub const fn prefix(self) -> &'static str {
        match self {
            Self::PartnerSecret => "ifps_",
            Self::AgentToken => "iat_",
            Self::BootstrapToken => "ibt_",
            Self::UserApiKey => "uak_",
            Self::ClientSecret => "ics_",
            Self::AuthorizationCode => "iac_",
            Self::RefreshToken => "irt_",
            Self::DeviceCode => "idc_",
            Self::BrowserSession => "ibs_",
            Self::MailToken => "imt_",
            Self::ServiceToken => "ist_",
            Self::WebhookSecret => "whsec_",
        }
    }
}

/// The text is no secret of the kind asked for: wrong prefix, length, characters or checksum. No
/// detail, since the caller answers as to an unknown secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret is malformed; check that it was copied completely")]
pub struct MalformedSecret;

/// A secret in full. Shown once to whom it is for; only its [`SecretHash`] is stored.
pub struct OpaqueSecret {
    kind: SecretKind,
    text: SecretString,
}

impl OpaqueSecret {
    pub fn generate(kind: SecretKind) -> Self {
        Self::from_bits(kind, &random::bytes())
    }

    /// The secret that belongs to `input`: always the same for the same key, and not to be guessed
    /// without the key (HMAC-SHA256). For the successor of a refresh token, which a retry must get
    /// again although only its hash is stored.
    ///
    /// `key` wants 32 random bytes, used for nothing else; `input` must be unique per secret.
    pub fn derive(kind: SecretKind, key: &SecretBytes, input: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose_secret());
        let mut context = hmac::Context::with_key(&key);
        // The kind takes part, so that one input never gives two kinds the same body. No prefix
        // continues another, because each ends at its only underscore.
        context.update(kind.prefix().as_bytes());
        context.update(input);
        let mut bits = Zeroizing::new([0; 32]);
        bits.copy_from_slice(context.sign().as_ref());
        Self::from_bits(kind, &bits)
    }

    fn from_bits(kind: SecretKind, bits: &[u8; 32]) -> Self {
        let prefix = kind.prefix();
        let mut text = Zeroizing::new(String::with_capacity(text_len(kind)));
        text.push_str(prefix);
        push_base62(&mut text, bits, BODY_LEN);
        let checksum = crc32fast::hash(text.as_bytes());
        push_base62(&mut text, &checksum.to_be_bytes(), CHECKSUM_LEN);
        Self {
            kind,
            text: SecretString::from(text.as_str()),
        }
    }

    /// Reads what a caller presents. Says nothing about whether it was ever issued: look up its
    /// [`OpaqueSecret::hash`] for that.
    pub fn parse(kind: SecretKind, text: &str) -> Result<Self, MalformedSecret> {
        let body = text.strip_prefix(kind.prefix()).ok_or(MalformedSecret)?;
        if text.len() != text_len(kind) || !body.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(MalformedSecret);
        }
        let (covered, checksum) = text.split_at(text.len() - CHECKSUM_LEN);
        let mut expected = String::with_capacity(CHECKSUM_LEN);
        push_base62(
            &mut expected,
            &crc32fast::hash(covered.as_bytes()).to_be_bytes(),
            CHECKSUM_LEN,
        );
        if checksum != expected {
            return Err(MalformedSecret);
        }
        Ok(Self {
            kind,
            text: SecretString::from(text),
        })
    }

    pub fn kind(&self) -> SecretKind {
        self.kind
    }

    /// SHA-256, without salt or stretching: those protect secrets that people choose. Among 2^256
    /// equally likely ones there is no dictionary to try and no table to prepare, and a plain hash
    /// can be looked up by an index and costs a request nothing.
    pub fn hash(&self) -> SecretHash {
        SecretHash(hash_bytes(self.expose().as_bytes()))
    }

    /// The secret itself, for the one answer that shows it.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    pub fn into_secret_string(self) -> SecretString {
        self.text
    }
}

const fn text_len(kind: SecretKind) -> usize {
    kind.prefix().len() + BODY_LEN + CHECKSUM_LEN
}

/// Appends the big-endian number `bytes` in base 62, most significant digit first, `width` digits
/// (which must be enough).
fn push_base62(text: &mut String, bytes: &[u8], width: usize) {
    let mut number = Zeroizing::new(bytes.to_vec());
    let mut digits = Zeroizing::new(vec![0; width]);
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0;
        for byte in number.iter_mut() {
            let value = remainder * 256 + u32::from(*byte);
            // Below 256, because the remainder is below 62.
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            remainder = value % 62;
        }
        *digit = ALPHANUMERIC[remainder as usize];
    }
    text.extend(digits.iter().map(|&digit| char::from(digit)));
}

/// SHA-256 of an [`OpaqueSecret`], as stored. Not secret; compare it by [`SecretHash::matches`].
#[derive(Clone, Copy)]
pub struct SecretHash(pub [u8; 32]);

impl SecretHash {
    /// Constant time, so that the time of an answer tells nothing about a stored hash.
    pub fn matches(&self, other: &Self) -> bool {
        constant_time_eq(&self.0, &other.0)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// From a `bytea` column.
impl TryFrom<&[u8]> for SecretHash {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self)
    }
}

/// SHA-256.
pub fn hash_bytes(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// Compares in a time that depends on the lengths only, not on the contents.
pub fn constant_time_eq(one: &[u8], other: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}

/// A project's API key: `ik_` and 32 lowercase hex digits (128 bits).
pub fn generate_api_key() -> SecretString {
    prefixed_hex("ik_")
}

/// A project's anonymous key: `anon_` and 32 lowercase hex digits.
pub fn generate_anon_key() -> SecretString {
    prefixed_hex("anon_")
}

fn prefixed_hex(prefix: &str) -> SecretString {
    let hex = random::text_from(LOWERCASE_HEX, 32);
    SecretString::from([prefix, hex.expose_secret()].concat())
}

/// `len` characters of `[0-9A-Za-z]`, 5.95 bits each: database passwords, `JWT_SECRET` (43 or
/// more gives 256 bits). Needs no quoting in shells, URLs, SQL or environment files.
pub fn random_text(len: usize) -> SecretString {
    random::text_from(ALPHANUMERIC, len)
}

/// `len` characters drawn evenly from an ASCII `alphabet` of 1 to 256 characters: codes that
/// people type.
pub fn random_text_from(alphabet: &[u8], len: usize) -> SecretString {
    random::text_from(alphabet, len)
}

/// Name of a project in its host `{appkey}.{region}.…`, in object keys and container names: ten
/// characters, a letter and then `[a-z0-9]` (a DNS label, RFC 1035 section 2.3.1). 51 bits, so
/// that projects cannot be found by trying names. Not secret, and not surely unique: a constraint
/// decides, and the caller draws again.
pub fn app_key() -> String {
    let first = random::text_from(LOWERCASE, 1);
    let rest = random::text_from(LOWERCASE_OR_DIGIT, 9);
    [first.expose_secret(), rest.expose_secret()].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_has_a_prefix_of_its_own_and_parses_as_itself_only() {
        let prefixes: HashSet<_> = SecretKind::ALL.map(SecretKind::prefix).into();
        assert_eq!(prefixes.len(), SecretKind::ALL.len());
        for kind in SecretKind::ALL {
            assert_eq!(kind.prefix().find('_'), Some(kind.prefix().len() - 1));
            let secret = OpaqueSecret::generate(kind);
            for other in SecretKind::ALL {
                let parsed = OpaqueSecret::parse(other, secret.expose());
                assert_eq!(parsed.is_ok(), kind == other, "{kind:?} as {other:?}");
            }
        }
    }

    #[test]
    fn a_partner_secret_has_the_form_that_scanners_look_for() {
        let secret = OpaqueSecret::generate(SecretKind::PartnerSecret);
        let body = secret.expose().strip_prefix("ifps_").unwrap();
        assert_eq!(body.len(), 49);
        assert!(body.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(secret.kind(), SecretKind::PartnerSecret);
    }

    #[test]
    fn the_hash_finds_the_same_secret_and_no_other() {
        let secret = OpaqueSecret::generate(SecretKind::AgentToken);
        let presented = OpaqueSecret::parse(SecretKind::AgentToken, secret.expose()).unwrap();
        assert!(secret.hash().matches(&presented.hash()));
        let stored = SecretHash::try_from(secret.hash().as_bytes()).unwrap();
        assert!(stored.matches(&presented.hash()));
        assert!(!stored.matches(&OpaqueSecret::generate(SecretKind::AgentToken).hash()));
        assert!(SecretHash::try_from(&[0u8; 31][..]).is_err());
    }

    proptest! {
        #[test]
        fn one_wrong_character_is_noticed(at in 0..53usize, with in "[0-9A-Za-z_ é]") {
            let secret = OpaqueSecret::generate(SecretKind::BootstrapToken);
            let mut text = secret.expose().to_owned();
            prop_assume!(text.len() == 53 && text[at..=at] != with);
            text.replace_range(at..=at, &with);
            prop_assert!(OpaqueSecret::parse(SecretKind::BootstrapToken, &text).is_err());
        }

        #[test]
        fn any_text_parses_or_is_refused_without_panic(text in "ifps_.{0,60}") {
            prop_assert!(OpaqueSecret::parse(SecretKind::PartnerSecret, &text).is_err());
        }

        #[test]
        fn base_62_is_positional(number in any::<u32>()) {
            let mut text = String::new();
            push_base62(&mut text, &number.to_be_bytes(), CHECKSUM_LEN);
            let back = text.bytes().fold(0u64, |sum, digit| {
                sum * 62 + ALPHANUMERIC.iter().position(|&known| known == digit).unwrap() as u64
            });
            prop_assert_eq!(back, u64::from(number));
        }
    }

    #[test]
    fn the_largest_number_fits_the_fixed_width() {
        // 2^256 - 1 in base 62, computed independently: the first digit is below the radix.
        let mut text = String::new();
        push_base62(&mut text, &[0xff; 32], BODY_LEN);
        let mut wider = String::new();
        push_base62(&mut wider, &[0xff; 32], BODY_LEN + 1);
        assert_eq!(wider, format!("0{text}"));
    }

    #[test]
    fn a_secret_cut_short_or_extended_is_refused() {
        let secret = OpaqueSecret::generate(SecretKind::UserApiKey);
        let parse = |text: &str| OpaqueSecret::parse(SecretKind::UserApiKey, text);
        assert!(parse(&secret.expose()[..52]).is_err());
        assert!(parse(&format!("{}0", secret.expose())).is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn derived_secrets_depend_on_key_input_and_kind() {
        let key = SecretBytes::from(vec![7; 32]);
        let derive =
            |kind, key, input: &[u8]| OpaqueSecret::derive(kind, key, input).expose().to_owned();
        let first = derive(SecretKind::RefreshToken, &key, b"token-1");
        assert_eq!(first, derive(SecretKind::RefreshToken, &key, b"token-1"));
        assert!(OpaqueSecret::parse(SecretKind::RefreshToken, &first).is_ok());
        assert_ne!(first, derive(SecretKind::RefreshToken, &key, b"token-2"));
        let other_key = SecretBytes::from(vec![8; 32]);
        assert_ne!(
            first,
            derive(SecretKind::RefreshToken, &other_key, b"token-1")
        );
        assert_ne!(
            first[4..47],
            derive(SecretKind::UserApiKey, &key, b"token-1")[4..47]
        );
    }

    #[test]
    fn project_keys_have_the_documented_form() {
        for (key, prefix) in [(generate_api_key(), "ik_"), (generate_anon_key(), "anon_")] {
            let hex = key.expose_secret().strip_prefix(prefix).unwrap();
            assert_eq!(hex.len(), 32);
            assert!(
                hex.bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            );
        }
        assert_ne!(
            generate_api_key().expose_secret(),
            generate_api_key().expose_secret()
        );
    }

    #[test]
    fn app_keys_are_dns_labels_and_differ() {
        let keys: HashSet<_> = (0..1000).map(|_| app_key()).collect();
        assert_eq!(keys.len(), 1000);
        for key in keys {
            assert_eq!(key.len(), 10);
            assert!(
                key.starts_with(|first: char| first.is_ascii_lowercase()),
                "{key}"
            );
            assert!(
                key.bytes().all(|byte| LOWERCASE_OR_DIGIT.contains(&byte)),
                "{key}"
            );
        }
    }

    #[test]
    fn hash_bytes_is_sha_256() {
        // FIPS 180-4, example "abc".
        assert_eq!(hash_bytes(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert!(constant_time_eq(b"same", b"same"));
        assert!(!constant_time_eq(b"same", b"some"));
        assert!(!constant_time_eq(b"same", b"same longer"));
    }
}
