//! `/verify-email`: proves that a person reads an address, by the six digits that were mailed, in
//! the browser that asked for them, or by the mail's link. Mail programs open links to look at
//! them, so a link only shows a button.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use cp_domain::people::{ChallengeRef, LinkPurpose};
use cp_domain::{ControlPlane, DomainError, Profile};
use http::StatusCode;
use http::header::RETRY_AFTER;
use maud::{Markup, html};

use super::csrf::Submitted;
use super::error_page::{Failure, too_many};
use super::fields::{Fields, encode};
use super::forms::{Errors, Field, csrf_field, hidden, return_field};
use super::layout;
use super::login::{begin_verification, enter_code, to_verification};
use super::redirects::see_other;
use super::return_to::ReturnTo;
use super::session::Visitor;
use crate::ApiState;

pub async fn show(
    State(state): State<ApiState>,
    visitor: Visitor,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let control_plane = &state.control_plane;
    let fields = Fields::parse(query.unwrap_or_default().as_bytes()).unwrap_or_default();
    let to = ReturnTo::of(&fields);
    if let Some(token) = fields.some("token") {
        return link(control_plane, &visitor, token).await;
    }
    if visitor.by().is_some_and(|by| by.user.email_verified) {
        return Ok(see_other(to.or_settings()));
    }
    let form = CodeForm {
        to,
        challenge: fields.text("challenge"),
        errors: Errors::none(),
    };
    Ok(form.answer(control_plane, &visitor, StatusCode::OK).await)
}

pub async fn submit_code(
    State(state): State<ApiState>,
    Submitted { visitor, fields }: Submitted,
) -> Result<Response, Failure> {
    let control_plane = &state.control_plane;
    let to = ReturnTo::of(&fields);
    let code: String = fields
        .text("code")
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .collect();
    let challenge = fields.text("challenge");
    let mut status = StatusCode::BAD_REQUEST;
    let mut wait = None;
    let errors = if code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit()) {
        // A reference that we never gave is as good as an expired one.
        let confirmed = match challenge.parse::<ChallengeRef>() {
            Ok(challenge) => {
                control_plane
                    .confirm_code(challenge, &code, visitor.caller())
                    .await
            }
            Err(_) => Err(DomainError::WrongCode),
        };
        match confirmed {
            Ok(user) => return signed_in(control_plane, &visitor, &user, &to).await,
            Err(DomainError::WrongCode) => Errors::of(
                "code",
                "The code is wrong or has expired. Check it, or have a new one mailed.",
            ),
            Err(DomainError::RateLimited { retry_after, .. }) => {
                status = StatusCode::TOO_MANY_REQUESTS;
                wait = Some(retry_after);
                Errors::whole(format!("Too many attempts. {}", too_many(retry_after)))
            }
            Err(error) => return Err(error.into()),
        }
    } else {
        Errors::of("code", "Enter the six digits of the code.")
    };
    let form = CodeForm {
        to,
        challenge,
        errors,
    };
    let mut response = form.answer(control_plane, &visitor, status).await;
    if let Some(seconds) = wait {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    Ok(response)
}

async fn signed_in(
    control_plane: &ControlPlane,
    visitor: &Visitor,
    user: &Profile,
    to: &ReturnTo,
) -> Result<Response, Failure> {
    let then = see_other(to.as_str().unwrap_or("/settings?done=email-verified"));
    visitor.sign_in(control_plane, user.id, then).await
}

/// `POST /verify-email/resend`
pub async fn resend(
    State(state): State<ApiState>,
    Submitted { visitor, fields }: Submitted,
) -> Result<Response, Failure> {
    let control_plane = &state.control_plane;
    let to = ReturnTo::of(&fields);
    // Whoever is signed in can have a code for their own address alone.
    if let Some(by) = visitor.by() {
        return begin_verification(control_plane, &visitor, &by.user, &to).await;
    }
    let former = fields.text("challenge").parse::<ChallengeRef>().ok();
    if let (Some(former), Some(email)) = (former, visitor.mailed_address()) {
        match control_plane
            .resend_verification(former, email, visitor.caller())
            .await
        {
            Ok(challenge) => return Ok(enter_code(&visitor, challenge, email, &to)),
            // Not what we have remembered: ask for the address.
            Err(DomainError::InvalidField(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let email = fields.text("email").trim();
    if let Err(error) = cp_model::field::email("email", email) {
        let form = CodeForm {
            to,
            challenge: "",
            errors: Errors::broken(&error, &[("email", "email", "The e-mail address")]),
        };
        return Ok(form
            .answer(control_plane, &visitor, StatusCode::BAD_REQUEST)
            .await);
    }
    to_verification(control_plane, &visitor, email, &to).await
}

pub struct CodeForm<'a> {
    pub to: ReturnTo,
    /// Empty: no code was mailed yet.
    pub challenge: &'a str,
    pub errors: Errors,
}

impl CodeForm<'_> {
    async fn answer(
        &self,
        control_plane: &ControlPlane,
        visitor: &Visitor,
        status: StatusCode,
    ) -> Response {
        let title = self.errors.title("Confirm your address");
        let content = |_: Option<&_>| self.render(visitor);
        layout::page_on_the_way(control_plane, visitor, status, &title, &self.to, content).await
    }

    pub fn render(&self, visitor: &Visitor) -> Markup {
        let own = visitor.by().map(|by| by.user.email.as_str());
        let address = own.or(visitor.mailed_address());
        html! {
            h1 { "Confirm your address" }
            (self.errors.summary())
            @if self.challenge.is_empty() {
                p { "We mail you a six-digit code, which you enter here." }
            } @else {
                p {
                    @if let Some(address) = address {
                        "If " strong.address { (address) } " can sign in here, we mailed a six-digit code to it. "
                    } @else {
                        "We mailed you a six-digit code. "
                    }
                    "It works for 15 minutes, in this browser."
                }
                form method="post" action="/verify-email" novalidate {
                    (csrf_field(visitor))
                    (return_field(&self.to))
                    (hidden("challenge", self.challenge))
                    (Field {
                        name: "code",
                        label: "Code",
                        autocomplete: Some("one-time-code"),
                        inputmode: Some("numeric"),
                        maxlength: Some(12),
                        first: true,
                        is_code: true,
                        ..Field::default()
                    }.render(&self.errors))
                    button.button type="submit" { "Confirm" }
                }
                h2 { "No mail yet?" }
                p.fine { "It can take a minute. Look among the unwanted mail, too." }
            }
            form method="post" action="/verify-email/resend" novalidate {
                (csrf_field(visitor))
                (return_field(&self.to))
                @if !self.challenge.is_empty() {
                    (hidden("challenge", self.challenge))
                } @else if own.is_none() {
                    (Field {
                        name: "email",
                        label: "E-mail address",
                        kind: "email",
                        value: visitor.mailed_address().unwrap_or_default(),
                        autocomplete: Some("username"),
                        maxlength: Some(254),
                        first: true,
                        ..Field::default()
                    }.render(&self.errors))
                }
                button.button.quiet type="submit" {
                    @if self.challenge.is_empty() { "Mail me a code" } @else { "Mail me a new code" }
                }
            }
            @if own.is_none() && !self.challenge.is_empty() {
                p.other { a href=(self.to.on("/verify-email")) { "Use another address" } }
            }
        }
    }
}

/// What a mail's link shows.
async fn link(
    control_plane: &ControlPlane,
    visitor: &Visitor,
    token: &str,
) -> Result<Response, Failure> {
    let email = match control_plane.look_at_link(token).await {
        Ok(LinkPurpose::VerifyEmail {
            email,
            needs_sign_in,
        }) => {
            let is_owner = visitor.by().is_some_and(|by| by.user.email == email);
            if needs_sign_in && !is_owner {
                return Ok(sign_in_first(visitor, token, StatusCode::OK));
            }
            email
        }
        Ok(LinkPurpose::FirstLogin { email }) => email,
        Ok(LinkPurpose::ResetPassword { .. }) | Err(DomainError::ExpiredLink) => {
            return Err(expired());
        }
        Err(error) => return Err(error.into()),
    };
    let content = link_content(visitor, token, &email);
    let title = "Confirm your address";
    Ok(layout::page(visitor, StatusCode::OK, title, &content))
}

pub fn link_content(visitor: &Visitor, token: &str, email: &str) -> Markup {
    html! {
        h1 { "Confirm your address" }
        p { "Press the button if it was you who asked for the mail to " strong.address { (email) } ". You will then be signed in." }
        p.fine { "If it was somebody else, close this page: nothing happens." }
        form method="post" action="/verify-email/link" {
            (csrf_field(visitor))
            (hidden("token", token))
            button.button type="submit" { "Confirm my address" }
        }
    }
}

/// A stranger may have signed up with this address: only who knows the account's password may
/// confirm it by a mere click.
fn sign_in_first(visitor: &Visitor, token: &str, status: StatusCode) -> Response {
    let here = ReturnTo::to(&format!("/verify-email?token={}", encode(token)));
    let title = "Sign in to confirm your address";
    let content = html! {
        h1 { (title) }
        p { "The account has a password. Sign in with it; then confirm the address." }
        p.fine { "If you did not make this account, you need do nothing. To take it over, choose “Forgot your password?” on the next page." }
        p { a.button href=(here.on("/login?again=yes")) { "Sign in" } }
    };
    layout::page(visitor, status, title, &content)
}

/// `POST /verify-email/link`
pub async fn submit_link(
    State(state): State<ApiState>,
    Submitted { visitor, fields }: Submitted,
) -> Result<Response, Failure> {
    let control_plane = &state.control_plane;
    let token = fields.text("token");
    match control_plane
        .confirm_link(token, visitor.by(), visitor.caller())
        .await
    {
        Ok(user) => signed_in(control_plane, &visitor, &user, &ReturnTo::default()).await,
        Err(DomainError::Unauthorized) => Ok(sign_in_first(&visitor, token, StatusCode::FORBIDDEN)),
        Err(DomainError::ExpiredLink) => Err(expired()),
        Err(error) => Err(error.into()),
    }
}

fn expired() -> Failure {
    Failure::expired_link("/verify-email", "Have a new code mailed")
}
