//! Random bytes and random text, for every module of this crate.

use aws_lc_rs::rand;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

/// Fills `bytes` from the generator of AWS-LC, which the operating system seeds.
pub(crate) fn fill(bytes: &mut [u8]) {
    // AWS-LC's `RAND_bytes` returns one or aborts the process: it has no failure to report, and
    // with no randomness nothing here could safely go on.
    rand::fill(bytes).expect("RAND_bytes has no failure path");
}

pub(crate) fn bytes<const N: usize>() -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    fill(bytes.as_mut_slice());
    bytes
}

/// `len` characters, each drawn evenly from `alphabet` (ASCII, 1 to 256 characters).
pub(crate) fn text_from(alphabet: &[u8], len: usize) -> SecretString {
    debug_assert!(alphabet.is_ascii() && (1..=256).contains(&alphabet.len()));
    // A byte at or above the largest multiple of the alphabet's length is thrown away: a bare
    // remainder would favour the first characters.
    let fair = 256 - 256 % alphabet.len();
    let mut text = Zeroizing::new(String::with_capacity(len));
    while text.len() < len {
        for &byte in bytes::<64>().iter() {
            if text.len() < len && usize::from(byte) < fair {
                text.push(char::from(alphabet[usize::from(byte) % alphabet.len()]));
            }
        }
    }
    SecretString::from(text.as_str())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn text_has_the_length_and_the_alphabet_asked_for() {
        for len in [0, 1, 63, 64, 65, 500] {
            let text = text_from(b"abc", len);
            assert_eq!(text.expose_secret().len(), len);
            assert!(
                text.expose_secret()
                    .bytes()
                    .all(|byte| b"abc".contains(&byte))
            );
        }
    }

    #[test]
    fn no_character_is_favoured() {
        // Bare remainders of a byte would draw the first 56 of 100 characters 3 times in 256, the
        // others twice: 65,625 of these 100,000.
        let alphabet: Vec<u8> = (0..100).collect();
        let text = text_from(&alphabet, 100_000);
        let mut counts: HashMap<u8, u32> = HashMap::new();
        for byte in text.expose_secret().bytes() {
            *counts.entry(byte).or_default() += 1;
        }
        assert_eq!(counts.len(), 100);
        let early: u32 = (0..56).map(|byte| counts[&byte]).sum();
        assert!((54_000..58_000).contains(&early), "{early}");
    }
}
