//! Where the payment provider's pages lead back to, unless the operator has pages of their own.

use axum::response::Response;
use http::StatusCode;
use maud::{Markup, html};

use super::layout;
use super::session::Visitor;

pub async fn paid(visitor: Visitor) -> Response {
    show(&visitor, &PAID)
}

pub async fn not_paid(visitor: Visitor) -> Response {
    show(&visitor, &NOT_PAID)
}

pub async fn managed(visitor: Visitor) -> Response {
    show(&visitor, &MANAGED)
}

/// What came of it.
pub struct Outcome {
    title: &'static str,
    text: &'static str,
    command: &'static str,
}

pub const PAID: Outcome = Outcome {
    title: "Thank you",
    text: "Your organization has its new plan within a minute. To see it:",
    command: "insforge billing status",
};

pub const NOT_PAID: Outcome = Outcome {
    title: "Nothing was bought",
    text: "Your plan stays as it is. To try again:",
    command: "insforge billing upgrade",
};

pub const MANAGED: Outcome = Outcome {
    title: "You left the billing portal",
    text: "What you changed there counts within a minute. To see it:",
    command: "insforge billing status",
};

fn show(visitor: &Visitor, outcome: &Outcome) -> Response {
    let content = outcome.content();
    layout::page(visitor, StatusCode::OK, outcome.title, &content)
}

impl Outcome {
    pub fn content(&self) -> Markup {
        html! {
            h1 { (self.title) }
            p { (self.text) }
            p { code { (self.command) } }
            p { "You can close this page." }
        }
    }
}
