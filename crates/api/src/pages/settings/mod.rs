//! `/settings`: what is a person's here, and ending it. One section per file; whatever cannot be
//! taken back opens a question first.

pub mod api_keys;
pub mod apps;
pub mod password;
pub mod sessions;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use cp_domain::oauth::ConnectedApp;
use cp_domain::people::{ApiKeySummary, BrowserSessionSummary};
use cp_domain::{ControlPlane, UserCaller};
use http::StatusCode;
use maud::{Markup, html};

use super::error_page::Failure;
use super::fields::Fields;
use super::forms::Errors;
use super::layout::{Layout, Width, day, notice};
use super::redirects::see_other;
use super::session::{SignedIn, Visitor};
use crate::ApiState;

pub async fn show(
    State(state): State<ApiState>,
    SignedIn { visitor, by }: SignedIn,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes()).unwrap_or_default();
    let holdings = Holdings::of(&state.control_plane, &by).await?;
    let page = Settings {
        holdings,
        done: Done::parse(fields.text("done")),
        password_errors: Errors::none(),
        key_form: api_keys::Form::default(),
    };
    Ok(page.answer(&visitor, &by, StatusCode::OK))
}

/// What was just done, as the address of the page says it: a closed set, since anybody can write
/// an address.
#[derive(Clone, Copy)]
pub enum Done {
    PasswordChanged,
    SessionEnded,
    OthersEnded,
    AppDisconnected,
    KeyRevoked,
    EmailVerified,
}

impl Done {
    const ALL: [Self; 6] = [
        Self::PasswordChanged,
        Self::SessionEnded,
        Self::OthersEnded,
        Self::AppDisconnected,
        Self::KeyRevoked,
        Self::EmailVerified,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::PasswordChanged => "password-changed",
            Self::SessionEnded => "session-ended",
            Self::OthersEnded => "others-ended",
            Self::AppDisconnected => "app-disconnected",
            Self::KeyRevoked => "key-revoked",
            Self::EmailVerified => "email-verified",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::PasswordChanged => "Your password is changed.",
            Self::SessionEnded => "The browser is signed out.",
            Self::OthersEnded => "All other browsers are signed out.",
            Self::AppDisconnected => "The application is disconnected.",
            Self::KeyRevoked => "The API key is revoked. It works no more.",
            Self::EmailVerified => "Your e-mail address is confirmed.",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|done| done.word() == word)
    }

    /// Back to the page, which says so.
    fn answer(self) -> Response {
        see_other(&format!("/settings?done={}", self.word()))
    }
}

/// What the person has.
pub struct Holdings {
    pub has_password: bool,
    pub sessions: Vec<BrowserSessionSummary>,
    pub apps: Vec<ConnectedApp>,
    pub keys: Vec<ApiKeySummary>,
}

impl Holdings {
    async fn of(control_plane: &ControlPlane, by: &UserCaller) -> Result<Self, Failure> {
        Ok(Self {
            has_password: control_plane.has_password(by).await?,
            sessions: control_plane.list_browser_sessions(by).await?,
            apps: control_plane.list_connected_apps(by).await?,
            keys: control_plane.list_api_keys(by).await?,
        })
    }
}

/// The whole page.
pub struct Settings<'a> {
    pub holdings: Holdings,
    pub done: Option<Done>,
    pub password_errors: Errors,
    pub key_form: api_keys::Form<'a>,
}

impl Settings<'_> {
    pub fn answer(&self, visitor: &Visitor, by: &UserCaller, status: StatusCode) -> Response {
        let has_errors = !self.password_errors.is_empty() || !self.key_form.errors.is_empty();
        let layout = Layout {
            title: if has_errors {
                "Error: Settings"
            } else {
                "Settings"
            },
            visitor: Some(visitor),
            width: Width::Wide,
        };
        layout.answer(status, &self.render(visitor, by))
    }

    pub fn render(&self, visitor: &Visitor, by: &UserCaller) -> Markup {
        html! {
            h1 { "Settings" }
            @if let Some(done) = self.done { (notice(done.text())) }
            nav.contents aria-label="On this page" {
                a href="#password" { "Password" }
                a href="#sessions" { "Browsers" }
                a href="#apps" { "Applications" }
                a href="#api-keys" { "API keys" }
            }
            (profile(by))
            (password::section(visitor, by, &self.password_errors, self.holdings.has_password))
            (sessions::section(visitor, &self.holdings.sessions))
            (apps::section(visitor, &self.holdings.apps))
            (api_keys::section(visitor, by, &self.holdings.keys, &self.key_form))
        }
    }
}

fn profile(by: &UserCaller) -> Markup {
    html! {
        section aria-labelledby="profile" {
            h2 #profile { "Profile" }
            dl.facts {
                div { dt { "Name" } dd { (by.user.name) } }
                div { dt { "E-mail address" } dd {
                    (by.user.email)
                    @if by.user.email_verified { " " span.tag { "confirmed" } }
                } }
                div { dt { "Member since" } dd { (day(by.user.created_at)) } }
            }
            @if !by.user.email_verified {
                p.warning { "Your e-mail address is not confirmed yet. Until then you cannot sign in to applications or make API keys." }
                p { a.button href="/verify-email" { "Confirm your address" } }
            }
        }
    }
}
