//! `GET /api/oauth/v1/authorize`: an application sends a person here and gets them back with a
//! code (RFC 6749 section 4.1, RFC 7636, RFC 9207).

use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use cp_domain::oauth::{
    AuthorizationRequest, AuthorizeError, AuthorizeParams, OAuthError, OAuthErrorCode,
};
use cp_domain::{ControlPlane, UserCaller};
use http::request::Parts;
use secrecy::ExposeSecret;

use super::consent;
use super::error_page::Failure;
use super::fields::{Fields, query};
use super::redirects::{refuse, see_other, with_parameters};
use super::return_to::ReturnTo;
use super::session::{Visitor, caller};
use crate::ApiState;
use crate::problem::set_rate_limit;

pub const PATH: &str = "/api/oauth/v1/authorize";

/// When a request for a new sign-in first came, in milliseconds: our own note in its address.
const CAME_AT: &str = "came_at";

/// The parameters that we know. Others are ignored (RFC 6749 section 3.1).
pub const PARAMETERS: [&str; 8] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
    "prompt",
];

/// The longest query. It is carried through the sign-in pages, so it must fit in a URL twice
/// encoded.
const MAX_QUERY: usize = 6 * 1024;

pub async fn show(State(state): State<ApiState>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let control_plane = &state.control_plane;
    // Before anything else, or the limit would not protect the rest.
    let limit = match control_plane
        .take_authorize_request(caller(&parts).address)
        .await
    {
        Ok(limit) => limit,
        Err(error) => return Failure::from(error).into_response(),
    };
    let mut response = answer(&state, &mut parts)
        .await
        .unwrap_or_else(IntoResponse::into_response);
    set_rate_limit(response.headers_mut(), limit);
    response
}

async fn answer(state: &ApiState, parts: &mut Parts) -> Result<Response, Failure> {
    let control_plane = &state.control_plane;
    let fields = read(parts.uri.query().unwrap_or_default())?;
    let request = match check(control_plane, &fields).await? {
        Checked::Good(request) => request,
        Checked::Refused(redirect) => return Ok(redirect),
    };
    let visitor = Visitor::from_request_parts(parts, state).await?;
    let refuse_silently = |code, description: &'static str| {
        Ok(refuse(
            control_plane,
            &request.redirect_uri,
            Some(&request.state),
            &OAuthError::new(code, description),
        ))
    };

    // Only a sign-in after the request came will do. The request remembers when that was, so that
    // nobody is sent to sign in twice, and nobody who goes round the login page gets through.
    let came_at = match fields
        .get(CAME_AT)
        .and_then(|given| given.parse::<i64>().ok())
    {
        Some(came_at) => came_at,
        None => control_plane.clock().now().timestamp_millis(),
    };
    let is_fresh = match visitor.by() {
        Some(by) if request.prompt.login => control_plane
            .signed_in_at(by)
            .await?
            .is_some_and(|at| at.timestamp_millis() >= came_at),
        _ => true,
    };
    let Some(by) = visitor.by().filter(|_| is_fresh) else {
        if request.prompt.none {
            return refuse_silently(
                OAuthErrorCode::LoginRequired,
                "Nobody is signed in in this browser",
            );
        }
        let again = if request.prompt.login {
            "/login?again=yes"
        } else {
            "/login"
        };
        let mut path = path_of(&fields);
        if request.prompt.login {
            path = format!("{path}&{CAME_AT}={came_at}");
        }
        return Ok(see_other(&ReturnTo::to(&path).on(again)));
    };
    if !by.user.email_verified {
        if request.prompt.none {
            return refuse_silently(
                OAuthErrorCode::InteractionRequired,
                "The person must confirm their e-mail address first",
            );
        }
        return Ok(see_other(
            &ReturnTo::to(&path_of(&fields)).on("/verify-email"),
        ));
    }
    if !request.prompt.consent && control_plane.has_consented(by.user.id, &request).await? {
        return approve(control_plane, by, &request, false).await;
    }
    if request.prompt.none {
        return refuse_silently(
            OAuthErrorCode::ConsentRequired,
            "The person must allow this application first",
        );
    }
    Ok(consent::page(&visitor, by, &request, &fields))
}

/// The query, if it can be understood in one way only.
fn read(query: &str) -> Result<Fields, Failure> {
    let refused = |description: &'static str| {
        Failure::bad_authorization(&OAuthError::invalid_request(description))
    };
    if query.len() > MAX_QUERY {
        return Err(refused("The parameters are longer than 6 KiB"));
    }
    Fields::parse(query.as_bytes())
        .map_err(|_| refused("The parameters must be percent-encoded UTF-8"))
}

/// What became of an authorization request.
pub enum Checked {
    Good(AuthorizationRequest),
    /// Back to the application, with its error.
    Refused(Response),
}

/// Checks the request. What may not lead back to anybody is a failure.
pub async fn check(control_plane: &ControlPlane, fields: &Fields) -> Result<Checked, Failure> {
    let params = params(fields);
    let twice = fields.duplicate();
    if let Some(name @ ("client_id" | "redirect_uri")) = twice {
        return Err(Failure::bad_authorization(&given_twice(name)));
    }
    let checked = control_plane.check_authorization_request(&params).await;
    let (redirect_uri, state, error) = match checked {
        Ok(request) if twice.is_none() => return Ok(Checked::Good(request)),
        Ok(request) => (request.redirect_uri, Some(request.state), None),
        Err(AuthorizeError::Redirect {
            redirect_uri,
            state,
            error,
        }) => (redirect_uri, state, Some(error)),
        Err(AuthorizeError::Page(error)) => return Err(Failure::bad_authorization(&error)),
        Err(AuthorizeError::Other(error)) => return Err(error.into()),
    };
    // RFC 6749 section 3.1: "parameters MUST NOT be included more than once". Which of two states
    // is the application's own, nobody can tell.
    let state = state.filter(|_| twice != Some("state"));
    let error = match twice {
        Some(name) => given_twice(name),
        None => error.unwrap_or_else(|| OAuthError::invalid_request("The request is not valid")),
    };
    Ok(Checked::Refused(refuse(
        control_plane,
        &redirect_uri,
        state.as_deref(),
        &error,
    )))
}

fn given_twice(name: &str) -> OAuthError {
    // A parameter of the caller's own invention is not repeated to anybody.
    match PARAMETERS.iter().find(|known| **known == name) {
        Some(known) => OAuthError::invalid_request(format!("{known} is there more than once")),
        None => OAuthError::invalid_request("A parameter is there more than once"),
    }
}

/// The person allowed it: a code. `now`: they were asked just now, which is worth remembering.
pub async fn approve(
    control_plane: &ControlPlane,
    by: &UserCaller,
    request: &AuthorizationRequest,
    now: bool,
) -> Result<Response, Failure> {
    let code = control_plane.issue_code(by, request, now).await?;
    Ok(see_other(&with_parameters(
        &request.redirect_uri,
        [
            ("code", code.expose_secret()),
            ("state", request.state.as_str()),
            ("iss", control_plane.settings().base_url.as_str()),
        ],
    )))
}

pub fn params(fields: &Fields) -> AuthorizeParams {
    let text = |name| fields.get(name).map(str::to_owned);
    AuthorizeParams {
        response_type: text("response_type"),
        client_id: text("client_id"),
        redirect_uri: text("redirect_uri"),
        scope: text("scope"),
        state: text("state"),
        code_challenge: text("code_challenge"),
        code_challenge_method: text("code_challenge_method"),
        prompt: text("prompt"),
    }
}

/// The known parameters of a request, as a form carries them.
pub fn known(fields: &Fields) -> impl Iterator<Item = (&str, &str)> {
    fields.iter().filter(|(name, _)| PARAMETERS.contains(name))
}

/// The request's own address.
pub fn path_of(fields: &Fields) -> String {
    format!("{PATH}?{}", query(known(fields)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_cannot_be_read_stays_here() {
        assert!(read("state=%ff").is_err());
        assert!(read(&format!("state={}", "x".repeat(MAX_QUERY))).is_err());
        assert!(read("state=x").is_ok());
    }
}
