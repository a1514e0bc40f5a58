//! The token that every form of a page carries: it proves that the form was made for this browser,
//! since another site can make the browser send the cookie, but cannot read what belongs to it.

use std::fmt::Write as _;

use cp_tokens::SecretBytes;
use cp_tokens::secret::{OpaqueSecret, SecretKind, constant_time_eq};
use secrecy::SecretString;

use super::mac;
use crate::ControlPlane;

const PURPOSE: &str = "csrf";

impl ControlPlane {
    /// The token that belongs to this session cookie, or to a visitor's.
    pub fn csrf_token(&self, cookie: &str) -> String {
        self.sealer()
            .derived_keys(PURPOSE)
            .first()
            .map(|(_, key)| token(key, cookie))
            .unwrap_or_default()
    }

    /// Whether the token belongs to the cookie. Tokens made before the keys were rotated do.
    pub fn is_csrf_token(&self, cookie: &str, given: &str) -> bool {
        // What we never set (an empty cookie, say) must not have a token that anybody could know.
        let is_ours = OpaqueSecret::parse(SecretKind::BrowserSession, cookie).is_ok();
        let keys = self.sealer().derived_keys(PURPOSE);
        is_ours && keys.iter().any(|(_, key)| is_token(key, cookie, given))
    }

    /// A cookie for a browser that nobody is signed in with: looks like a session's, opens nothing.
    pub fn new_visitor_cookie(&self) -> SecretString {
        OpaqueSecret::generate(SecretKind::BrowserSession).into_secret_string()
    }
}

fn token(key: &SecretBytes, cookie: &str) -> String {
    mac(key, cookie.as_bytes())
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

fn is_token(key: &SecretBytes, cookie: &str, given: &str) -> bool {
    constant_time_eq(token(key, cookie).as_bytes(), given.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_belongs_to_one_cookie_and_one_key() {
        let (one, other) = (
            SecretBytes::from(vec![1; 32]),
            SecretBytes::from(vec![2; 32]),
        );
        let made = token(&one, "ibs_a");
        assert_eq!(made.len(), 64);
        assert!(made.bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(is_token(&one, "ibs_a", &made));
        assert!(!is_token(&one, "ibs_b", &made));
        assert!(!is_token(&other, "ibs_a", &made));
        for wrong in ["", &made[..63], &format!("{made}0"), &made.to_uppercase()] {
            assert!(!is_token(&one, "ibs_a", wrong), "{wrong}");
        }
    }
}
