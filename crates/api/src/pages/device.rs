//! `/device`: a person allows what waits on another device (RFC 8628 section 3.3). A link may
//! carry the code, but never skips a step: a stranger could have sent it (section 5.4).

use axum::extract::{RawQuery, State};
use axum::response::Response;
use cp_domain::oauth::DeviceRequest;
use cp_domain::{DomainError, Thing};
use http::StatusCode;
use http::header::RETRY_AFTER;
use maud::{Markup, html};

use super::brand::{mark, strip};
use super::consent::{homepage, permissions};
use super::csrf::Submitted;
use super::error_page::{Failure, too_many};
use super::fields::{Fields, encode};
use super::forms::{Errors, Field, csrf_field, hidden};
use super::layout::{self, moment};
use super::redirects::see_other;
use super::return_to::ReturnTo;
use super::session::{SignedIn, Visitor};
use super::user_agent::describe;
use crate::ApiState;

const TITLE: &str = "Connect a device";

pub async fn show(SignedIn { visitor, by }: SignedIn, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes()).unwrap_or_default();
    let code = fields.text("user_code");
    if !by.user.email_verified {
        return see_other(&here(code).on("/verify-email"));
    }
    let content = form(&visitor, code, &Errors::none());
    layout::page(&visitor, StatusCode::OK, TITLE, &content)
}

fn here(code: &str) -> ReturnTo {
    if code.is_empty() {
        ReturnTo::to("/device")
    } else {
        ReturnTo::to(&format!("/device?user_code={}", encode(code)))
    }
}

/// `POST /device`: finds the device and asks.
pub async fn find(
    State(state): State<ApiState>,
    Submitted { visitor, fields }: Submitted,
) -> Result<Response, Failure> {
    let code = fields.text("user_code").trim();
    let Some(by) = visitor.by() else {
        return Ok(see_other(&here(code).on("/login")));
    };
    if !by.user.email_verified {
        return Ok(see_other(&here(code).on("/verify-email")));
    }
    let mut wait = None;
    let (status, errors) = match state.control_plane.find_device(by, code).await {
        Ok(device) => {
            let content = question(&visitor, &device, &by.user.email);
            let title = format!("Connect {}?", device.client.name);
            return Ok(layout::page(&visitor, StatusCode::OK, &title, &content));
        }
        Err(DomainError::NotFound(Thing::DeviceCode) | DomainError::InvalidField(_)) => {
            let text = "No device waits with this code. Look at the device again; the code may \
                        have expired.";
            (StatusCode::BAD_REQUEST, Errors::of("user_code", text))
        }
        Err(DomainError::RateLimited { retry_after, .. }) => {
            wait = Some(retry_after);
            let text = format!("Too many attempts. {}", too_many(retry_after));
            (StatusCode::TOO_MANY_REQUESTS, Errors::whole(text))
        }
        Err(error) => return Err(error.into()),
    };
    let content = form(&visitor, code, &errors);
    let mut response = layout::page(&visitor, status, &errors.title(TITLE), &content);
    if let Some(seconds) = wait {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    Ok(response)
}

/// `POST /device/decision`
pub async fn decide(
    State(state): State<ApiState>,
    Submitted { visitor, fields }: Submitted,
) -> Result<Response, Failure> {
    let code = fields.text("user_code");
    let Some(by) = visitor.by() else {
        return Ok(see_other(&here(code).on("/login")));
    };
    let approve = match fields.text("decision") {
        "approve" => true,
        "deny" => false,
        _ => return Err(Failure::unreadable(StatusCode::BAD_REQUEST)),
    };
    match state.control_plane.decide_device(by, code, approve).await {
        Ok(()) => {}
        Err(error @ DomainError::NotFound(Thing::DeviceCode)) => {
            return Err(Failure::from(error).leads_to("/device", "Enter the code again"));
        }
        Err(error) => return Err(error.into()),
    }
    let (title, content) = decided(approve);
    Ok(layout::page(&visitor, StatusCode::OK, title, &content))
}

pub fn form(visitor: &Visitor, code: &str, errors: &Errors) -> Markup {
    html! {
        h1 { (TITLE) }
        p { "Enter the code that the device or program shows you." }
        (errors.summary())
        form method="post" action="/device" novalidate {
            (csrf_field(visitor))
            (Field {
                name: "user_code",
                label: "Code",
                value: code,
                hint: Some("Eight letters, such as BCDF-GHJK."),
                autocomplete: Some("off"),
                maxlength: Some(20),
                first: true,
                is_code: true,
                ..Field::default()
            }.render(errors))
            button.button type="submit" { "Continue" }
        }
    }
}

pub fn question(visitor: &Visitor, device: &DeviceRequest, email: &str) -> Markup {
    let client = &*device.client;
    html! {
        (strip(client))
        div.application {
            (mark(client))
            h1 { "Connect " (client.name) " to your InsForge account?" }
            (homepage(client))
        }
        p.warning { strong { "Only allow this if you started it yourself, just now." } " If somebody sent you the code or a link, do not allow it: they would get into your account." }
        (permissions(client, &device.scopes))
        h2 { "Where it was started" }
        dl.facts {
            div { dt { "Code" } dd { code { (device.user_code) } } }
            div { dt { "Program" } dd { (describe(device.user_agent.as_deref())) } }
            div { dt { "Network address" } dd { (device.address.as_deref().unwrap_or("unknown")) } }
            div { dt { "Time" } dd { (moment(device.created_at)) } }
        }
        form.choice method="post" action="/device/decision" {
            (csrf_field(visitor))
            (hidden("user_code", &device.user_code))
            button.button type="submit" name="decision" value="approve" { "Allow" }
            button.button.quiet type="submit" name="decision" value="deny" { "Do not allow" }
        }
        div.account { p { "Signed in as " strong { (email) } } }
    }
}

pub fn decided(approve: bool) -> (&'static str, Markup) {
    let (title, text) = if approve {
        (
            "The device is connected",
            "Go back to it: it goes on by itself within a few seconds.",
        )
    } else {
        (
            "The device is not connected",
            "It was told so. Nothing else changed.",
        )
    };
    let content = html! {
        h1 { (title) }
        p { (text) " You can close this page." }
        p { a.button.quiet href="/settings#apps" { "See connected applications" } }
    };
    (title, content)
}
