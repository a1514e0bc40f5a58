//! Applications that the person allowed to use the account.

use axum::extract::State;
use axum::response::Response;
use cp_domain::oauth::ConnectedApp;
use cp_model::ClientId;
use http::StatusCode;
use maud::{Markup, html};

use super::Done;
use crate::ApiState;
use crate::pages::brand::mark;
use crate::pages::csrf::Submitted;
use crate::pages::error_page::Failure;
use crate::pages::forms::{ask_first, csrf_field, hidden};
use crate::pages::layout::day;
use crate::pages::redirects::see_other;
use crate::pages::session::Visitor;

/// `POST /settings/apps/disconnect`
pub async fn disconnect(
    State(state): State<ApiState>,
    Submitted { visitor, fields }: Submitted,
) -> Result<Response, Failure> {
    let Some(by) = visitor.by() else {
        return Ok(see_other("/login"));
    };
    let client: ClientId = fields
        .text("client_id")
        .parse()
        .map_err(|_| Failure::unreadable(StatusCode::BAD_REQUEST))?;
    state.control_plane.disconnect_app(by, &client).await?;
    Ok(Done::AppDisconnected.answer())
}

pub fn section(visitor: &Visitor, apps: &[ConnectedApp]) -> Markup {
    html! {
        section aria-labelledby="apps" {
            h2 #apps { "Connected applications" }
            @if apps.is_empty() {
                p { "None. When you sign in to an application with InsForge, it is listed here." }
            } @else {
                ul.things {
                    @for app in apps {
                        li {
                            (mark(&app.client))
                            div.what {
                                h3 { (app.client.name) }
                                p.fine {
                                    "Since " (day(app.since))
                                    @match app.last_used_at {
                                        Some(time) => { " · last used " (day(time)) },
                                        None => " · not used yet",
                                    }
                                }
                                ul.fine {
                                    @for scope in app.scopes.iter() { li { (scope.in_plain_words()) } }
                                }
                            }
                            (ask_first("Disconnect", "The application is signed out at once and has to ask you again.", &html! {
                                form method="post" action="/settings/apps/disconnect" {
                                    (csrf_field(visitor))
                                    (hidden("client_id", app.client.id.as_str()))
                                    button.button.danger type="submit" { "Yes, disconnect it" }
                                }
                            }))
                        }
                    }
                }
            }
        }
    }
}
