//! `/login`: with a password, or with a code by mail.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use cp_domain::people::{ChallengeRef, SignedIn};
use cp_domain::{ControlPlane, DomainError, Profile};
use cp_model::OAuthClient;
use http::StatusCode;
use http::header::RETRY_AFTER;
use maud::{Markup, html};
use secrecy::SecretString;

use super::brand::for_application;
use super::csrf::Submitted;
use super::error_page::{Failure, too_many};
use super::fields::Fields;
use super::forms::{Errors, Field, csrf_field, return_field};
use super::layout::{notice, page_on_the_way};
use super::redirects::see_other;
use super::return_to::ReturnTo;
use super::session::Visitor;
use crate::ApiState;

pub async fn show(
    State(state): State<ApiState>,
    visitor: Visitor,
    RawQuery(query): RawQuery,
) -> Response {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes()).unwrap_or_default();
    let to = ReturnTo::of(&fields);
    let again = fields.get("again").is_some();
    let email = match visitor.by() {
        Some(_) if !again => return see_other(to.or_settings()),
        Some(by) => by.user.email.clone(),
        None => String::new(),
    };
    let notice = match fields.text("done") {
        "password-changed" => Some("Your password is changed. Sign in with the new one."),
        "signed-out" => Some("You are signed out."),
        _ => None,
    };
    let form = Form {
        to,
        email: &email,
        notice,
        errors: Errors::none(),
    };
    form.answer(&state.control_plane, &visitor, StatusCode::OK)
        .await
}

pub async fn submit(
    State(state): State<ApiState>,
    Submitted { visitor, fields }: Submitted,
) -> Result<Response, Failure> {
    let control_plane = &state.control_plane;
    let to = ReturnTo::of(&fields);
    let email = fields.text("email").trim();
    let mut errors = Errors::none();
    if email.is_empty() {
        errors.add("email", "Enter your e-mail address.");
    }
    if fields.text("password").is_empty() {
        errors.add("password", "Enter your password.");
    }
    let mut status = StatusCode::BAD_REQUEST;
    let mut wait = None;
    if errors.is_empty() {
        let password = SecretString::from(fields.text("password"));
        let signed_in = control_plane
            .sign_in_with_password(email, &password, visitor.caller(), visitor.user_agent())
            .await;
        match signed_in {
            Ok(SignedIn { user, cookie }) => {
                let then = if user.email_verified {
                    see_other(to.or_settings())
                } else {
                    begin_verification(control_plane, &visitor, &user, &to).await?
                };
                return visitor.keep_session(control_plane, &cookie, then).await;
            }
            // One text for a wrong password, an unknown address and a disabled account.
            Err(DomainError::Unauthorized | DomainError::InvalidField(_)) => {
                errors = Errors::whole(
                    "The e-mail address or the password is wrong. Check both. If you forgot the \
                     password, choose a new one; if you never had one, have a code mailed to you.",
                );
            }
            Err(DomainError::RateLimited { retry_after, .. }) => {
                status = StatusCode::TOO_MANY_REQUESTS;
                wait = Some(retry_after);
                errors = Errors::whole(format!("Too many attempts. {}", too_many(retry_after)));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let form = Form {
        to,
        email,
        notice: None,
        errors,
    };
    let mut response = form.answer(control_plane, &visitor, status).await;
    if let Some(seconds) = wait {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    Ok(response)
}

/// `POST /login/code`: the second button of the form. The answer is the same whether the account
/// exists.
pub async fn send_code(
    State(state): State<ApiState>,
    Submitted { visitor, fields }: Submitted,
) -> Result<Response, Failure> {
    let control_plane = &state.control_plane;
    let to = ReturnTo::of(&fields);
    let email = fields.text("email").trim();
    if let Err(error) = cp_model::field::email("email", email) {
        let form = Form {
            to,
            email,
            notice: None,
            errors: Errors::broken(&error, &[("email", "email", "The e-mail address")]),
        };
        return Ok(form
            .answer(control_plane, &visitor, StatusCode::BAD_REQUEST)
            .await);
    }
    to_verification(control_plane, &visitor, email, &to).await
}

/// Mails a code to whoever reads this address, and leads to where it is entered.
pub async fn to_verification(
    control_plane: &ControlPlane,
    visitor: &Visitor,
    email: &str,
    to: &ReturnTo,
) -> Result<Response, Failure> {
    let challenge = control_plane
        .send_verification(email, visitor.caller())
        .await?;
    Ok(enter_code(visitor, challenge, email, to))
}

/// Mails a code to somebody who has proven who they are, but not their address.
pub async fn begin_verification(
    control_plane: &ControlPlane,
    visitor: &Visitor,
    user: &Profile,
    to: &ReturnTo,
) -> Result<Response, Failure> {
    match control_plane
        .begin_verification(user.id, visitor.caller())
        .await
    {
        Ok(challenge) => Ok(enter_code(visitor, challenge, &user.email, to)),
        // They had many codes lately, and are signed in all the same: they can ask again later.
        Err(DomainError::RateLimited { .. }) => Ok(see_other(&to.on("/verify-email"))),
        Err(error) => Err(error.into()),
    }
}

/// To the page where the code is entered.
pub fn enter_code(
    visitor: &Visitor,
    challenge: ChallengeRef,
    email: &str,
    to: &ReturnTo,
) -> Response {
    let mut then = see_other(&to.on(&format!("/verify-email?challenge={challenge}")));
    visitor.remember_address(&mut then, email);
    then
}

pub struct Form<'a> {
    pub to: ReturnTo,
    pub email: &'a str,
    pub notice: Option<&'a str>,
    pub errors: Errors,
}

impl Form<'_> {
    async fn answer(
        &self,
        control_plane: &ControlPlane,
        visitor: &Visitor,
        status: StatusCode,
    ) -> Response {
        let title = self.errors.title("Sign in");
        let content = |client: Option<&OAuthClient>| self.render(visitor, client);
        page_on_the_way(control_plane, visitor, status, &title, &self.to, content).await
    }

    pub fn render(&self, visitor: &Visitor, client: Option<&OAuthClient>) -> Markup {
        html! {
            h1 { "Sign in" }
            (for_application(client))
            @if let Some(text) = self.notice { (notice(text)) }
            (self.errors.summary())
            form method="post" action="/login" novalidate {
                (csrf_field(visitor))
                (return_field(&self.to))
                (Field {
                    name: "email",
                    label: "E-mail address",
                    kind: "email",
                    value: self.email,
                    autocomplete: Some("username"),
                    maxlength: Some(254),
                    first: self.email.is_empty(),
                    ..Field::default()
                }.render(&self.errors))
                (Field {
                    name: "password",
                    label: "Password",
                    kind: "password",
                    autocomplete: Some("current-password"),
                    first: !self.email.is_empty(),
                    ..Field::default()
                }.render(&self.errors))
                p.aside { a href=(self.to.on("/forgot-password")) { "Forgot your password?" } }
                button.button type="submit" { "Sign in" }
                button.button.quiet type="submit" formaction="/login/code" { "E-mail me a code instead" }
            }
            p.other { "New here? " a href=(self.to.on("/signup")) { "Create an account" } }
        }
    }
}
