//! Tokens end to end (generated key, signature, JWKS, jsonwebtoken as the verifier), and rotation
//! played through time.

mod rotation;

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::{SecretBytes, TokenError};

// Generating takes a while without optimisation: two keys serve all tests.
static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().unwrap());
static OTHER_KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().unwrap());

const EXPECTED: Expected<'static> = Expected {
    issuer: "https://api.example.com",
    audience: "https://a1.eu.insforge.app",
};

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_750_000_000, 0).unwrap()
}

fn signer(key: &SigningKey) -> Signer {
    Signer::from_pkcs8(&key.kid, &key.private_der).unwrap()
}

fn in_ring(key: &SigningKey, state: KeyState) -> KeyInRing {
    KeyInRing {
        kid: key.kid.clone(),
        state,
        public_jwk: key.public_jwk.clone(),
        signer: (state == KeyState::Active).then(|| signer(key)),
    }
}

fn authorization(user_id: &str) -> Result<ProjectAuthorization, BlankUserId> {
    let new = NewProjectAuthorization {
        issuer: EXPECTED.issuer,
        audience: EXPECTED.audience,
        project_id: Uuid::from_u128(7),
        user_id,
    };
    ProjectAuthorization::new(new, noon())
}

fn token() -> String {
    signer(&KEY)
        .sign(&authorization("partner:ps_1").unwrap())
        .unwrap()
}

fn jwks() -> Jwks {
    Jwks::new([KEY.public_jwk.clone()])
}

fn verify_at(token: &str, now: DateTime<Utc>) -> Result<ProjectAuthorization, TokenError> {
    verify(token, &jwks(), EXPECTED, now)
}

fn part(token: &str, index: usize) -> Value {
    let text = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
}

#[test]
fn a_signed_authorization_verifies_by_the_published_key() {
    let claims = verify_at(&token(), noon()).unwrap();
    assert_eq!(claims.user_id, "partner:ps_1");
    assert_eq!(claims.expires_at(), noon() + TimeDelta::minutes(10));
}

#[test]
fn jsonwebtoken_alone_accepts_the_token() {
    // What any other verifier does with the JWKS, nothing of ours in between.
    let jwk: jsonwebtoken::jwk::Jwk =
        serde_json::from_value(serde_json::to_value(&KEY.public_jwk).unwrap()).unwrap();
    let by_jwk = DecodingKey::from_jwk(&jwk).unwrap();
    let Jwk { n, e, .. } = &KEY.public_jwk;
    let by_numbers = DecodingKey::from_rsa_components(n, e).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[EXPECTED.audience]);
    validation.validate_exp = false;
    for key in [by_jwk, by_numbers] {
        let decoded = jsonwebtoken::decode::<Value>(token(), &key, &validation).unwrap();
        assert_eq!(decoded.claims["userId"], "partner:ps_1");
    }
}

#[test]
fn header_and_claims_are_those_of_the_contract() {
    let token = token();
    assert_eq!(
        part(&token, 0),
        json!({"alg": "RS256", "typ": "JWT", "kid": KEY.kid})
    );
    let mut claims = part(&token, 1);
    let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
    assert!(jti.as_str().unwrap().parse::<Uuid>().is_ok());
    assert_eq!(
        claims,
        json!({
            "iss": "https://api.example.com",
            "sub": "partner:ps_1",
            "aud": "https://a1.eu.insforge.app",
            "projectId": "00000000-0000-0000-0000-000000000007",
            "userId": "partner:ps_1",
            "type": "project_authorization",
            "iat": 1_750_000_000,
            "exp": 1_750_000_600,
        })
    );
}

#[test]
fn every_authorization_has_its_own_jti() {
    assert_ne!(
        authorization("u").unwrap().jti,
        authorization("u").unwrap().jti
    );
}

#[test]
fn no_authorization_is_made_for_nobody() {
    for blank in ["", " ", "\t\n"] {
        assert_eq!(authorization(blank), Err(BlankUserId));
    }
}

#[test]
fn an_expired_token_is_refused_to_the_second() {
    let token = token();
    assert!(verify_at(&token, noon() + TimeDelta::seconds(599)).is_ok());
    let late = verify_at(&token, noon() + TimeDelta::seconds(600));
    assert_eq!(late.unwrap_err(), TokenError::Expired);
}

#[test]
fn a_changed_token_is_refused() {
    let token = token();
    let (head, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let mut claims = part(&token, 1);
    claims["userId"] = "admin".into();
    let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
    let forged = format!("{header}.{claims}.{signature}");
    assert_eq!(
        verify_at(&forged, noon()).unwrap_err(),
        TokenError::Signature
    );

    let foreign = Signer::from_pkcs8(&KEY.kid, &OTHER_KEY.private_der).unwrap();
    let foreign = foreign.sign(&authorization("u").unwrap()).unwrap();
    assert_eq!(
        verify_at(&foreign, noon()).unwrap_err(),
        TokenError::Signature
    );
}

#[test]
fn a_key_that_is_not_published_is_unknown() {
    let token = signer(&OTHER_KEY)
        .sign(&authorization("u").unwrap())
        .unwrap();
    assert_eq!(
        verify_at(&token, noon()).unwrap_err(),
        TokenError::UnknownKey
    );
    assert_eq!(
        verify_at("no token", noon()).unwrap_err(),
        TokenError::Malformed
    );
}

#[test]
fn tokens_for_another_host_or_of_another_issuer_are_refused() {
    for expected in [
        Expected {
            audience: "https://b2.eu.insforge.app",
            ..EXPECTED
        },
        Expected {
            issuer: "https://evil.example.com",
            ..EXPECTED
        },
    ] {
        let refused = verify::<Value>(&token(), &jwks(), expected, noon());
        assert_eq!(refused.unwrap_err(), TokenError::OtherPurpose);
    }
}

#[test]
fn the_algorithm_is_pinned() {
    // The classic attack: HS256 with the public key as the secret.
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some(KEY.kid.clone());
    let secret = EncodingKey::from_secret(KEY.public_jwk.n.as_bytes());
    let forged = jsonwebtoken::encode(&header, &authorization("u").unwrap(), &secret).unwrap();
    assert_eq!(
        verify_at(&forged, noon()).unwrap_err(),
        TokenError::Signature
    );
}

#[test]
fn a_key_is_named_after_its_thumbprint() {
    // RFC 7638 section 3.1.
    let example = Jwk {
        n: "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc\
            _BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQ\
            R0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bF\
            TWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
            .into(),
        e: "AQAB".into(),
        ..KEY.public_jwk.clone()
    };
    assert_eq!(
        example.thumbprint(),
        "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    );

    assert_eq!(
        KEY.kid,
        format!("insforge-key-{}", &KEY.public_jwk.thumbprint()[..16])
    );
    assert_ne!(KEY.kid, OTHER_KEY.kid);
}

#[test]
fn a_published_key_has_2048_bits_and_the_members_of_the_rfc() {
    let jwk = serde_json::to_value(&KEY.public_jwk).unwrap();
    assert_eq!(jwk["kty"], "RSA");
    assert_eq!(jwk["use"], "sig");
    assert_eq!(jwk["alg"], "RS256");
    assert_eq!(jwk["e"], "AQAB");
    assert_eq!(jwk.as_object().unwrap().len(), 6);
    let modulus = URL_SAFE_NO_PAD.decode(&KEY.public_jwk.n).unwrap();
    assert_eq!(modulus.len(), 256);
    assert!(modulus[0] >= 0x80);
}

#[test]
fn the_keyring_signs_with_the_active_key_and_publishes_all_but_retired_ones() {
    let ring = |one, other| Keyring::new(vec![in_ring(&KEY, one), in_ring(&OTHER_KEY, other)]);
    for other in [KeyState::Next, KeyState::Retiring] {
        let ring = ring(KeyState::Active, other).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(ring.jwks().keys.len(), 2);
        assert_eq!(ring.active_kid(), KEY.kid);
        let token = ring.sign(&authorization("u").unwrap()).unwrap();
        assert!(verify::<Value>(&token, ring.jwks(), EXPECTED, noon()).is_ok());
    }
    let ring = ring(KeyState::Retired, KeyState::Active).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(ring.jwks(), &Jwks::new([OTHER_KEY.public_jwk.clone()]));
}

#[test]
fn the_key_set_does_not_depend_on_the_order_of_rows() {
    let (one, other) = (KEY.public_jwk.clone(), OTHER_KEY.public_jwk.clone());
    let forward = Jwks::new([one.clone(), other.clone()]);
    let backward = Jwks::new([other, one]);
    assert_eq!(
        serde_json::to_string(&forward).unwrap(),
        serde_json::to_string(&backward).unwrap()
    );
}

#[test]
fn a_ring_that_could_not_sign_well_is_refused() {
    let refused = |keys| Keyring::new(keys).err().unwrap();
    assert_eq!(refused(vec![]), KeyringError::NoActiveKey);
    assert_eq!(
        refused(vec![in_ring(&KEY, KeyState::Next)]),
        KeyringError::NoActiveKey
    );
    assert_eq!(
        refused(vec![
            in_ring(&KEY, KeyState::Active),
            in_ring(&OTHER_KEY, KeyState::Active)
        ]),
        KeyringError::SeveralActiveKeys(KEY.kid.clone(), OTHER_KEY.kid.clone())
    );
    let sealed = KeyInRing {
        signer: None,
        ..in_ring(&KEY, KeyState::Active)
    };
    assert_eq!(
        refused(vec![sealed]),
        KeyringError::NoSigner(KEY.kid.clone())
    );
    let swapped = Signer::from_pkcs8(&KEY.kid, &OTHER_KEY.private_der).unwrap();
    let swapped = KeyInRing {
        signer: Some(swapped),
        ..in_ring(&KEY, KeyState::Active)
    };
    assert_eq!(
        refused(vec![swapped]),
        KeyringError::Mismatch(KEY.kid.clone())
    );
}

#[test]
fn what_is_no_private_key_is_refused_without_repeating_it() {
    let der = KEY.private_der.expose_secret();
    for bytes in [&b""[..], b"secret text", &der[..der.len() / 2]] {
        let error = Signer::from_pkcs8("k", &SecretBytes::from(bytes.to_vec()))
            .err()
            .unwrap();
        assert_eq!(error.kid, "k");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn a_state_is_stored_and_read_as_its_name() {
    for state in [
        KeyState::Next,
        KeyState::Active,
        KeyState::Retiring,
        KeyState::Retired,
    ] {
        assert_eq!(state.to_string().parse(), Ok(state));
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        assert!(!KeyState::Retired.can_become(state));
    }
    assert!("Active".parse::<KeyState>().is_err());
    assert!(KeyState::Next.can_become(KeyState::Active));
    assert!(!KeyState::Retiring.can_become(KeyState::Active));
}
