//! `/invitation`: somebody is invited to an organization, and says yes or no. Looking at it answers nothing.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use cp_domain::{DomainError, OrganizationError, ShownInvitation, UserCaller};
use cp_model::MemberRole;
use http::StatusCode;
use maud::{Markup, html};

use super::csrf::Submitted;
use super::error_page::Failure;
use super::fields::{Fields, encode};
use super::forms::{csrf_field, hidden};
use super::layout;
use super::redirects::see_other;
use super::return_to::ReturnTo;
use super::session::{SignedIn, Visitor};
use crate::ApiState;

pub async fn show(
    State(state): State<ApiState>,
    SignedIn { visitor, by }: SignedIn,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes()).unwrap_or_default();
    let token = fields.text("token");
    if !by.user.email_verified {
        return Ok(see_other(&here(token).on("/verify-email")));
    }
    let invitation = state
        .control_plane
        .find_invitation(&by, token)
        .await
        .map_err(failure)?;
    let content = question(&visitor, &by, &invitation, token);
    let title = format!("Join {}?", invitation.organization);
    Ok(layout::page(&visitor, StatusCode::OK, &title, &content))
}

fn here(token: &str) -> ReturnTo {
    ReturnTo::to(&format!("/invitation?token={}", encode(token)))
}

/// `POST /invitation`
pub async fn answer(
    State(state): State<ApiState>,
    Submitted { visitor, fields }: Submitted,
) -> Result<Response, Failure> {
    let token = fields.text("token");
    let Some(by) = visitor.by() else {
        return Ok(see_other(&here(token).on("/login")));
    };
    let accept = match fields.text("decision") {
        "accept" => true,
        "decline" => false,
        _ => return Err(Failure::unreadable(StatusCode::BAD_REQUEST)),
    };
    let invitation = state
        .control_plane
        .answer_invitation(by, token, accept)
        .await
        .map_err(failure)?;
    let (title, content) = answered(&invitation, accept);
    Ok(layout::page(&visitor, StatusCode::OK, &title, &content))
}

fn failure(error: DomainError) -> Failure {
    match error {
        DomainError::ExpiredLink => Failure::ended_invitation(),
        DomainError::Organization(OrganizationError::OtherAddress(_)) => {
            Failure::from(error).leads_to("/logout", "Sign out")
        }
        error => error.into(),
    }
}

const fn may(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Administrator => {
            "As an administrator you can do everything there: work with its projects, delete them, change the plan and say who belongs to it."
        }
        MemberRole::Developer => {
            "As a developer you can work with its projects: make them, run them, use their data and branches."
        }
    }
}

pub fn question(
    visitor: &Visitor,
    by: &UserCaller,
    invitation: &ShownInvitation,
    token: &str,
) -> Markup {
    html! {
        h1 { "Join " (invitation.organization) "?" }
        p {
            (invitation.inviter_name) " (" strong { (invitation.inviter_email) } ") invites you to this organization on InsForge."
        }
        p { (may(invitation.role)) }
        p { "Its members see your name and your e-mail address." }
        form.choice method="post" action="/invitation" {
            (csrf_field(visitor))
            (hidden("token", token))
            button.button type="submit" name="decision" value="accept" { "Join" }
            button.button.quiet type="submit" name="decision" value="decline" { "Decline" }
        }
        div.account { p { "Signed in as " strong { (by.user.email) } } }
    }
}

pub fn answered(invitation: &ShownInvitation, accept: bool) -> (String, Markup) {
    let (title, text) = if accept {
        (
            format!("You belong to {}", invitation.organization),
            "Its projects are in your lists from now on, as with insforge list.",
        )
    } else {
        (
            "You declined the invitation".to_owned(),
            "Nothing changed. If it was a mistake, ask for a new invitation.",
        )
    };
    let content = html! {
        h1 { (title) }
        p { (text) " You can close this page." }
    };
    (title, content)
}
