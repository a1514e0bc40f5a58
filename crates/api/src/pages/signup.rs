//! `/signup`. The answer is the same whether the address has an account: its owner learns that by
//! mail, a stranger does not.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use cp_domain::people::{ChallengeRef, NewAccount, SignUp};
use cp_domain::{ControlPlane, DomainError};
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
use super::layout::page_on_the_way;
use super::login::enter_code;
use super::redirects::see_other;
use super::return_to::ReturnTo;
use super::session::Visitor;
use crate::ApiState;

/// What is said of the rules for passwords, wherever one is chosen.
pub const PASSWORD_HINT: &str =
    "At least 8 characters. A few words that only you would put together are good.";

/// The form's names and labels of what the business calls by the first.
const LABELS: &[(&str, &str, &str)] = &[
    ("name", "name", "Your name"),
    ("email", "email", "The e-mail address"),
    ("password", "password", "The password"),
];

pub async fn show(
    State(state): State<ApiState>,
    visitor: Visitor,
    RawQuery(query): RawQuery,
) -> Response {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes()).unwrap_or_default();
    let to = ReturnTo::of(&fields);
    if visitor.by().is_some() {
        return see_other(to.or_settings());
    }
    let form = Form {
        to,
        name: "",
        email: "",
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
    let mut form = Form {
        to: ReturnTo::of(&fields),
        name: fields.text("name").trim(),
        email: fields.text("email").trim(),
        errors: Errors::none(),
    };
    let new = NewAccount {
        email: form.email.to_owned(),
        name: form.name.to_owned(),
        password: SecretString::from(fields.text("password")),
    };
    let mut status = StatusCode::BAD_REQUEST;
    let mut wait = None;
    match control_plane.sign_up(&new, visitor.caller()).await {
        Ok(made) => {
            let challenge = match made {
                SignUp::Created { challenge, .. } => challenge,
                SignUp::Taken => ChallengeRef::dead(),
            };
            return Ok(enter_code(&visitor, challenge, form.email, &form.to));
        }
        Err(DomainError::InvalidField(_)) => {
            for error in new.broken_rules() {
                form.errors.add_broken(&error, LABELS);
            }
        }
        Err(DomainError::RateLimited { retry_after, .. }) => {
            status = StatusCode::TOO_MANY_REQUESTS;
            wait = Some(retry_after);
            form.errors = Errors::whole(format!("Too many attempts. {}", too_many(retry_after)));
        }
        Err(error) => return Err(error.into()),
    }
    let mut response = form.answer(control_plane, &visitor, status).await;
    if let Some(seconds) = wait {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    Ok(response)
}

pub struct Form<'a> {
    pub to: ReturnTo,
    pub name: &'a str,
    pub email: &'a str,
    pub errors: Errors,
}

impl Form<'_> {
    async fn answer(
        &self,
        control_plane: &ControlPlane,
        visitor: &Visitor,
        status: StatusCode,
    ) -> Response {
        let title = self.errors.title("Create an account");
        let content = |client: Option<&OAuthClient>| self.render(visitor, client);
        page_on_the_way(control_plane, visitor, status, &title, &self.to, content).await
    }

    pub fn render(&self, visitor: &Visitor, client: Option<&OAuthClient>) -> Markup {
        html! {
            h1 { "Create an account" }
            (for_application(client))
            (self.errors.summary())
            form method="post" action="/signup" novalidate {
                (csrf_field(visitor))
                (return_field(&self.to))
                (Field {
                    name: "name",
                    label: "Your name",
                    value: self.name,
                    autocomplete: Some("name"),
                    maxlength: Some(100),
                    first: true,
                    ..Field::default()
                }.render(&self.errors))
                (Field {
                    name: "email",
                    label: "E-mail address",
                    kind: "email",
                    value: self.email,
                    hint: Some("We mail you a code to confirm it."),
                    autocomplete: Some("username"),
                    maxlength: Some(254),
                    ..Field::default()
                }.render(&self.errors))
                (Field {
                    name: "password",
                    label: "Password",
                    kind: "password",
                    hint: Some(PASSWORD_HINT),
                    autocomplete: Some("new-password"),
                    ..Field::default()
                }.render(&self.errors))
                button.button type="submit" { "Create account" }
            }
            p.other { "Have an account? " a href=(self.to.on("/login")) { "Sign in" } }
        }
    }
}
