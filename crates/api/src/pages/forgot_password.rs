//! `/forgot-password`: mails a link to choose a new password. The answer is the same whether the
//! address has an account.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use cp_domain::DomainError;
use http::StatusCode;
use http::header::RETRY_AFTER;
use maud::{Markup, html};

use super::csrf::Submitted;
use super::error_page::{Failure, too_many};
use super::fields::Fields;
use super::forms::{Errors, Field, csrf_field, return_field};
use super::layout;
use super::redirects::see_other;
use super::return_to::ReturnTo;
use super::session::Visitor;
use crate::ApiState;

const TITLE: &str = "Choose a new password";

pub async fn show(visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes()).unwrap_or_default();
    let to = ReturnTo::of(&fields);
    if fields.get("sent").is_some() {
        return layout::page(
            &visitor,
            StatusCode::OK,
            "Look at your mail",
            &sent(&visitor, &to),
        );
    }
    let email = visitor.by().map_or("", |by| by.user.email.as_str());
    let content = form(&visitor, &to, email, &Errors::none());
    layout::page(&visitor, StatusCode::OK, TITLE, &content)
}

pub async fn submit(
    State(state): State<ApiState>,
    Submitted { visitor, fields }: Submitted,
) -> Result<Response, Failure> {
    let to = ReturnTo::of(&fields);
    let email = fields.text("email").trim();
    let refused = |status, errors: &Errors| {
        let content = form(&visitor, &to, email, errors);
        layout::page(&visitor, status, &errors.title(TITLE), &content)
    };
    if let Err(error) = cp_model::field::email("email", email) {
        let errors = Errors::broken(&error, &[("email", "email", "The e-mail address")]);
        return Ok(refused(StatusCode::BAD_REQUEST, &errors));
    }
    match state
        .control_plane
        .request_password_reset(email, visitor.caller())
        .await
    {
        Ok(()) => {
            let mut then = see_other(&to.on("/forgot-password?sent=yes"));
            visitor.remember_address(&mut then, email);
            Ok(then)
        }
        Err(DomainError::RateLimited { retry_after, .. }) => {
            let errors = Errors::whole(format!("Too many attempts. {}", too_many(retry_after)));
            let mut response = refused(StatusCode::TOO_MANY_REQUESTS, &errors);
            response
                .headers_mut()
                .insert(RETRY_AFTER, retry_after.into());
            Ok(response)
        }
        Err(error) => Err(error.into()),
    }
}

pub fn form(visitor: &Visitor, to: &ReturnTo, email: &str, errors: &Errors) -> Markup {
    html! {
        h1 { (TITLE) }
        p { "Tell us your e-mail address. We mail you a link with which you choose a new password." }
        (errors.summary())
        form method="post" action="/forgot-password" novalidate {
            (csrf_field(visitor))
            (return_field(to))
            (Field {
                name: "email",
                label: "E-mail address",
                kind: "email",
                value: email,
                autocomplete: Some("username"),
                maxlength: Some(254),
                first: true,
                ..Field::default()
            }.render(errors))
            button.button type="submit" { "Mail me a link" }
        }
        p.other { a href=(to.on("/login")) { "Back to sign in" } }
    }
}

pub fn sent(visitor: &Visitor, to: &ReturnTo) -> Markup {
    html! {
        h1 { "Look at your mail" }
        p {
            @match visitor.mailed_address() {
                Some(address) => { "If " strong.address { (address) } " has an account, we mailed a link to it. " },
                None => "If the address has an account, we mailed a link to it. ",
            }
            "It works for one hour, once."
        }
        p.fine { "It can take a minute. Look among the unwanted mail, too." }
        p.other {
            a href=(to.on("/forgot-password")) { "Ask again" } " · "
            a href=(to.on("/login")) { "Back to sign in" }
        }
    }
}
