//! Authorization requests (RFC 6749 section 4.1.1, with PKCE), what people answer to them, and the
//! codes that come of it.

use std::sync::Arc;

use chrono::TimeDelta;
use cp_model::{ClientId, ClientKind, OAuthClient, Scopes, UserId};
use cp_storage::oauth_codes::{self, NewCode};
use cp_storage::{StorageError, oauth_consents};
use cp_tokens::pkce;
use cp_tokens::secret::{OpaqueSecret, SecretKind};
use secrecy::SecretString;
use serde_json::json;

use super::{OAuthError, OAuthErrorCode, browser_of, hold_person, parse_scopes};
use crate::{ControlPlane, DomainError, DomainResult, UserCaller};

/// How long a code lives: a redirect and one request (contract: oauth.md, Rules).
const CODE_LIFETIME: TimeDelta = TimeDelta::seconds(60);

const MAX_STATE: usize = 2048;

/// The query of `/authorize`, as it came. That no parameter came twice is seen before this.
#[derive(Debug, Clone, Default)]
pub struct AuthorizeParams {
    pub response_type: Option<String>,
    pub client_id: Option<String>,
    pub redirect_uri: Option<String>,
    pub scope: Option<String>,
    pub state: Option<String>,
    pub code_challenge: Option<String>,
    pub code_challenge_method: Option<String>,
    pub prompt: Option<String>,
}

/// What to do about a request that is no good.
#[derive(Debug)]
pub enum AuthorizeError {
    /// Tell the person. Never redirect: the address may be anybody's (RFC 9700 section 4.11).
    Page(OAuthError),
    /// Tell the application, at an address that is registered for it.
    Redirect {
        redirect_uri: String,
        /// None: it sent none that could be sent back.
        state: Option<String>,
        error: OAuthError,
    },
    Other(DomainError),
}

impl From<DomainError> for AuthorizeError {
    fn from(error: DomainError) -> Self {
        Self::Other(error)
    }
}

/// What the application wants to happen on our pages (OpenID Connect Core section 3.1.2.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Sign in again, whoever is signed in.
    pub login: bool,
    /// Ask again, whatever was allowed before.
    pub consent: bool,
    /// Show nothing.
    pub none: bool,
}

/// A request that is good.
#[derive(Debug, Clone)]
pub struct AuthorizationRequest {
    pub client: Arc<OAuthClient>,
    /// As the application wrote it, which is how the code is bound to it.
    pub redirect_uri: String,
    pub scopes: Scopes,
    pub state: String,
    pub code_challenge: String,
    pub prompt: Prompt,
}

/// RFC 6749 section 3.1: a parameter without a value counts as left out.
fn given(parameter: Option<&String>) -> Option<&str> {
    parameter
        .map(String::as_str)
        .filter(|text| !text.is_empty())
}

/// Of what the RFC lets a state be made (its appendix A.5): printable ASCII.
fn is_state(text: &str) -> bool {
    text.len() <= MAX_STATE && text.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
}

fn parse_prompt(text: Option<&str>) -> Result<Prompt, OAuthError> {
    let mut prompt = Prompt::default();
    for word in text
        .unwrap_or_default()
        .split(' ')
        .filter(|w| !w.is_empty())
    {
        match word {
            "login" => prompt.login = true,
            "consent" => prompt.consent = true,
            "none" => prompt.none = true,
            _ => {
                return Err(OAuthError::invalid_request(
                    "The prompt must be login, consent, both, or none.",
                ));
            }
        }
    }
    if prompt.none && (prompt.login || prompt.consent) {
        return Err(OAuthError::invalid_request(
            "The prompt none cannot be combined with others.",
        ));
    }
    Ok(prompt)
}

/// Checks what may be told to the application, once it is known which one it is.
fn check_parameters(
    params: &AuthorizeParams,
    client: &OAuthClient,
) -> Result<(Scopes, String, Prompt), OAuthError> {
    match given(params.response_type.as_ref()) {
        Some("code") => {}
        Some(_) => {
            return Err(OAuthError::new(
                OAuthErrorCode::UnsupportedResponseType,
                "The response_type must be code.",
            ));
        }
        None => {
            return Err(OAuthError::invalid_request(
                "The parameter response_type is missing; it must be code.",
            ));
        }
    }
    let challenge = given(params.code_challenge.as_ref()).ok_or_else(|| {
        OAuthError::invalid_request("The parameter code_challenge is missing (RFC 7636).")
    })?;
    if given(params.code_challenge_method.as_ref()) != Some(pkce::METHOD) {
        return Err(OAuthError::invalid_request(
            "The code_challenge_method must be S256.",
        ));
    }
    if !pkce::is_code_challenge(challenge) {
        return Err(OAuthError::invalid_request(
            "The code_challenge must be the base64url of a SHA-256 hash, 43 characters.",
        ));
    }
    let scopes = parse_scopes(
        given(params.scope.as_ref()).unwrap_or_default(),
        &client.scopes,
    )?;
    let prompt = parse_prompt(given(params.prompt.as_ref()))?;
    Ok((scopes, challenge.to_owned(), prompt))
}

/// Checks everything but the client's name.
fn check_request(
    params: &AuthorizeParams,
    client: &Arc<OAuthClient>,
) -> Result<AuthorizationRequest, AuthorizeError> {
    let page =
        |description: &'static str| AuthorizeError::Page(OAuthError::invalid_request(description));
    let redirect_uri = given(params.redirect_uri.as_ref())
        .ok_or_else(|| page("The parameter redirect_uri is missing."))?;
    if !client.allows_redirect_uri(redirect_uri) {
        return Err(page(
            "The redirect_uri is not registered for this application.",
        ));
    }
    let state = given(params.state.as_ref()).filter(|state| is_state(state));
    let redirect = |error| AuthorizeError::Redirect {
        redirect_uri: redirect_uri.to_owned(),
        state: state.map(str::to_owned),
        error,
    };
    let Some(known_state) = state else {
        return Err(redirect(OAuthError::invalid_request(
            "The parameter state is needed: 1 to 2048 characters of printable ASCII.",
        )));
    };
    let (scopes, code_challenge, prompt) = check_parameters(params, client).map_err(redirect)?;
    Ok(AuthorizationRequest {
        client: client.clone(),
        redirect_uri: redirect_uri.to_owned(),
        scopes,
        state: known_state.to_owned(),
        code_challenge,
        prompt,
    })
}

impl ControlPlane {
    pub async fn check_authorization_request(
        &self,
        params: &AuthorizeParams,
    ) -> Result<AuthorizationRequest, AuthorizeError> {
        let page = |description: &'static str| {
            AuthorizeError::Page(OAuthError::new(OAuthErrorCode::InvalidClient, description))
        };
        let Some(client_id) = given(params.client_id.as_ref()) else {
            return Err(AuthorizeError::Page(OAuthError::invalid_request(
                "The parameter client_id is missing.",
            )));
        };
        let known = match client_id.parse::<ClientId>() {
            Ok(id) => self.known_client(&id).await?,
            Err(_) => None,
        };
        let known = known.ok_or_else(|| page("There is no application with this client_id."))?;
        if known.client.disabled_at.is_some() {
            return Err(page("This application has been disabled."));
        }
        check_request(params, &known.client)
    }

    /// Whether the person need not be asked. A public client may be anybody who knows its id, so
    /// it is asked about each time (RFC 8252 section 8.6); so is one that wants to be.
    pub async fn has_consented(
        &self,
        user: UserId,
        request: &AuthorizationRequest,
    ) -> DomainResult<bool> {
        let client = &request.client;
        if client.kind == ClientKind::Public || request.prompt.consent {
            return Ok(false);
        }
        let mut conn = self.db().acquire().await?;
        let allowed = oauth_consents::find_consent(&mut conn, user, &client.id).await?;
        Ok(allowed.is_some_and(|allowed| request.scopes.is_subset(&allowed)))
    }

    /// The person allowed it: a code for the application. With `remember` the next request for
    /// the same need not ask.
    ///
    /// # Errors
    /// [`DomainError::EmailNotVerified`], and [`DomainError::Unauthorized`] if the session has
    /// ended meanwhile.
    pub async fn issue_code(
        &self,
        by: &UserCaller,
        request: &AuthorizationRequest,
        remember: bool,
    ) -> DomainResult<SecretString> {
        let session = browser_of(by)?;
        if !by.user.email_verified {
            return Err(DomainError::EmailNotVerified);
        }
        let (now, client) = (self.now(), &request.client.id);
        let code = OpaqueSecret::generate(SecretKind::AuthorizationCode);
        let mut tx = self.db().begin().await?;
        hold_person(&mut tx, by.user.id).await?;
        let hash = code.hash();
        let new = NewCode {
            hash: hash.as_bytes(),
            client,
            user: by.user.id,
            session,
            redirect_uri: &request.redirect_uri,
            code_challenge: &request.code_challenge,
            scopes: &request.scopes,
            expires_at: now + CODE_LIFETIME,
            now,
        };
        if !oauth_codes::insert_code(&mut tx, &new).await? {
            return Err(DomainError::Unauthorized);
        }
        if remember && request.client.kind == ClientKind::Confidential {
            oauth_consents::upsert_consent(&mut tx, by.user.id, client, &request.scopes, now)
                .await?;
        }
        self.note_answer(&mut tx, by, request, "oauth.authorized")
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(code.into_secret_string())
    }

    /// The person refused.
    pub async fn note_denial(
        &self,
        by: &UserCaller,
        request: &AuthorizationRequest,
    ) -> DomainResult<()> {
        let mut conn = self.db().acquire().await?;
        self.note_answer(&mut conn, by, request, "oauth.denied")
            .await
    }

    async fn note_answer(
        &self,
        conn: &mut cp_storage::PgConnection,
        by: &UserCaller,
        request: &AuthorizationRequest,
        action: &str,
    ) -> DomainResult<()> {
        let target = ("oauth_client", request.client.id.as_str());
        let details = json!({ "scope": request.scopes.to_string() });
        Ok(self
            .audit_by_user(conn, by, action, target, details)
            .await?)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    fn client() -> Arc<OAuthClient> {
        Arc::new(OAuthClient {
            id: "clf_a".parse().unwrap(),
            name: "Shop".into(),
            kind: ClientKind::Confidential,
            redirect_uris: vec![
                "https://example.com/callback".into(),
                "http://127.0.0.1/callback".into(),
            ],
            scopes: "user:read projects:read".parse().unwrap(),
            first_party: false,
            device_grant: false,
            rate_limit: 50,
            logo_url: None,
            color: None,
            homepage_url: None,
            disabled_at: None,
            created_at: DateTime::UNIX_EPOCH,
        })
    }

    fn good() -> AuthorizeParams {
        let text = |text: &str| Some(text.to_owned());
        AuthorizeParams {
            response_type: text("code"),
            client_id: text("clf_a"),
            redirect_uri: text("https://example.com/callback"),
            scope: text("user:read"),
            state: text("af0ifjsldkj"),
            code_challenge: text(CHALLENGE),
            code_challenge_method: text("S256"),
            prompt: None,
        }
    }

    /// What the application is told after one change to a good request.
    fn told(change: impl FnOnce(&mut AuthorizeParams)) -> (String, Option<String>) {
        let mut params = good();
        change(&mut params);
        match check_request(&params, &client()) {
            Ok(_) => ("ok".into(), None),
            Err(AuthorizeError::Page(error)) => (format!("page {}", error.code), None),
            Err(AuthorizeError::Redirect { state, error, .. }) => {
                // RFC 6749 section 4.1.2.1: of these characters a description is made.
                let plain = |c: char| matches!(c, ' '..='!' | '#'..='[' | ']'..='~');
                assert!(
                    error.description.chars().all(plain),
                    "{}",
                    error.description
                );
                (error.code.to_string(), state)
            }
            Err(AuthorizeError::Other(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn a_good_request_is_taken_as_it_is() {
        let request = check_request(&good(), &client()).unwrap();
        assert_eq!(request.scopes.to_string(), "user:read");
        assert_eq!(request.state, "af0ifjsldkj");
        assert_eq!(request.redirect_uri, "https://example.com/callback");
        assert_eq!(request.prompt, Prompt::default());
        assert_eq!(
            told(|p| p.redirect_uri = Some("http://127.0.0.1:4711/callback".into())).0,
            "ok"
        );
    }

    #[test]
    fn nobody_is_redirected_to_an_address_that_is_not_registered() {
        for uri in [
            None,
            Some(""),
            Some("https://example.com/callback/"),
            Some("https://example.com/callback/../x"),
            Some("https://example.com.evil.example/callback"),
            Some("https://example.com@evil.example/callback"),
            Some("https://evil.example/?https://example.com/callback"),
            Some("https://example.com/callback#x"),
            Some("https://example.com:444/callback"),
            Some("http://example.com/callback"),
            Some("HTTPS://EXAMPLE.COM/callback"),
            Some("https://example.com/%63allback"),
            Some("https://example.com/callback\r\nx: y"),
            Some("javascript:alert(1)"),
        ] {
            let answer = told(|p| {
                p.redirect_uri = uri.map(str::to_owned);
                p.response_type = Some("token".into());
            });
            assert_eq!(answer, ("page invalid_request".into(), None), "{uri:?}");
        }
    }

    #[test]
    fn a_state_that_cannot_be_sent_back_is_not() {
        let long = "x".repeat(2049);
        for state in [
            None,
            Some(""),
            Some("a\r\nb"),
            Some("\u{7f}"),
            Some("é"),
            Some(&*long),
        ] {
            let answer = told(|p| p.state = state.map(str::to_owned));
            assert_eq!(answer, ("invalid_request".into(), None), "{state:?}");
        }
        for state in ["x", " ", "{\"a\": \"b&c=d\"}", &long[1..]] {
            assert_eq!(told(|p| p.state = Some(state.into())).0, "ok", "{state}");
        }
    }

    #[test]
    fn everything_else_is_told_to_the_application_with_its_state() {
        type Change = fn(&mut AuthorizeParams);
        let cases: [(&str, Change); 18] = [
            ("invalid_request", |p| p.response_type = None),
            ("unsupported_response_type", |p| {
                p.response_type = Some("token".into());
            }),
            ("unsupported_response_type", |p| {
                p.response_type = Some("code id_token".into());
            }),
            ("invalid_request", |p| p.code_challenge = None),
            ("invalid_request", |p| {
                p.code_challenge = Some(String::new());
            }),
            ("invalid_request", |p| {
                p.code_challenge = Some("short".into());
            }),
            ("invalid_request", |p| {
                p.code_challenge = Some(format!("{CHALLENGE}="));
            }),
            ("invalid_request", |p| p.code_challenge_method = None),
            ("invalid_request", |p| {
                p.code_challenge_method = Some("plain".into());
            }),
            ("invalid_request", |p| {
                p.code_challenge_method = Some("s256".into());
            }),
            ("invalid_scope", |p| p.scope = None),
            ("invalid_scope", |p| p.scope = Some("  ".into())),
            ("invalid_scope", |p| p.scope = Some("openid".into())),
            ("invalid_scope", |p| {
                p.scope = Some("user:read projects:write".into());
            }),
            ("invalid_request", |p| {
                p.prompt = Some("select_account".into());
            }),
            ("invalid_request", |p| p.prompt = Some("none login".into())),
            ("invalid_request", |p| {
                p.prompt = Some("consent none".into());
            }),
            ("invalid_request", |p| p.prompt = Some("Login".into())),
        ];
        for (number, (code, change)) in cases.into_iter().enumerate() {
            let answer = told(change);
            assert_eq!(
                answer,
                (code.into(), Some("af0ifjsldkj".into())),
                "case {number}"
            );
        }
    }

    #[test]
    fn prompts_are_words() {
        let parse = |text| parse_prompt(Some(text)).unwrap();
        assert_eq!(parse(""), Prompt::default());
        let both = parse("consent  login");
        assert!(both.consent && both.login && !both.none);
        assert!(parse("none").none);
    }
}
