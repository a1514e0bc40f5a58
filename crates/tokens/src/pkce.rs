//! Proof Key for Code Exchange, RFC 7636, method `S256` only (RFC 9700 section 2.1.1). The domain
//! checks the challenge at `/authorize` and the verifier at `/token`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::secret::{constant_time_eq, hash_bytes};

/// The one `code_challenge_method` that is accepted.
pub const METHOD: &str = "S256";

/// RFC 7636 section 4.1: 43 to 128 unreserved characters.
pub fn is_code_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
}

/// RFC 7636 section 4.2: the base64url text, without padding, of a SHA-256 hash.
pub fn is_code_challenge(text: &str) -> bool {
    URL_SAFE_NO_PAD
        .decode(text)
        .is_ok_and(|hash| hash.len() == 32)
}

/// `BASE64URL(SHA256(ASCII(code_verifier)))`, RFC 7636 section 4.2.
pub fn code_challenge(code_verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(hash_bytes(code_verifier.as_bytes()))
}

/// RFC 7636 section 4.6. Also false for a verifier of the wrong form. Constant time.
pub fn verify(code_verifier: &str, code_challenge: &str) -> bool {
    is_code_verifier(code_verifier)
        && constant_time_eq(
            self::code_challenge(code_verifier).as_bytes(),
            code_challenge.as_bytes(),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7636 appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn the_example_of_the_rfc_holds() {
        assert_eq!(code_challenge(VERIFIER), CHALLENGE);
        assert!(is_code_challenge(CHALLENGE));
        assert!(verify(VERIFIER, CHALLENGE));
    }

    #[test]
    fn another_verifier_or_challenge_is_refused() {
        assert!(!verify(&VERIFIER.replace('d', "e"), CHALLENGE));
        assert!(!verify(VERIFIER, &CHALLENGE.replace('E', "F")));
        assert!(!verify(VERIFIER, ""));
        assert!(!verify(VERIFIER, &format!("{CHALLENGE}=")));
        // The method `plain` must not slip through.
        assert!(!verify(VERIFIER, VERIFIER));
    }

    #[test]
    fn the_form_of_a_verifier_is_checked() {
        for (text, ok) in [
            ("a".repeat(42), false),
            ("a".repeat(43), true),
            ("-._~".repeat(32), true),
            ("a".repeat(129), false),
            (format!("{}+", "a".repeat(50)), false),
            (format!("{} ", "a".repeat(50)), false),
            (format!("{}é", "a".repeat(50)), false),
        ] {
            assert_eq!(is_code_verifier(&text), ok, "{text}");
            assert_eq!(verify(&text, &code_challenge(&text)), ok, "{text}");
        }
    }

    #[test]
    fn the_form_of_a_challenge_is_checked() {
        assert!(!is_code_challenge(&CHALLENGE[1..]));
        assert!(!is_code_challenge(&CHALLENGE.replace('-', "+")));
        assert!(!is_code_challenge(&format!("{CHALLENGE}A")));
        assert!(!is_code_challenge(""));
    }
}
