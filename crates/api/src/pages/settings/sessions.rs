//! Browsers in which the person is signed in.

use axum::extract::State;
use axum::response::Response;
use cp_domain::people::BrowserSessionSummary;
use cp_model::BrowserSessionId;
use http::StatusCode;
use maud::{Markup, html};

use super::Done;
use crate::ApiState;
use crate::pages::csrf::Submitted;
use crate::pages::error_page::Failure;
use crate::pages::forms::{ask_first, csrf_field, hidden};
use crate::pages::layout::moment;
use crate::pages::redirects::see_other;
use crate::pages::session::Visitor;
use crate::pages::user_agent::describe;

/// `POST /settings/sessions/end`
pub async fn end(
    State(state): State<ApiState>,
    Submitted { visitor, fields }: Submitted,
) -> Result<Response, Failure> {
    let Some(by) = visitor.by() else {
        return Ok(see_other("/login"));
    };
    let id: BrowserSessionId = fields
        .text("id")
        .parse()
        .map_err(|_| Failure::unreadable(StatusCode::BAD_REQUEST))?;
    state.control_plane.revoke_browser_session(by, id).await?;
    Ok(Done::SessionEnded.answer())
}

/// `POST /settings/sessions/end-others`
pub async fn end_others(
    State(state): State<ApiState>,
    Submitted { visitor, .. }: Submitted,
) -> Result<Response, Failure> {
    let Some(by) = visitor.by() else {
        return Ok(see_other("/login"));
    };
    state
        .control_plane
        .revoke_other_browser_sessions(by)
        .await?;
    Ok(Done::OthersEnded.answer())
}

pub fn section(visitor: &Visitor, sessions: &[BrowserSessionSummary]) -> Markup {
    html! {
        section aria-labelledby="sessions" {
            h2 #sessions { "Browsers that are signed in" }
            ul.things {
                @for session in sessions {
                    li {
                        div.what {
                            h3 {
                                (describe(session.user_agent.as_deref()))
                                @if session.is_this_one { " " span.tag { "this browser" } }
                            }
                            p.fine {
                                "From " (session.address.as_deref().unwrap_or("an unknown address"))
                                " · signed in " (moment(session.created_at))
                                " · last seen " (moment(session.last_seen_at))
                            }
                        }
                        @if session.is_this_one {
                            form method="post" action="/logout" {
                                (csrf_field(visitor))
                                button.button.quiet type="submit" { "Sign out" }
                            }
                        } @else {
                            (ask_first("Sign out", "Sign this browser out?", &html! {
                                form method="post" action="/settings/sessions/end" {
                                    (csrf_field(visitor))
                                    (hidden("id", &session.id.to_string()))
                                    button.button.danger type="submit" { "Yes, sign it out" }
                                }
                            }))
                        }
                    }
                }
            }
            @if sessions.len() > 1 {
                (ask_first("Sign out all other browsers", "Sign out everywhere but here?", &html! {
                    form method="post" action="/settings/sessions/end-others" {
                        (csrf_field(visitor))
                        button.button.danger type="submit" { "Yes, sign them out" }
                    }
                }))
            }
        }
    }
}
