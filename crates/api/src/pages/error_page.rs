//! What a person sees when something did not work: what happened, and what to do next.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use cp_domain::oauth::OAuthError;
use cp_domain::{DomainError, OrganizationError, Thing};
use cp_model::RequestId;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use maud::{Markup, html};

use super::layout::{Layout, Width};
use super::session::Visitor;
use crate::problem::{Form, Problem};

/// One refusal, on its way to [`super::session::around`], which knows the rest of the page.
#[derive(Clone)]
pub struct Failure(Arc<Shown>);

struct Shown {
    heading: &'static str,
    text: Cow<'static, str>,
    next: Option<(Cow<'static, str>, &'static str)>,
    /// Status, headers, and what the front door logs.
    problem: Arc<Problem>,
}

impl Failure {
    fn new(problem: Problem, heading: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Shown {
            heading,
            text: text.into(),
            next: None,
            problem: Arc::new(problem),
        }))
    }

    /// A refusal of the pages themselves.
    fn plain(
        status: StatusCode,
        code: &'static str,
        heading: &'static str,
        text: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(Problem::new(status, code, ""), heading, text)
    }

    /// With a link to what to do next.
    pub fn leads_to(self, path: impl Into<Cow<'static, str>>, label: &'static str) -> Self {
        let shown = &self.0;
        Self(Arc::new(Shown {
            heading: shown.heading,
            text: shown.text.clone(),
            next: Some((path.into(), label)),
            problem: Arc::clone(&shown.problem),
        }))
    }

    pub fn internal(cause: &str) -> Self {
        Self::new(Problem::internal(cause), BROKEN.0, BROKEN.1)
    }

    /// The application sent the person here wrongly, and there is no safe way back to it.
    pub fn bad_authorization(error: &OAuthError) -> Self {
        let text = format!(
            "The application that sent you here made a mistake, so we cannot sign you in to it. \
             Go back and try again; if it happens again, tell the people who make the application: \
             {} ({}).",
            error.description.trim_end_matches('.'),
            error.code
        );
        Self::plain(
            StatusCode::BAD_REQUEST,
            error.code.as_str(),
            "This sign-in link does not work",
            text,
        )
    }

    /// As for one of somebody else: nobody learns what there is.
    pub fn no_branch() -> Self {
        Self::plain(
            StatusCode::NOT_FOUND,
            "branch.not_found",
            "There is no such branch",
            "It was deleted, or it is not yours. Ask whoever gave you the link.",
        )
    }

    /// A branch that cannot be compared now, or not at all.
    pub fn not_compared(problem: Problem) -> Self {
        if problem.status == StatusCode::SERVICE_UNAVAILABLE {
            return DomainError::Unavailable.into();
        }
        let text = problem.message.clone();
        Self::new(problem, "This branch cannot be compared now", text)
    }

    /// The link in a mail is used up, too old, or not whole.
    pub fn expired_link(next: &'static str, label: &'static str) -> Self {
        Self::plain(
            StatusCode::BAD_REQUEST,
            "expired_link",
            "This link does not work any more",
            "It has expired, was used already, or was not copied whole. Ask for a new one.",
        )
        .leads_to(next, label)
    }

    pub fn ended_invitation() -> Self {
        Self::plain(
            StatusCode::BAD_REQUEST,
            "expired_link",
            "This invitation does not work any more",
            "It was answered, taken back or replaced by a newer one, or its seven days are over. Ask \
             whoever invited you for a new one.",
        )
    }

    /// Nobody was ever given this link.
    pub fn wrong_report_link() -> Self {
        Self::plain(
            StatusCode::NOT_FOUND,
            "not_found",
            "This link does not lead to a report",
            "It was not copied whole, or something was changed in it. Ask whoever gave it to you \
             for a new one.",
        )
    }

    pub fn expired_report_link() -> Self {
        Self::plain(
            StatusCode::GONE,
            "expired_link",
            "This link does not work any more",
            "Links to a usage report open it for 10 minutes. Ask whoever gave it to you for a new \
             one.",
        )
    }

    pub fn suspended_partner() -> Self {
        Self::plain(
            StatusCode::FORBIDDEN,
            "partner_suspended",
            "This partnership is suspended",
            "Its usage cannot be shown until the suspension ends. Write to support.",
        )
    }

    pub fn foreign_form() -> Self {
        Self::plain(
            StatusCode::FORBIDDEN,
            "foreign_form",
            "This form came from another site",
            "To keep your account safe, we take forms from our own pages only. Nothing was changed.",
        )
        .leads_to("/settings", "Go to your settings")
    }

    pub fn no_cookie(path: &str) -> Self {
        Self::plain(
            StatusCode::FORBIDDEN,
            "no_cookie",
            "Your browser sent no cookie",
            "Signing in needs a cookie. Allow cookies for this site, then open the page again. \
             Nothing was changed.",
        )
        .leads_to(page_of_form(path), "Open the page again")
    }

    pub fn outdated_form(path: &str) -> Self {
        Self::plain(
            StatusCode::FORBIDDEN,
            "outdated_form",
            "This form is out of date",
            "You signed in or out in another tab since the page was opened. Nothing was changed. \
             Open the page again and repeat what you did.",
        )
        .leads_to(page_of_form(path), "Open the page again")
    }

    pub fn unreadable(status: StatusCode) -> Self {
        let text = if status == StatusCode::PAYLOAD_TOO_LARGE {
            "It is larger than the 64 KiB that we take. Nothing was changed."
        } else {
            "Something on the way damaged it. Nothing was changed. Go back and try again."
        };
        Self::plain(status, "invalid_input", "We could not read the form", text)
    }

    pub fn not_this_way() -> Self {
        Self::plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "This page cannot be opened by itself",
            "It is a step of something longer. Start again where you came from.",
        )
        .leads_to("/settings", "Go to your settings")
    }

    /// Hands it to [`super::session::around`].
    pub fn attach(self, response: &mut Response) {
        response.extensions_mut().insert(self);
    }

    /// The page itself. Headers that the answer has already stay.
    pub fn write(
        self,
        visitor: Option<&Visitor>,
        request_id: Option<&RequestId>,
        response: &mut Response,
    ) {
        let shown = &self.0;
        let page = Layout {
            title: shown.heading,
            visitor,
            width: Width::Narrow,
        }
        .document(&self.content(request_id));
        *response.status_mut() = shown.problem.status;
        *response.body_mut() = Body::from(page.into_string());
        let headers = response.headers_mut();
        headers.remove(CONTENT_LENGTH);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        );
        shown.problem.add_headers(Form::Platform, headers);
        // People do not authenticate by a header.
        headers.remove(WWW_AUTHENTICATE);
        // For the log of the front door.
        response.extensions_mut().insert(Arc::clone(&shown.problem));
    }

    pub fn content(&self, request_id: Option<&RequestId>) -> Markup {
        let shown = &self.0;
        html! {
            h1 { (shown.heading) }
            p { (shown.text) }
            @if let Some((path, label)) = &shown.next {
                p { a.button href=(path) { (label) } }
            }
            @if let Some(id) = request_id {
                p.fine { "If you write to support, name this request: " code.id { (id) } }
            }
        }
    }
}

/// The page that holds the form which was sent to `path`.
fn page_of_form(path: &str) -> &'static str {
    const PAGES: [&str; 7] = [
        "/login",
        "/logout",
        "/signup",
        "/verify-email",
        "/forgot-password",
        "/device",
        "/settings",
    ];
    let is_of = |page: &&&str| {
        path.strip_prefix(**page)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    PAGES.iter().find(is_of).copied().unwrap_or("/settings")
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.0.problem.status.into_response();
        self.attach(&mut response);
        response
    }
}

const BROKEN: (&str, &str) = (
    "Something went wrong on our side",
    "Try again in a moment. If it lasts, write to support.",
);

impl From<DomainError> for Failure {
    fn from(error: DomainError) -> Self {
        let (heading, text): (&str, Cow<str>) = match &error {
            DomainError::RateLimited { retry_after, .. } => {
                ("Too many attempts", too_many(*retry_after).into())
            }
            DomainError::Unavailable => (
                "We cannot do this just now",
                "Try again in a few seconds.".into(),
            ),
            DomainError::InvalidField(error) => (
                "That cannot be right",
                format!("{error}. Go back and change it.").into(),
            ),
            DomainError::NotFound(Thing::DeviceCode) => (
                "No device waits with this code",
                "Look at the code on the device again. It may have expired.".into(),
            ),
            DomainError::NotFound(Thing::Branch) => return Self::no_branch(),
            DomainError::NotFound(_) => (
                "This is not there any more",
                "It was removed in the meantime. Open the page again.".into(),
            ),
            DomainError::EmailNotVerified => {
                return Self::new(
                    error.into(),
                    "Confirm your e-mail address first",
                    "Enter the code or open the link that we mailed you.",
                )
                .leads_to("/verify-email", "Confirm your address");
            }
            DomainError::WrongCode => (
                "The code is wrong or has expired",
                "Go back and ask for a new one.".into(),
            ),
            DomainError::ExpiredLink => {
                return Self::expired_link("/login", "Go to the sign-in page");
            }
            DomainError::Unauthorized | DomainError::InsufficientScope { .. } => {
                return Self::plain(
                    StatusCode::FORBIDDEN,
                    "unauthorized",
                    "You need to sign in again",
                    "Your session does not allow this any more.",
                )
                .leads_to("/login", "Sign in");
            }
            DomainError::OAuth(error) => return Self::bad_authorization(error),
            DomainError::Organization(OrganizationError::OtherAddress(address)) => (
                "This invitation is for somebody else",
                format!("It was sent to {address}. Sign out, open the link again, and sign in with that address.").into(),
            ),
            DomainError::Conflict(message) => ("This does not work now", message.clone().into()),
            _ => (BROKEN.0, BROKEN.1.into()),
        };
        Self::new(error.into(), heading, text)
    }
}

/// When to come back, for people.
pub fn too_many(retry_after: u64) -> String {
    match retry_after {
        0..=1 => "Wait a second, then try again.".into(),
        2..=90 => format!("Wait {retry_after} seconds, then try again."),
        _ => format!("Wait {} minutes, then try again.", retry_after.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    async fn text(failure: Failure) -> (StatusCode, String) {
        let id = RequestId::from_caller("r-1").unwrap();
        let mut response = failure.clone().into_response();
        failure.write(None, Some(&id), &mut response);
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_failure_tells_its_request_and_not_its_cause() {
        let (status, page) = text(DomainError::Internal("password=hunter2".into()).into()).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(page.contains("r-1") && !page.contains("hunter2"));
    }

    #[tokio::test]
    async fn a_limit_says_when_to_come_back() {
        let (status, page) = text(
            DomainError::RateLimited {
                limit: 10,
                retry_after: 600,
            }
            .into(),
        )
        .await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        assert!(page.contains("Wait 10 minutes"));
    }

    #[test]
    fn a_form_leads_back_to_its_page() {
        assert_eq!(page_of_form("/settings/api-keys/revoke"), "/settings");
        assert_eq!(page_of_form("/login/code"), "/login");
        assert_eq!(page_of_form("/consent"), "/settings");
    }
}
