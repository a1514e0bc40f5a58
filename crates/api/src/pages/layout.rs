//! What all pages share: the document, its head, the way around, and the words for times.

use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use cp_domain::ControlPlane;
use cp_model::OAuthClient;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use maud::{DOCTYPE, Markup, html};

use super::assets::{ICON_PATH, STYLE_PATH};
use super::return_to::ReturnTo;
use super::security_headers::allow_form_to;
use super::session::Visitor;

/// How wide the content may get.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// One card: a form, a question, a message.
    Narrow,
    /// Lists.
    Wide,
    /// Texts side by side.
    Full,
}

/// The frame of one page.
pub struct Layout<'a> {
    /// Which page, and that something is wrong if it is: what a screen reader says first.
    pub title: &'a str,
    pub visitor: Option<&'a Visitor>,
    pub width: Width,
}

impl Layout<'_> {
    pub fn document(&self, content: &Markup) -> Markup {
        let signed_in = self.visitor.and_then(Visitor::by);
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="robots" content="noindex";
                    title { (self.title) " – InsForge" }
                    link rel="icon" type="image/svg+xml" href=(*ICON_PATH);
                    link rel="stylesheet" href=(*STYLE_PATH);
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    header.top {
                        div.inner {
                            span.brand {
                                img src=(*ICON_PATH) alt="" width="28" height="28";
                                "InsForge"
                            }
                            @if signed_in.is_some() {
                                nav aria-label="Account" {
                                    a href="/settings" { "Settings" }
                                    a href="/logout" { "Sign out" }
                                }
                            }
                        }
                    }
                    main #main class=(match self.width {
                        Width::Narrow => "narrow",
                        Width::Wide => "wide",
                        Width::Full => "wide full",
                    }) tabindex="-1" { (content) }
                }
            }
        }
    }

    pub fn answer(&self, status: StatusCode, content: &Markup) -> Response {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        let document = self.document(content).into_string();
        (status, [(CONTENT_TYPE, html)], document).into_response()
    }
}

/// A narrow page.
pub fn page(visitor: &Visitor, status: StatusCode, title: &str, content: &Markup) -> Response {
    let layout = Layout {
        title,
        visitor: Some(visitor),
        width: Width::Narrow,
    };
    layout.answer(status, content)
}

/// A narrow page on the way to an application, if `to` leads to one: its content may say to which,
/// and its form may end there.
pub async fn page_on_the_way(
    control_plane: &ControlPlane,
    visitor: &Visitor,
    status: StatusCode,
    title: &str,
    to: &ReturnTo,
    content: impl FnOnce(Option<&OAuthClient>) -> Markup,
) -> Response {
    let request = to.authorization(control_plane).await;
    let content = content(request.as_ref().map(|request| &*request.client));
    let mut response = page(visitor, status, title, &content);
    if let Some(request) = &request {
        allow_form_to(&mut response, &request.redirect_uri);
    }
    response
}

/// A time to the minute. Without a script we do not know the person's clock, so it says which.
pub fn moment(time: DateTime<Utc>) -> Markup {
    html! {
        time datetime=(time.to_rfc3339_opts(SecondsFormat::Secs, true)) {
            (time.format("%-d %B %Y, %H:%M UTC"))
        }
    }
}

/// A day.
pub fn day(time: DateTime<Utc>) -> Markup {
    html! {
        time datetime=(time.to_rfc3339_opts(SecondsFormat::Secs, true)) {
            (time.format("%-d %B %Y"))
        }
    }
}

/// What was done, on the page that one comes back to.
pub fn notice(text: &str) -> Markup {
    html! { p.notice role="status" { (text) } }
}
