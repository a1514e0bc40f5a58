//! Which application calls: no authentication for public clients, `client_secret_basic` or
//! `client_secret_post` for the others (RFC 6749 section 2.3.1; a JSON body counts as the latter).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cp_domain::oauth::{ClientCredentials, OAuthError, OAuthErrorCode};
use cp_domain::{Caller, ControlPlane, DomainResult};
use cp_model::OAuthClient;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use super::params::Parameters;
use crate::body::{self, MAX_BODY_BYTES};
use crate::caller::{take_caller, user_agent};
use crate::problem::Problem;

/// Credentials are in the body, so nobody is known before it has arrived.
const ARRIVAL: Duration = Duration::from_secs(5);

/// A request to one of the endpoints that applications call.
pub struct ClientRequest {
    pub parameters: Parameters,
    pub caller: Caller,
    pub user_agent: Option<String>,
    /// None: the request names no client.
    credentials: Option<ClientCredentials>,
}

impl<S: Send + Sync> FromRequest<S> for ClientRequest {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let body = body::read(&parts.headers, body, MAX_BODY_BYTES, ARRIVAL).await?;
        let parameters = Parameters::read(&parts.uri, &parts.headers, &body)?;
        Ok(Self {
            credentials: credentials(&parts.headers, &parameters)?,
            caller: take_caller(&mut parts.extensions),
            user_agent: user_agent(&parts.headers).map(str::to_owned),
            parameters,
        })
    }
}

impl ClientRequest {
    /// The client, which a public one may be by its name alone.
    pub async fn client(&self, control_plane: &ControlPlane) -> DomainResult<Arc<OAuthClient>> {
        let Some(credentials) = &self.credentials else {
            return Err(OAuthError::invalid_request("The parameter client_id is missing.").into());
        };
        control_plane
            .authenticate_client(credentials, &self.caller)
            .await
    }

    /// The client, by its secret and by nothing less.
    pub async fn confidential_client(
        &self,
        control_plane: &ControlPlane,
    ) -> DomainResult<Arc<OAuthClient>> {
        match &self.credentials {
            Some(ClientCredentials::Secret { .. }) => self.client(control_plane).await,
            _ => Err(invalid_client(
                "This endpoint is for applications that authenticate with a client secret.",
            )
            .into()),
        }
    }
}

fn invalid_client(description: &'static str) -> OAuthError {
    OAuthError::new(OAuthErrorCode::InvalidClient, description)
}

/// What the request presents, by one method only (RFC 6749 section 2.3).
fn credentials(
    headers: &HeaderMap,
    parameters: &Parameters,
) -> Result<Option<ClientCredentials>, OAuthError> {
    let named = parameters.get("client_id");
    let Some((client_id, secret)) = basic(headers)? else {
        return Ok(named.map(|client_id| {
            let client_id = client_id.to_owned();
            match parameters.secret("client_secret") {
                Some(secret) => ClientCredentials::Secret {
                    client_id,
                    secret: secret.clone(),
                },
                None => ClientCredentials::None { client_id },
            }
        }));
    };
    if parameters.get("client_secret").is_some() {
        return Err(OAuthError::invalid_request(
            "Send the client's secret in the Authorization header or in the body, not in both.",
        ));
    }
    if named.is_some_and(|named| named != client_id) {
        return Err(OAuthError::invalid_request(
            "The client_id in the body is not the one in the Authorization header.",
        ));
    }
    // A client without a secret has an empty one (RFC 6749 section 2.3.1).
    Ok(Some(match secret {
        Some(secret) => ClientCredentials::Secret { client_id, secret },
        None => ClientCredentials::None { client_id },
    }))
}

/// `Authorization: Basic`: id and secret, each form-encoded before they were joined (RFC 6749
/// section 2.3.1). None: there is no such header.
fn basic(headers: &HeaderMap) -> Result<Option<(String, Option<SecretString>)>, OAuthError> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = given.next() else {
        return Ok(None);
    };
    if given.next().is_some() {
        return Err(OAuthError::invalid_request(
            "The Authorization header must be given only once.",
        ));
    }
    let unreadable = || {
        invalid_client(
            "The Authorization header must be Basic, with the base64 of client_id:client_secret.",
        )
    };
    let (scheme, encoded) = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .ok_or_else(unreadable)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(unreadable());
    }
    let joined = STANDARD.decode(encoded.trim()).map_err(|_| unreadable())?;
    let joined = Zeroizing::new(joined);
    let joined = std::str::from_utf8(&joined).map_err(|_| unreadable())?;
    let (client_id, secret) = joined.split_once(':').ok_or_else(unreadable)?;
    if client_id.is_empty() {
        return Err(unreadable());
    }
    let secret = (!secret.is_empty()).then(|| SecretString::from(form_decoded(secret)));
    Ok(Some((form_decoded(client_id), secret)))
}

/// One value as `application/x-www-form-urlencoded` writes it.
fn form_decoded(text: &str) -> String {
    // What separates pairs cannot occur in an encoded value; a secret sent without encoding may
    // have it, and then stands for itself.
    if text.contains(['&', '=']) {
        return text.to_owned();
    }
    form_urlencoded::parse(text.as_bytes())
        .next()
        .map_or_else(String::new, |(value, _)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::header::CONTENT_TYPE;
    use secrecy::ExposeSecret;

    use super::*;

    /// (client, secret) that a form with these `Authorization` headers presents.
    fn presented(
        authorization: &[&str],
        form: &str,
    ) -> Result<Option<(String, Option<String>)>, String> {
        let mut request = Request::post("/token");
        for value in authorization {
            request = request.header(AUTHORIZATION, *value);
        }
        let request = request
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(())
            .unwrap();
        let parameters = Parameters::read(request.uri(), request.headers(), form.as_bytes());
        let found = parameters.and_then(|given| credentials(request.headers(), &given));
        found
            .map(|found| {
                found.map(|found| match found {
                    ClientCredentials::None { client_id } => (client_id, None),
                    ClientCredentials::Secret { client_id, secret } => {
                        (client_id, Some(secret.expose_secret().to_owned()))
                    }
                })
            })
            .map_err(|error| error.code.as_str().to_owned())
    }

    fn basic_of(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn the_three_ways_to_authenticate() {
        let with = |secret: &str| Ok(Some(("clf_a".to_owned(), Some(secret.to_owned()))));
        let without = || Ok(Some(("clf_a".to_owned(), None)));
        assert_eq!(presented(&[], "client_id=clf_a"), without());
        assert_eq!(presented(&[], "client_id=clf_a&client_secret="), without());
        assert_eq!(
            presented(&[], "client_id=clf_a&client_secret=ics_s"),
            with("ics_s")
        );
        assert_eq!(presented(&[&basic_of("clf_a:ics_s")], ""), with("ics_s"));
        assert_eq!(
            presented(&[&basic_of("clf_a:ics_s")], "client_id=clf_a"),
            with("ics_s")
        );
        assert_eq!(
            presented(&[&basic_of("clf%5Fa:a%3Ab+c")], ""),
            with("a:b c")
        );
        assert_eq!(presented(&[&basic_of("clf_a:a&b=c")], ""), with("a&b=c"));
        assert_eq!(presented(&[&basic_of("clf_a:")], ""), without());
        assert_eq!(presented(&[], "grant_type=x"), Ok(None));
    }

    #[test]
    fn two_ways_at_once_are_refused() {
        let basic = basic_of("clf_a:ics_s");
        for (headers, form) in [
            (&[basic.as_str()][..], "client_secret=ics_s"),
            (&[basic.as_str()], "client_id=clf_b"),
            (&[basic.as_str(), basic.as_str()], ""),
        ] {
            assert_eq!(
                presented(headers, form),
                Err("invalid_request".into()),
                "{form}"
            );
        }
    }

    #[test]
    fn a_header_that_cannot_be_read_is_no_authentication() {
        for bad in [
            "Basic",
            "Basic ",
            "Basic !!!",
            "Bearer ics_s",
            &basic_of("no colon"),
            &basic_of(":ics_s"),
        ] {
            assert_eq!(
                presented(&[bad], "client_id=clf_a"),
                Err("invalid_client".into()),
                "{bad}"
            );
        }
    }
}
