//! Access tokens that we did not issue, not for this, not yet, or not any more.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use cp_domain::people::NewApiKey;
use cp_model::Scope;
use cp_tests::{Answer, App};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::stage::{Stage, caller, get_profile, soon};

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

/// Never 403, which would be final (platform-api.md 2.4), and RFC 6750's header.
async fn refuses(app: &App, bearer: &str, what: &str) {
    let answer = get_profile(app, bearer).await;
    assert_eq!(answer.status, 401, "{what}: {}", answer.text);
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    assert!(challenge.starts_with("Bearer "), "{what}: {challenge}");
    assert!(
        challenge.contains("error=\"invalid_token\""),
        "{what}: {challenge}"
    );
    assert_eq!(answer.body["code"], "unauthorized", "{what}");
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
async fn an_expired_token_is_refused() {
    // RFC 6749 section 1.5, RFC 6750 section 3.1; one hour, as the public document says.
    let stage = Stage::new().await;
    let token = stage.tokens().await.access;
    stage.clock.advance(TimeDelta::minutes(59));
    get_profile(&stage.app, &token).await.expect(200);
    stage.clock.advance(TimeDelta::seconds(61));
    refuses(&stage.app, &token, "after an hour").await;
    let introspected = stage.notes.introspect(&token).await.expect(200);
    assert_eq!(introspected, json!({"active": false}));
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

#[tokio::test]
async fn secrets_of_other_kinds_are_no_access_tokens() {
    // RFC 9700 section 2.3, RFC 6819 section 4.6: token substitution.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    get_profile(&stage.app, &tokens.access).await.expect(200);
    let code = stage.code().await;
    let cli = stage.app.public_relying_party().await;
    let device = cli
        .post(
            "/api/oauth/v1/device_authorization",
            &json!({"client_id": cli.client_id, "scope": "user:read"}),
        )
        .await
        .expect(200);
    let cookie = stage.ada.visitor.cookie(crate::stage::SESSION).unwrap();
    let partner = stage.app.partner().await;
    let project = partner.begin_project("shop").await;
    let key = partner.metadata(&project.to_string()).await;
    let api_key = key.body["project"]["api_key"]
        .as_str()
        .unwrap_or("ik_0123456789abcdef0123456789abcdef")
        .to_owned();
    for (what, secret) in [
        ("a refresh token", tokens.refresh.as_str()),
        ("a code", &code),
        ("a device code", device["device_code"].as_str().unwrap()),
        ("a user code", device["user_code"].as_str().unwrap()),
        (
            "a client's secret",
            stage.notes.client_secret.as_deref().unwrap(),
        ),
        ("a browser's cookie", &cookie),
        ("a partner's secret", &partner.secret),
        ("a project's key", &api_key),
        ("a client's id", &stage.notes.client_id),
    ] {
        refuses(&stage.app, secret, what).await;
    }
}

#[tokio::test]
async fn a_projects_authorization_is_no_access_token() {
    // RFC 8725 section 3.12: a JWT that we signed for somebody else's eyes.
    let (app, _) = crate::stage::installation_with(|options| options.worker = true).await;
    let partner = app.partner().await;
    let project = partner.create_active_project("shop").await;
    let answer = partner
        .post(&format!("/{project}/authorization"), &json!({}))
        .await
        .expect(200);
    let text = answer.to_string();
    let start = text
        .find("eyJ")
        .unwrap_or_else(|| panic!("no JWT in {text}"));
    let token: String = text[start..]
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .collect();
    assert_eq!(token.matches('.').count(), 2, "{token}");
    refuses(&app, &token, "a project's authorization").await;
}

#[tokio::test]
async fn an_access_token_opens_nothing_but_the_platform() {
    // RFC 9700 section 2.3: nor does it serve as a cookie, a refresh token, or a client's secret.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let visitor = stage.app.visitor();
    visitor.set_cookie(crate::stage::SESSION, &tokens.access);
    assert!(!crate::stage::is_signed_in(&visitor).await);
    visitor.set_cookie(crate::stage::SESSION, &tokens.refresh);
    assert!(!crate::stage::is_signed_in(&visitor).await);
    let answer = Answer::to(
        stage
            .app
            .http
            .get(format!("{}/auth/v1/profile", stage.app.base_url))
            .header(
                "cookie",
                format!("session={0}; token={0}; access_token={0}", tokens.access),
            ),
    )
    .await;
    assert_eq!(answer.status, 401, "a cookie is no bearer");
    let page = Answer::to(
        crate::stage::wire()
            .get(format!("{}/settings", stage.app.base_url))
            .bearer_auth(&tokens.access),
    )
    .await;
    assert_eq!(page.status, 303, "pages know no bearer");
}

#[tokio::test]
async fn a_bearer_in_the_address_or_the_body_is_not_seen() {
    // RFC 6750 sections 2.2, 2.3 and 5.3, RFC 9700 section 4.3.2.
    let stage = Stage::new().await;
    let token = stage.tokens().await.access;
    let url = format!("{}/auth/v1/profile", stage.app.base_url);
    for name in [
        "access_token",
        "token",
        "bearer",
        "authorization",
        "api_key",
    ] {
        let answer = Answer::to(stage.app.http.get(format!("{url}?{name}={token}"))).await;
        assert_eq!(answer.status, 401, "{name}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(!challenge.contains("error="), "nobody tried: {challenge}");
        let body = crate::stage::form(&[(name, &token)]);
        let answer = Answer::to(
            stage
                .app
                .http
                .get(&url)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body),
        )
        .await;
        assert_eq!(answer.status, 401, "{name}");
    }
}

#[tokio::test]
async fn one_bearer_is_read_and_two_are_not() {
    // RFC 6750 section 2: not more than one method in a request.
    let stage = Stage::new().await;
    let token = stage.tokens().await.access;
    let url = format!("{}/auth/v1/profile", stage.app.base_url);
    for (value, status) in [
        (format!("Bearer {token}"), 200),
        (format!("bearer {token}"), 200),
        (format!("Basic {token}"), 401),
        (
            format!("Basic {}", STANDARD.encode(format!("x:{token}"))),
            401,
        ),
        (format!("Token {token}"), 401),
        (token.clone(), 401),
        (format!("Bearer{token}"), 401),
        (format!("Bearer {token}, Bearer {token}"), 401),
    ] {
        let answer = Answer::to(stage.app.http.get(&url).header("authorization", &value)).await;
        assert_eq!(answer.status, status, "{}", &value[..10]);
    }
    let twice = stage
        .app
        .http
        .get(&url)
        .header("authorization", format!("Bearer {token}"))
        .header("authorization", "Bearer x");
    let answer = Answer::to(twice).await;
    assert!(matches!(answer.status, 400 | 401), "{}", answer.status);
}

#[tokio::test]
async fn a_token_without_the_scope_is_told_which_one() {
    // RFC 6750 section 3.1: 403 insufficient_scope.
    let mut stage = Stage::new().await;
    stage.notes.scope = "projects:read".into();
    let token = stage.tokens().await.access;
    let answer = get_profile(&stage.app, &token).await;
    let challenge = answer.header("www-authenticate").unwrap().to_owned();
    answer.expect_code(403, "insufficient_scope");
    assert!(
        challenge.contains("error=\"insufficient_scope\""),
        "{challenge}"
    );
    assert!(challenge.contains("scope=\"user:read\""), "{challenge}");
}

#[tokio::test]
async fn an_api_key_without_the_scope_is_refused() {
    // RFC 6750 section 3.1; contract oauth.md: scopes hold for keys as for tokens.
    let stage = Stage::new().await;
    let cookie = stage.ada.visitor.cookie(crate::stage::SESSION).unwrap();
    let cp = &stage.app.control_plane;
    let by = cp
        .browser_session(&cookie, &caller())
        .await
        .unwrap()
        .unwrap();
    for (scopes, status) in [
        (Some([Scope::ProjectsRead].into_iter().collect()), 403),
        (Some([Scope::UserRead].into_iter().collect()), 200),
        (None, 200),
    ] {
        let new = NewApiKey {
            name: "laptop".into(),
            scopes,
            expires_in_days: None,
        };
        let (_, key) = cp.create_api_key(&by, &new).await.unwrap();
        let answer = get_profile(&stage.app, key.expose_secret()).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
}

#[tokio::test]
async fn somebody_disabled_is_out_at_once() {
    // RFC 9700 section 2.2, RFC 7009 section 1: tokens, keys and sessions end with the account.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let cookie = stage.ada.visitor.cookie(crate::stage::SESSION).unwrap();
    let cp = &stage.app.control_plane;
    let by = cp
        .browser_session(&cookie, &caller())
        .await
        .unwrap()
        .unwrap();
    let new = NewApiKey {
        name: "laptop".into(),
        scopes: None,
        expires_in_days: None,
    };
    let key = cp.create_api_key(&by, &new).await.unwrap().1;
    for bearer in [tokens.access.as_str(), key.expose_secret()] {
        get_profile(&stage.app, bearer).await.expect(200);
    }
    cp.disable_user(&stage.ada.email, true).await.unwrap();
    for bearer in [tokens.access.as_str(), key.expose_secret()] {
        refuses(&stage.app, bearer, "disabled").await;
    }
    assert!(!crate::stage::is_signed_in(&stage.ada.visitor).await);
    crate::stage::refused(
        stage.notes.refresh(&tokens.refresh).await,
        400,
        "invalid_grant",
    );
    let introspected = stage.notes.introspect(&tokens.access).await.expect(200);
    assert_eq!(introspected["active"], false);
}

#[tokio::test]
async fn a_disabled_application_is_out_soon() {
    // RFC 9700 section 4.16 of old and RFC 6819 section 5.2.3.6: a client can be locked out.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let code = stage.code().await;
    let cp = &stage.app.control_plane;
    let id = stage.notes.client_id.parse().unwrap();
    cp.disable_oauth_client(&id, true).await.unwrap();
    soon("its access tokens are dead", async || {
        (get_profile(&stage.app, &tokens.access).await.status == 401).then_some(())
    })
    .await;
    soon("it cannot refresh", async || {
        let answer = stage.notes.refresh(&tokens.refresh).await;
        (answer.status == 401 && answer.body["error"] == "invalid_client").then_some(())
    })
    .await;
    crate::stage::refused(stage.notes.exchange(&code).await, 401, "invalid_client");
    soon("people are not sent to it", async || {
        let page = stage.look(&[]).await;
        (page.status == 400 && page.header("location").is_none()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_withdrawn_application_is_out_at_once() {
    // RFC 7009 section 2: revoking the grant ends its access tokens, too.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let other = stage.app.relying_party().await;
    let kept = other.tokens_for(&stage.ada.visitor).await;
    let page = stage.ada.visitor.open("/settings").await;
    page.expect_text("Acme Notes");
    let by = stage
        .app
        .control_plane
        .browser_session(&stage.ada.visitor.cookie("session").unwrap(), &caller())
        .await
        .unwrap()
        .unwrap();
    let id = stage.notes.client_id.parse().unwrap();
    stage
        .app
        .control_plane
        .disconnect_app(&by, &id)
        .await
        .unwrap();
    refuses(&stage.app, &tokens.access, "withdrawn").await;
    crate::stage::refused(
        stage.notes.refresh(&tokens.refresh).await,
        400,
        "invalid_grant",
    );
    other
        .profile(kept["access_token"].as_str().unwrap())
        .await
        .expect(200);
    // And it has to ask again.
    let page = stage.ada.visitor.open(&stage.notes.authorize_url()).await;
    assert!(!page.is_elsewhere, "{}", page.url);
}
