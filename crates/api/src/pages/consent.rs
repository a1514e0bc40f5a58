//! `/consent`: shown in the course of an authorization; asks whether an application may have what
//! it asks for.

use axum::extract::State;
use axum::response::Response;
use cp_domain::UserCaller;
use cp_domain::oauth::{AuthorizationRequest, OAuthError, OAuthErrorCode};
use cp_model::{OAuthClient, Scopes};
use http::StatusCode;
use maud::{Markup, html};

use super::authorize::{self, Checked};
use super::brand::{mark, place_of, strip};
use super::csrf::Submitted;
use super::error_page::Failure;
use super::fields::Fields;
use super::forms::{csrf_field, hidden};
use super::layout;
use super::redirects::{refuse, see_other};
use super::return_to::ReturnTo;
use super::security_headers::allow_form_to;
use super::session::Visitor;
use crate::ApiState;

/// The question. Its form carries the whole request, which is checked again when it comes back.
pub fn page(
    visitor: &Visitor,
    by: &UserCaller,
    request: &AuthorizationRequest,
    fields: &Fields,
) -> Response {
    let client = &*request.client;
    let title = format!("Allow {}?", client.name);
    let content = question(visitor, by, request, fields);
    let mut response = layout::page(visitor, StatusCode::OK, &title, &content);
    allow_form_to(&mut response, &request.redirect_uri);
    response
}

pub fn question(
    visitor: &Visitor,
    by: &UserCaller,
    request: &AuthorizationRequest,
    fields: &Fields,
) -> Markup {
    let client = &*request.client;
    html! {
        (strip(client))
        div.application {
            (mark(client))
            h1 { "Allow " (client.name) " to use your InsForge account?" }
            (homepage(client))
        }
        (permissions(client, &request.scopes))
        form.choice method="post" action="/consent" {
            (csrf_field(visitor))
            @for (name, value) in authorize::known(fields) { (hidden(name, value)) }
            button.button type="submit" name="decision" value="approve" { "Allow" }
            button.button.quiet type="submit" name="decision" value="deny" { "Do not allow" }
        }
        p.fine {
            "Either way you will be sent to " strong { (place_of(&request.redirect_uri)) } ". "
            "You can take this back at any time in your " a href="/settings#apps" { "settings" } "."
        }
        div.account {
            p { "Signed in as " strong { (by.user.email) } }
            form method="post" action="/logout" {
                (csrf_field(visitor))
                (hidden("return_to", &authorize::path_of(fields)))
                button.link type="submit" { "Not you? Use another account" }
            }
        }
    }
}

/// Where the application says it is at home.
pub fn homepage(client: &OAuthClient) -> Markup {
    html! {
        @if client.first_party {
            p.place { "by InsForge" }
        } @else if let Some(homepage) = &client.homepage_url {
            p.place { (place_of(homepage)) }
        }
    }
}

pub fn permissions(client: &OAuthClient, scopes: &Scopes) -> Markup {
    html! {
        h2 #permissions { (client.name) " will be able to:" }
        ul.permissions aria-labelledby="permissions" {
            @for scope in scopes.iter() {
                li { (scope.in_plain_words()) }
            }
            @if client.first_party {
                li { "Do everything else that you can do here: it is a program of InsForge" }
            }
        }
    }
}

pub async fn submit(
    State(state): State<ApiState>,
    Submitted { visitor, fields }: Submitted,
) -> Result<Response, Failure> {
    let control_plane = &state.control_plane;
    let again = ReturnTo::to(&authorize::path_of(&fields));
    let Some(by) = visitor.by() else {
        return Ok(see_other(&again.on("/login")));
    };
    let request = match authorize::check(control_plane, &fields).await? {
        Checked::Good(request) => request,
        Checked::Refused(redirect) => return Ok(redirect),
    };
    match fields.text("decision") {
        "approve" if by.user.email_verified => {
            authorize::approve(control_plane, by, &request, true).await
        }
        "approve" => Ok(see_other(&again.on("/verify-email"))),
        "deny" => {
            control_plane.note_denial(by, &request).await?;
            let error = OAuthError::new(
                OAuthErrorCode::AccessDenied,
                "The person denied the request",
            );
            Ok(refuse(
                control_plane,
                &request.redirect_uri,
                Some(&request.state),
                &error,
            ))
        }
        _ => Err(Failure::unreadable(StatusCode::BAD_REQUEST)),
    }
}
