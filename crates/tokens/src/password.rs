//! Passwords of people: argon2id, stored as PHC strings that carry salt and parameters. Called by
//! the domain's signup and login, from a blocking thread: one call takes tens of milliseconds and
//! 19 MiB.

use argon2::password_hash::{self, PasswordHasher as _, PasswordVerifier as _, phc};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret as _, SecretString};

/// OWASP Password Storage Cheat Sheet: argon2id with 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// A hash of these parameters that no password is known for. Verifying against it costs what
/// verifying against a real one costs.
const DUMMY_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1\
    $AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// No memory or no randomness: the request may be tried again.
    #[error("the password could not be hashed: {0}")]
    Hashing(password_hash::Error),
    /// The row is damaged; a person must look.
    #[error("the stored password hash is malformed: {0}")]
    MalformedHash(password_hash::Error),
}

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)
        .map_err(|error| PasswordError::Hashing(error.into()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Hashes with a new random salt. The result is a PHC string, `$argon2id$v=19$m=19456,t=2,p=1$…`.
pub fn hash(password: &SecretString) -> Result<String, PasswordError> {
    argon2()?
        .hash_password(password.expose_secret().as_bytes())
        .map(|hash| hash.to_string())
        .map_err(PasswordError::Hashing)
}

/// Whether `password` is the one that `hash` was made of. Uses the parameters of `hash`, so that
/// old hashes stay good when the parameters here grow.
pub fn verify(password: &SecretString, hash: &str) -> Result<bool, PasswordError> {
    let hash =
        phc::PasswordHash::new(hash).map_err(|error| PasswordError::MalformedHash(error.into()))?;
    match argon2()?.verify_password(password.expose_secret().as_bytes(), &hash) {
        Ok(()) => Ok(true),
        Err(password_hash::Error::PasswordInvalid) => Ok(false),
        Err(error @ password_hash::Error::OutOfMemory) => Err(PasswordError::Hashing(error)),
        Err(error) => Err(PasswordError::MalformedHash(error)),
    }
}

/// The work of [`verify`] for an account that does not exist or has no password, so that the time
/// of the answer does not tell which accounts exist.
pub fn dummy_verify(password: &SecretString) {
    // The answer is always no; `black_box` keeps the optimiser from noticing.
    let _ = std::hint::black_box(verify(password, DUMMY_HASH));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> SecretString {
        SecretString::from(text)
    }

    #[test]
    fn the_right_password_verifies_and_no_other() {
        let hash = hash(&password("correct horse")).unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        assert!(!hash.contains("correct"));
        assert_eq!(verify(&password("correct horse"), &hash), Ok(true));
        assert_eq!(verify(&password("correct horsE"), &hash), Ok(false));
        assert_eq!(verify(&password(""), &hash), Ok(false));
    }

    #[test]
    fn the_same_password_hashes_differently_each_time() {
        assert_ne!(hash(&password("p")).unwrap(), hash(&password("p")).unwrap());
    }

    #[test]
    fn hashes_with_other_parameters_stay_good() {
        // Of the argon2 reference implementation's tests: argon2id, v19, m=256, t=2, p=1.
        let old = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$\
            nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        assert_eq!(verify(&password("password"), old), Ok(true));
        assert_eq!(verify(&password("passwort"), old), Ok(false));
    }

    #[test]
    fn a_damaged_hash_is_an_error_and_not_a_wrong_password() {
        for damaged in [
            "",
            "plain",
            "$argon2id$v=19$m=1,t=0,p=1$c29tZXNhbHQ$AAAA",
            "$md5$x$y",
        ] {
            assert!(
                matches!(
                    verify(&password("p"), damaged),
                    Err(PasswordError::MalformedHash(_))
                ),
                "{damaged}"
            );
        }
    }

    #[test]
    fn the_dummy_costs_what_a_real_hash_costs() {
        let parts = |hash: &str| {
            let hash = phc::PasswordHash::new(hash).unwrap();
            let lengths = (hash.salt.unwrap().len(), hash.hash.unwrap().len());
            (
                hash.algorithm.to_string(),
                hash.version,
                hash.params.to_string(),
                lengths,
            )
        };
        assert_eq!(parts(DUMMY_HASH), parts(&hash(&password("p")).unwrap()));
        assert_eq!(verify(&password("p"), DUMMY_HASH), Ok(false));
        dummy_verify(&password("p"));
    }
}
