//! Who looks at a page. A browser has one cookie: the secret of its session when somebody is
//! signed in, and before that a random one without a session, to which the forms' CSRF tokens are
//! tied. It changes at each sign-in, so nobody can fix it beforehand (RFC 6819 section 4.4.1.14,
//! session fixation).

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use axum::extract::{FromRequestParts, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cp_domain::{Caller, ControlPlane, UserCaller};
use cp_model::{RequestId, UserId};
use http::header::{CONTENT_TYPE, COOKIE, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

use super::error_page::Failure;
use super::fields::encode;
use super::redirects::see_other;
use super::return_to::ReturnTo;
use super::{Page, security_headers};
use crate::ApiState;
use crate::caller::user_agent;

/// As long as a session can last (90 days).
const SESSION_SECONDS: u32 = 90 * 24 * 3600;
/// As long as a mailed code is good.
const ADDRESS_SECONDS: u32 = 15 * 60;
/// The longest cookie that is looked at: an address of 254 characters, percent-encoded.
const MAX_COOKIE: usize = 1024;

/// The browser that asks.
#[derive(Clone)]
pub struct Visitor(Arc<Known>);

struct Known {
    cookie: SecretString,
    cookie_is_new: bool,
    csrf_token: String,
    by: Option<UserCaller>,
    caller: Caller,
    user_agent: Option<String>,
    mailed_address: Option<String>,
    cookies: Cookies,
}

impl Visitor {
    async fn of(control_plane: &ControlPlane, parts: &Parts) -> Result<Self, Failure> {
        let caller = caller(parts);
        let cookies = Cookies::of(control_plane);
        // Not what another program on the same host, a laptop's, keeps under this name.
        let sent = sent_cookie(&parts.headers, cookies.session()).filter(|cookie| {
            control_plane.is_csrf_token(cookie, &control_plane.csrf_token(cookie))
        });
        let by = match &sent {
            Some(cookie) => control_plane.browser_session(cookie, &caller).await?,
            None => None,
        };
        let cookie_is_new = sent.is_none();
        let cookie = match sent {
            Some(cookie) => SecretString::from(cookie),
            None => control_plane.new_visitor_cookie(),
        };
        let mailed_address = sent_cookie(&parts.headers, cookies.address())
            .and_then(|value| Some(percent_decode_str(&value).decode_utf8().ok()?.into_owned()))
            .filter(|address| !address.chars().any(char::is_control));
        Ok(Self(Arc::new(Known {
            csrf_token: control_plane.csrf_token(cookie.expose_secret()),
            cookie,
            cookie_is_new,
            by,
            caller,
            user_agent: user_agent(&parts.headers).map(str::to_owned),
            mailed_address,
            cookies,
        })))
    }

    /// Somebody, for looking at pages.
    #[cfg(test)]
    pub fn sample(by: Option<UserCaller>) -> Self {
        Self(Arc::new(Known {
            csrf_token: "sample".into(),
            cookie: SecretString::from("sample"),
            cookie_is_new: false,
            by,
            caller: Caller {
                request_id: RequestId::generate(),
                address: None,
            },
            user_agent: None,
            mailed_address: Some("ada@example.com".into()),
            cookies: Cookies { secure: true },
        }))
    }

    /// Who is signed in.
    pub fn by(&self) -> Option<&UserCaller> {
        self.0.by.as_ref()
    }

    pub fn caller(&self) -> &Caller {
        &self.0.caller
    }

    pub fn user_agent(&self) -> Option<&str> {
        self.0.user_agent.as_deref()
    }

    /// For the hidden field of every form.
    pub fn csrf_token(&self) -> &str {
        &self.0.csrf_token
    }

    /// What CSRF tokens are tied to.
    pub fn cookie(&self) -> &str {
        self.0.cookie.expose_secret()
    }

    /// Whether the browser sent no cookie of ours.
    pub fn is_new(&self) -> bool {
        self.0.cookie_is_new
    }

    /// To which address this browser lately had a code mailed.
    pub fn mailed_address(&self) -> Option<&str> {
        self.0.mailed_address.as_deref()
    }

    /// Remembers for a quarter of an hour where a code was mailed to, so that the page can say so
    /// without the address standing in a URL.
    pub fn remember_address(&self, response: &mut Response, address: &str) {
        if address.is_empty() {
            return;
        }
        let cookies = self.0.cookies;
        cookies.write(
            response,
            cookies.address(),
            &encode(address),
            Some(ADDRESS_SECONDS),
        );
    }

    /// Signs the person in.
    pub async fn sign_in(
        &self,
        control_plane: &ControlPlane,
        user: UserId,
        then: Response,
    ) -> Result<Response, Failure> {
        let session = control_plane
            .begin_browser_session(user, self.caller(), self.user_agent())
            .await?;
        self.keep_session(control_plane, &session, then).await
    }

    /// Gives the browser the cookie of a session that was just begun. What it had before ends.
    pub async fn keep_session(
        &self,
        control_plane: &ControlPlane,
        session: &SecretString,
        mut then: Response,
    ) -> Result<Response, Failure> {
        if self.by().is_some() {
            control_plane
                .end_browser_session(self.cookie(), self.caller())
                .await?;
        }
        let cookies = self.0.cookies;
        let value = session.expose_secret();
        cookies.write(&mut then, cookies.session(), value, Some(SESSION_SECONDS));
        Ok(then)
    }

    /// Ends this browser's session, if it has one.
    pub async fn sign_out(
        &self,
        control_plane: &ControlPlane,
        mut then: Response,
    ) -> Result<Response, Failure> {
        if self.by().is_some() {
            control_plane
                .end_browser_session(self.cookie(), self.caller())
                .await?;
        }
        let cookies = self.0.cookies;
        cookies.write(&mut then, cookies.session(), "", Some(0));
        Ok(then)
    }

    /// Gives a new browser its cookie along with a page.
    fn greet(&self, response: &mut Response) {
        if self.is_new() {
            let cookies = self.0.cookies;
            cookies.write(response, cookies.session(), self.cookie(), None);
        }
    }
}

/// Names and attributes of our cookies. `__Host-` keeps other hosts from setting them; it demands
/// `Secure`, which plain http (a laptop) cannot have.
#[derive(Clone, Copy)]
struct Cookies {
    secure: bool,
}

impl Cookies {
    fn of(control_plane: &ControlPlane) -> Self {
        Self {
            secure: control_plane.settings().base_url.starts_with("https://"),
        }
    }

    const fn session(self) -> &'static str {
        if self.secure {
            "__Host-session"
        } else {
            "session"
        }
    }

    const fn address(self) -> &'static str {
        if self.secure {
            "__Host-address"
        } else {
            "address"
        }
    }

    /// `value` is URL-safe. Without an age the browser forgets it when it is closed.
    fn write(self, response: &mut Response, name: &str, value: &str, max_age: Option<u32>) {
        let secure = if self.secure { "; Secure" } else { "" };
        let max_age = max_age.map_or_else(String::new, |seconds| format!("; Max-Age={seconds}"));
        let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{max_age}");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }
}

/// The first cookie of this name that is not empty.
fn sent_cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(known, value)| *known == name && !value.is_empty())
        .map(|(_, value)| value.to_owned())
        .filter(|value| value.len() <= MAX_COOKIE)
}

/// What the front door found out; in a router without one, nothing.
pub fn caller(parts: &Parts) -> Caller {
    parts.extensions.get().cloned().unwrap_or_else(|| Caller {
        request_id: RequestId::generate(),
        address: None::<IpAddr>,
    })
}

/// Where a request's visitor is kept, once it is known.
#[derive(Clone, Default)]
struct Slot(Arc<OnceLock<Visitor>>);

impl FromRequestParts<ApiState> for Visitor {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Failure> {
        let slot = parts.extensions.get::<Slot>().cloned().unwrap_or_default();
        if let Some(known) = slot.0.get() {
            return Ok(known.clone());
        }
        let visitor = Self::of(&state.control_plane, parts).await?;
        Ok(slot.0.get_or_init(|| visitor).clone())
    }
}

/// A browser in which somebody is signed in; others are sent to sign in first.
pub struct SignedIn {
    pub visitor: Visitor,
    pub by: UserCaller,
}

impl FromRequestParts<ApiState> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Response> {
        let visitor = Visitor::from_request_parts(parts, state)
            .await
            .map_err(IntoResponse::into_response)?;
        match visitor.by().cloned() {
            Some(by) => Ok(Self { visitor, by }),
            None => Err(see_other(&here(parts).on("/login"))),
        }
    }
}

/// The page that was asked for. What was sent by a form is gone after signing in, so its answer
/// is no page to come back to.
fn here(parts: &Parts) -> ReturnTo {
    if parts.method != Method::GET {
        return ReturnTo::default();
    }
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    ReturnTo::to(path)
}

/// Around every page: error pages, the cookie of a new browser, security headers.
pub async fn around(mut request: Request, next: Next) -> Response {
    let slot = Slot::default();
    request.extensions_mut().insert(slot.clone());
    let request_id = request
        .extensions()
        .get::<Caller>()
        .map(|caller| caller.request_id.clone());

    let mut response = next.run(request).await;

    let visitor = slot.0.get();
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        Failure::not_this_way().attach(&mut response);
    }
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        failure.write(visitor, request_id.as_ref(), &mut response);
    }
    let is_html = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if let Some(visitor) = visitor.filter(|_| is_html) {
        visitor.greet(&mut response);
    }
    security_headers::add(&mut response);
    response.extensions_mut().insert(Page);
    response
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::problem::Problem;

    const PLAIN: Cookies = Cookies { secure: false };
    const SECURE: Cookies = Cookies { secure: true };

    #[test]
    fn the_cookie_is_out_of_reach_for_scripts_and_other_hosts() {
        let mut response = "".into_response();
        SECURE.write(&mut response, SECURE.session(), "ibs_x", Some(60));
        assert_eq!(
            response.headers()[SET_COOKIE],
            "__Host-session=ibs_x; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=60"
        );
        let mut response = "".into_response();
        PLAIN.write(&mut response, PLAIN.session(), "ibs_x", None);
        assert_eq!(
            response.headers()[SET_COOKIE],
            "session=ibs_x; Path=/; HttpOnly; SameSite=Lax"
        );
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, "a=b; xsession=no;  session=yes".parse().unwrap());
        headers.append(COOKIE, "session=later".parse().unwrap());
        assert_eq!(sent_cookie(&headers, "session").as_deref(), Some("yes"));
        assert_eq!(
            sent_cookie(&headers, SECURE.session()),
            None,
            "a plain cookie, which a sibling host can set, is no secure one"
        );
        let long = format!("session={}", "x".repeat(MAX_COOKIE + 1));
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, long.parse().unwrap());
        assert_eq!(sent_cookie(&headers, "session"), None);
    }

    async fn ask(method: &str) -> Response {
        let pages = Router::new()
            .route("/x", get(async || Failure::internal("hunter2")))
            .route_layer(from_fn(around));
        let request = Request::builder().method(method).uri("/x");
        pages
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_failure_is_a_page_with_all_of_its_protection() {
        let response = ask("GET").await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(response.extensions().get::<Page>().is_some());
        assert!(
            response.extensions().get::<Arc<Problem>>().is_some(),
            "for the log"
        );
        for (header, value) in [
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(response.headers()[header], value);
        }
        assert!(response.headers().contains_key("content-security-policy"));
        assert!(
            !response
                .headers()
                .contains_key("cross-origin-opener-policy"),
            "a popup needs its opener"
        );
        let page = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let page = String::from_utf8(page.to_vec()).unwrap();
        assert!(page.starts_with("<!DOCTYPE html>") && !page.contains("hunter2"));
    }

    #[tokio::test]
    async fn a_step_that_is_opened_by_itself_says_so() {
        let response = ask("POST").await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert!(response.headers().contains_key("allow"));
        let page = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        assert!(
            String::from_utf8(page.to_vec())
                .unwrap()
                .contains("by itself")
        );
    }

    #[test]
    fn after_signing_in_a_form_is_not_sent_again() {
        let parts = |method| {
            let request = http::Request::builder().method(method).uri("/device?x=1");
            request.body(()).unwrap().into_parts().0
        };
        assert_eq!(here(&parts(Method::GET)).as_str(), Some("/device?x=1"));
        assert_eq!(here(&parts(Method::POST)).as_str(), None);
    }
}
