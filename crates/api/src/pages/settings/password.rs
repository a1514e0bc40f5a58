//! A new password, for who knows the present one.

use axum::extract::State;
use axum::response::Response;
use cp_domain::{DomainError, UserCaller};
use http::StatusCode;
use http::header::RETRY_AFTER;
use maud::{Markup, html};
use secrecy::SecretString;

use super::{Done, Holdings, Settings, api_keys};
use crate::ApiState;
use crate::pages::csrf::Submitted;
use crate::pages::error_page::{Failure, too_many};
use crate::pages::forms::{Errors, Field, csrf_field};
use crate::pages::redirects::see_other;
use crate::pages::session::Visitor;
use crate::pages::signup::PASSWORD_HINT;

pub async fn submit(
    State(state): State<ApiState>,
    Submitted { visitor, fields }: Submitted,
) -> Result<Response, Failure> {
    let Some(by) = visitor.by() else {
        return Ok(see_other("/login"));
    };
    let current = fields.some("current_password").map(SecretString::from);
    let new = SecretString::from(fields.text("new_password"));
    let mut wait = None;
    let errors = match state
        .control_plane
        .change_password(by, current.as_ref(), &new)
        .await
    {
        Ok(()) => return Ok(Done::PasswordChanged.answer()),
        Err(DomainError::InvalidField(error)) => Errors::broken(
            &error,
            &[
                ("password", "new_password", "The new password"),
                ("new_password", "new_password", "The new password"),
                (
                    "current_password",
                    "current_password",
                    "The present password",
                ),
            ],
        ),
        Err(DomainError::Unauthorized) => {
            Errors::of("current_password", "This is not your present password.")
        }
        Err(DomainError::RateLimited { retry_after, .. }) => {
            wait = Some(retry_after);
            Errors::whole(format!("Too many attempts. {}", too_many(retry_after)))
        }
        Err(error) => return Err(error.into()),
    };
    let page = Settings {
        holdings: Holdings::of(&state.control_plane, by).await?,
        done: None,
        password_errors: errors,
        key_form: api_keys::Form::default(),
    };
    let Some(seconds) = wait else {
        return Ok(page.answer(&visitor, by, StatusCode::BAD_REQUEST));
    };
    let mut response = page.answer(&visitor, by, StatusCode::TOO_MANY_REQUESTS);
    response.headers_mut().insert(RETRY_AFTER, seconds.into());
    Ok(response)
}

/// An account that has signed in with mailed codes so far has no present password to ask for.
pub fn section(visitor: &Visitor, by: &UserCaller, errors: &Errors, has_password: bool) -> Markup {
    html! {
        section aria-labelledby="password" {
            h2 #password { "Password" }
            (errors.summary())
            form.column method="post" action="/settings/password" novalidate {
                (csrf_field(visitor))
                // Password managers keep the new one under this.
                input type="email" name="username" autocomplete="username" value=(by.user.email) readonly hidden;
                @if has_password {
                    (Field {
                        name: "current_password",
                        label: "Present password",
                        kind: "password",
                        autocomplete: Some("current-password"),
                        ..Field::default()
                    }.render(errors))
                } @else {
                    p { "You have no password yet and sign in with mailed codes." }
                }
                (Field {
                    name: "new_password",
                    label: "New password",
                    kind: "password",
                    hint: Some(PASSWORD_HINT),
                    autocomplete: Some("new-password"),
                    ..Field::default()
                }.render(errors))
                button.button type="submit" {
                    @if has_password { "Change password" } @else { "Set password" }
                }
            }
        }
    }
}
