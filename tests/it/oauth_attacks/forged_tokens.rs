//! Access tokens that we did not issue, or that somebody changed.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cp_tests::Answer;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::refuses;
use crate::stage::{Stage, get_profile};

/// A good token, taken apart, and the key that it was signed with: what is refused of forgeries
/// made with these is refused for the one thing that was changed.
struct Forger {
    header: Value,
    claims: Value,
    kid: String,
    secret: Vec<u8>,
}

impl Forger {
    async fn new(stage: &Stage) -> Self {
        let token = stage.tokens().await.access;
        let part = |at: usize| -> Value {
            let text = token.split('.').nth(at).expect("three parts");
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
        };
        let (kid, secret) = stage
            .app
            .sealer()
            .derived_keys("access token")
            .into_iter()
            .next()
            .unwrap();
        let forger = Self {
            header: part(0),
            claims: part(1),
            kid,
            secret: secret.expose_secret().to_vec(),
        };
        // Signed anew without a change it is as good as ours.
        let anew = forger.sign(Algorithm::HS256, &forger.kid, "at+jwt", &forger.claims);
        get_profile(&stage.app, &anew).await.expect(200);
        forger
    }

    fn sign(&self, alg: Algorithm, kid: &str, typ: &str, claims: &Value) -> String {
        let mut header = Header::new(alg);
        header.kid = Some(kid.into());
        header.typ = Some(typ.into());
        encode(&header, claims, &EncodingKey::from_secret(&self.secret)).unwrap()
    }

    fn with_claims(&self, changes: &Value) -> String {
        let mut claims = self.claims.clone();
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        self.sign(Algorithm::HS256, &self.kid, "at+jwt", &claims)
    }

    fn unsigned(&self, header: &Value, signature: &str) -> String {
        let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.{signature}", encoded(header), encoded(&self.claims))
    }
}

#[tokio::test]
async fn a_token_of_algorithm_none_is_refused() {
    // RFC 8725 sections 2.1 and 3.1.
    let stage = Stage::new().await;
    let forger = Forger::new(&stage).await;
    let real = forger.with_claims(&json!({}));
    let signature = real.rsplit('.').next().unwrap();
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let mut header = forger.header.clone();
        header["alg"] = json!(alg);
        for signature in ["", signature] {
            let token = forger.unsigned(&header, signature);
            refuses(&stage.app, &token, alg).await;
            refuses(&stage.app, token.trim_end_matches('.'), alg).await;
        }
    }
    let mut header = forger.header.clone();
    header.as_object_mut().unwrap().remove("alg");
    refuses(&stage.app, &forger.unsigned(&header, signature), "no alg").await;
}

/// ASN.1 in DER.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        len @ 0..=127 => out.push(u8::try_from(len).unwrap()),
        len => {
            let bytes = u16::try_from(len).unwrap().to_be_bytes();
            out.push(0x82);
            out.extend(bytes);
        }
    }
    out.extend(content);
    out
}

/// The public key as `openssl rsa -pubout` writes it.
fn public_key_pem(jwk: &Value) -> (Vec<u8>, String) {
    let number = |name: &str| {
        let mut bytes = vec![0];
        bytes.extend(URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap());
        der(0x02, &bytes)
    };
    let key = der(0x30, &[number("n"), number("e")].concat());
    let rsa = [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
    let bits = der(0x03, &[&[0], key.as_slice()].concat());
    let spki = der(0x30, &[der(0x30, &rsa), bits].concat());
    let text = STANDARD.encode(&spki);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        lines.join("\n")
    );
    (spki, pem)
}

#[tokio::test]
async fn our_public_key_is_no_secret_to_sign_with() {
    // RFC 8725 section 2.1: RS256's public key taken for HS256's secret.
    let stage = Stage::new().await;
    let forger = Forger::new(&stage).await;
    let url = format!("{}/.well-known/jwks.json", stage.app.base_url);
    let jwks = Answer::to(stage.app.http.get(url)).await.expect(200);
    for jwk in jwks["keys"].as_array().unwrap() {
        let (spki, pem) = public_key_pem(jwk);
        let n = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
        let candidates = [
            pem.trim_end().as_bytes().to_vec(),
            pem.into_bytes(),
            spki,
            n,
            jwk["n"].as_str().unwrap().as_bytes().to_vec(),
            jwk.to_string().into_bytes(),
        ];
        for secret in candidates {
            for kid in [jwk["kid"].as_str().unwrap(), &forger.kid] {
                let mut header = Header::new(Algorithm::HS256);
                header.kid = Some(kid.into());
                header.typ = Some("at+jwt".into());
                let key = EncodingKey::from_secret(&secret);
                let token = encode(&header, &forger.claims, &key).unwrap();
                refuses(&stage.app, &token, kid).await;
            }
        }
    }
}

#[tokio::test]
async fn a_token_of_another_algorithm_is_refused() {
    // RFC 8725 section 3.1: the algorithm is ours to choose, not the header's.
    let stage = Stage::new().await;
    let forger = Forger::new(&stage).await;
    for alg in [Algorithm::HS384, Algorithm::HS512] {
        let token = forger.sign(alg, &forger.kid, "at+jwt", &forger.claims);
        refuses(&stage.app, &token, "another alg").await;
    }
    for alg in ["RS256", "ES256", "EdDSA", "dir", "HS256 "] {
        let mut header = forger.header.clone();
        header["alg"] = json!(alg);
        refuses(&stage.app, &forger.unsigned(&header, "AAAA"), alg).await;
    }
}

#[tokio::test]
async fn a_token_of_an_unknown_key_is_refused() {
    // RFC 8725 section 3.10: `kid` is a stranger's text, no path and no SQL.
    let stage = Stage::new().await;
    let forger = Forger::new(&stage).await;
    for kid in [
        "",
        "unknown",
        "../../../../dev/null",
        "' union select 'x",
        "0",
        "%00",
    ] {
        let token = forger.sign(Algorithm::HS256, kid, "at+jwt", &forger.claims);
        refuses(&stage.app, &token, kid).await;
    }
    let mut header = forger.header.clone();
    header.as_object_mut().unwrap().remove("kid");
    header["jwk"] = json!({"kty": "oct", "k": "AAAA"});
    header["jku"] = json!("https://evil.example/jwks.json");
    refuses(&stage.app, &forger.unsigned(&header, "AAAA"), "no kid").await;
    let empty = EncodingKey::from_secret(b"");
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some(forger.kid.clone());
    header.typ = Some("at+jwt".into());
    let token = encode(&header, &forger.claims, &empty).unwrap();
    refuses(&stage.app, &token, "an empty secret").await;
}

#[tokio::test]
async fn a_token_from_the_future_is_refused() {
    // RFC 7519 sections 4.1.5 and 4.1.6.
    let stage = Stage::new().await;
    let forger = Forger::new(&stage).await;
    let hour = forger.claims["iat"].as_i64().unwrap() + 3600;
    for changes in [
        json!({"nbf": hour}),
        json!({"iat": hour, "exp": hour + 3600}),
    ] {
        refuses(
            &stage.app,
            &forger.with_claims(&changes),
            &changes.to_string(),
        )
        .await;
    }
}

#[tokio::test]
async fn a_token_without_an_end_is_refused() {
    // RFC 8725 section 3.8 and RFC 9068 section 2.2: the claims that are checked must be there.
    let stage = Stage::new().await;
    let forger = Forger::new(&stage).await;
    for name in ["exp", "iss", "aud", "sub", "jti", "client_id", "scope"] {
        let token = forger.with_claims(&json!({ name: null }));
        refuses(&stage.app, &token, name).await;
    }
    for changes in [
        json!({"exp": "never"}),
        json!({"exp": -1}),
        json!({"sub": 1}),
        json!({"scope": ["user:read"]}),
    ] {
        refuses(
            &stage.app,
            &forger.with_claims(&changes),
            &changes.to_string(),
        )
        .await;
    }
}

#[tokio::test]
async fn a_token_of_another_issuer_or_audience_is_refused() {
    // RFC 8725 sections 3.8 and 3.9, RFC 9700 section 2.3.
    let stage = Stage::new().await;
    let forger = Forger::new(&stage).await;
    for changes in [
        json!({"iss": "evil"}),
        json!({"iss": stage.app.base_url}),
        json!({"aud": "project"}),
        json!({"aud": []}),
        json!({"aud": ["other"]}),
    ] {
        refuses(
            &stage.app,
            &forger.with_claims(&changes),
            &changes.to_string(),
        )
        .await;
    }
}

#[tokio::test]
async fn a_token_of_another_type_is_no_access_token() {
    // RFC 8725 section 3.11, RFC 9068 section 4: `typ` keeps kinds apart.
    let stage = Stage::new().await;
    let forger = Forger::new(&stage).await;
    for typ in ["JWT", "", "id+jwt", "refresh+jwt", "AT+JWT2"] {
        let token = forger.sign(Algorithm::HS256, &forger.kid, typ, &forger.claims);
        refuses(&stage.app, &token, typ).await;
    }
}

#[tokio::test]
async fn a_token_speaks_only_for_whom_it_was_made() {
    // RFC 9700 section 2.3: what a token says agrees with the sign-in behind it.
    let stage = Stage::new().await;
    let bob = stage.app.person("Bob").await;
    let other = stage.app.relying_party().await;
    let forger = Forger::new(&stage).await;
    for changes in [
        json!({"sub": bob.id.to_string()}),
        json!({"client_id": other.client_id}),
        json!({"jti": "x"}),
        json!({"jti": format!("{}.00", bob.id)}),
    ] {
        refuses(
            &stage.app,
            &forger.with_claims(&changes),
            &changes.to_string(),
        )
        .await;
    }
}

#[tokio::test]
async fn a_changed_token_is_refused() {
    // RFC 7515 section 5.2, RFC 6819 section 4.6.3: guessing and altering.
    let stage = Stage::new().await;
    let forger = Forger::new(&stage).await;
    let token = forger.with_claims(&json!({}));
    let parts: Vec<&str> = token.split('.').collect();
    let mut claims = forger.claims.clone();
    claims["scope"] = json!("projects:write");
    let changed = URL_SAFE_NO_PAD.encode(claims.to_string());
    let flipped: String = parts[2].chars().rev().collect();
    for text in [
        format!("{}.{changed}.{}", parts[0], parts[2]),
        format!("{}.{}.{flipped}", parts[0], parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{token}.x"),
        format!("{token}="),
        parts[1].to_owned(),
        "a.b.c".into(),
        "x".into(),
        "\u{7f}".into(),
        "A".repeat(7000),
    ] {
        let answer = Answer::to(
            stage
                .app
                .http
                .get(format!("{}/auth/v1/profile", stage.app.base_url))
                .header(
                    "authorization",
                    format!("Bearer {text}").replace('\u{7f}', "~"),
                ),
        )
        .await;
        assert_eq!(answer.status, 401, "{text}: {}", answer.text);
    }
}
