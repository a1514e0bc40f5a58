//! All cryptography of the control plane: nothing else in the workspace touches a key, a hash
//! or a random byte that a secret is made of. No database, no HTTP, no clock: whoever calls
//! passes the time in.
//!
//! | module | what for | called by |
//! |---|---|---|
//! | [`secret`] | secrets that we make and later recognise by hash; project keys, app keys | domain, api, agent |
//! | [`sealing`] | what must be shown or used again, encrypted at rest | storage, domain |
//! | [`keyring`] | RS256 keys that sign project authorizations, their rotation, the JWKS | domain, worker |
//! | [`session`] | HS256 tokens that only we verify (access tokens, login state) | domain, api |
//! | [`password`] | password hashes | domain |
//! | [`pkce`] | RFC 7636 `S256` | domain |
//! | [`webhook`] | signatures under what webhooks are told | domain |
//!
//! Nothing that holds a secret implements `Debug` or `Display`; a test in this file keeps it so.

pub mod keyring;
pub mod password;
pub mod pkce;
pub mod sealing;
pub mod secret;
pub mod session;
pub mod webhook;

pub mod backend_signature;
mod jwt;
mod random;

pub use jwt::TokenError;

/// Bytes that are wiped when dropped and never printed.
pub type SecretBytes = secrecy::SecretSlice<u8>;

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Display};

    /// Compiles only while the type implements neither `Debug` nor `Display`: with one of them,
    /// two implementations of `Silent` fit and the compiler refuses to choose.
    macro_rules! assert_silent {
        ($($type:ty),+ $(,)?) => {$({
            trait Silent<Marker> {
                fn is_silent() -> bool {
                    true
                }
            }
            struct IfDebug;
            struct IfDisplay;
            impl<T: ?Sized> Silent<()> for T {}
            impl<T: ?Sized + Debug> Silent<IfDebug> for T {}
            impl<T: ?Sized + Display> Silent<IfDisplay> for T {}
            let _ = (IfDebug, IfDisplay);
            assert!(<$type as Silent<_>>::is_silent());
        })+};
    }

    #[test]
    fn nothing_that_holds_a_secret_can_be_printed() {
        assert_silent!(
            crate::sealing::SealingKey,
            crate::sealing::Sealer,
            crate::secret::OpaqueSecret,
            crate::session::SessionSecret,
            crate::session::SessionTokens,
            crate::keyring::SigningKey,
            crate::keyring::Signer,
            crate::keyring::KeyInRing,
            crate::keyring::Keyring,
        );
    }

    #[test]
    fn secret_strings_and_bytes_print_no_content() {
        let text = format!("{:?}", crate::secret::generate_api_key());
        assert!(!text.contains("ik_"), "{text}");
        let bytes = crate::SecretBytes::from(b"hunter2".to_vec());
        assert_eq!(format!("{bytes:?}"), "SecretBox<[u8]>([REDACTED])");
    }
}
