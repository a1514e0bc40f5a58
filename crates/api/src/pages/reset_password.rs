//! `/reset-password`: a new password, for who holds the mailed link. Looking at it does not use it
//! up.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use cp_domain::DomainError;
use cp_domain::people::LinkPurpose;
use http::StatusCode;
use maud::{Markup, html};
use secrecy::SecretString;

use super::csrf::Submitted;
use super::error_page::Failure;
use super::fields::Fields;
use super::forms::{Errors, Field, csrf_field, hidden};
use super::layout;
use super::redirects::see_other;
use super::session::Visitor;
use super::signup::PASSWORD_HINT;
use crate::ApiState;

const TITLE: &str = "Choose a new password";

pub async fn show(
    State(state): State<ApiState>,
    visitor: Visitor,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes()).unwrap_or_default();
    let token = fields.text("token");
    match state.control_plane.look_at_link(token).await {
        Ok(LinkPurpose::ResetPassword { .. }) => {
            let content = form(&visitor, token, &Errors::none());
            Ok(layout::page(&visitor, StatusCode::OK, TITLE, &content))
        }
        Ok(_) | Err(DomainError::ExpiredLink) => Err(expired()),
        Err(error) => Err(error.into()),
    }
}

pub async fn submit(
    State(state): State<ApiState>,
    Submitted { visitor, fields }: Submitted,
) -> Result<Response, Failure> {
    let control_plane = &state.control_plane;
    let token = fields.text("token");
    let password = SecretString::from(fields.text("password"));
    match control_plane
        .reset_password(token, &password, visitor.caller())
        .await
    {
        Ok(_) => {
            // Signing in with the new password right away shows that it is the one they meant.
            let then = see_other("/login?done=password-changed");
            visitor.sign_out(control_plane, then).await
        }
        Err(DomainError::InvalidField(error)) => {
            let errors = Errors::broken(&error, &[("password", "password", "The password")]);
            let content = form(&visitor, token, &errors);
            let title = errors.title(TITLE);
            Ok(layout::page(
                &visitor,
                StatusCode::BAD_REQUEST,
                &title,
                &content,
            ))
        }
        Err(DomainError::ExpiredLink) => Err(expired()),
        Err(error) => Err(error.into()),
    }
}

fn expired() -> Failure {
    Failure::expired_link("/forgot-password", "Ask for a new link")
}

pub fn form(visitor: &Visitor, token: &str, errors: &Errors) -> Markup {
    html! {
        h1 { (TITLE) }
        p { "This also signs you out everywhere, disconnects all applications and revokes all API keys, in case somebody else got in." }
        (errors.summary())
        form method="post" action="/reset-password" novalidate {
            (csrf_field(visitor))
            (hidden("token", token))
            (Field {
                name: "password",
                label: "New password",
                kind: "password",
                hint: Some(PASSWORD_HINT),
                autocomplete: Some("new-password"),
                first: true,
                ..Field::default()
            }.render(errors))
            button.button type="submit" { "Save the password" }
        }
    }
}
