//! The pages that people see: signing in and up, allowing applications, joining organizations, what is
//! theirs here, what a branch would change, and what a partner used.
//! Rendered on the server, complete without a script, for keyboards, screen readers and phones.
//!
//! A page's way: [`session::around`] (cookies, error pages, security headers) → [`session::Visitor`]
//! or [`csrf::Submitted`] (who it is; whether the form is ours) → one `cp_domain` verb → a page or
//! a 303. One file per page, in the order form, submission, template.

mod assets;
mod authorize;
mod billing;
pub mod branch_diff;
mod brand;
mod consent;
mod csrf;
mod device;
mod error_page;
mod fields;
mod forgot_password;
mod forms;
mod invitation;
mod layout;
mod login;
mod logout;
pub mod redirects;
mod reset_password;
mod return_to;
mod security_headers;
mod session;
mod settings;
mod signup;
mod usage_report;
mod user_agent;
mod verify_email;

#[cfg(test)]
mod preview;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::{get, post};

use crate::ApiState;

/// Marks an answer that is a page: the front door leaves its body alone.
#[derive(Clone, Copy)]
pub struct Page;

/// All pages, and what they show.
pub fn routes() -> Router<ApiState> {
    let pages = Router::new()
        .route(authorize::PATH, get(authorize::show))
        .route("/consent", post(consent::submit))
        .route("/login", get(login::show).post(login::submit))
        .route("/login/code", post(login::send_code))
        .route("/logout", get(logout::show).post(logout::submit))
        .route("/signup", get(signup::show).post(signup::submit))
        .route(
            "/verify-email",
            get(verify_email::show).post(verify_email::submit_code),
        )
        .route("/verify-email/link", post(verify_email::submit_link))
        .route("/verify-email/resend", post(verify_email::resend))
        .route(
            "/forgot-password",
            get(forgot_password::show).post(forgot_password::submit),
        )
        .route(
            "/reset-password",
            get(reset_password::show).post(reset_password::submit),
        )
        .route("/device", get(device::show).post(device::find))
        .route("/device/decision", post(device::decide))
        .route(
            "/invitation",
            get(invitation::show).post(invitation::answer),
        )
        .route("/billing/paid", get(billing::paid))
        .route("/billing/not-paid", get(billing::not_paid))
        .route("/billing/managed", get(billing::managed))
        .route(usage_report::PATH, get(usage_report::show))
        .route(branch_diff::PATH, get(branch_diff::show))
        .route("/settings", get(settings::show))
        .route("/settings/password", post(settings::password::submit))
        .route("/settings/sessions/end", post(settings::sessions::end))
        .route(
            "/settings/sessions/end-others",
            post(settings::sessions::end_others),
        )
        .route(
            "/settings/apps/disconnect",
            post(settings::apps::disconnect),
        )
        .route("/settings/api-keys", post(settings::api_keys::create))
        .route(
            "/settings/api-keys/revoke",
            post(settings::api_keys::revoke),
        )
        .route_layer(from_fn(session::around));
    assets::routes().merge(pages)
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_two_pages_have_one_address() {
        // axum panics when two routes overlap.
        let _ = super::routes();
    }
}
