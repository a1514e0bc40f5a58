//! `/logout`. A link alone signs nobody out: any site could hold it.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use maud::html;

use super::csrf::Submitted;
use super::error_page::Failure;
use super::forms::csrf_field;
use super::layout;
use super::redirects::see_other;
use super::return_to::ReturnTo;
use super::session::Visitor;
use crate::ApiState;

pub async fn show(visitor: Visitor) -> Response {
    let Some(by) = visitor.by() else {
        return see_other("/login");
    };
    let content = html! {
        h1 { "Sign out?" }
        p { "You are signed in as " strong { (by.user.email) } " in this browser." }
        p.fine { "Applications that you allowed stay signed in. You can disconnect them in your settings." }
        form method="post" action="/logout" {
            (csrf_field(&visitor))
            button.button type="submit" { "Sign out" }
            a.button.quiet href="/settings" { "Stay signed in" }
        }
    };
    layout::page(&visitor, StatusCode::OK, "Sign out", &content)
}

pub async fn submit(
    State(state): State<ApiState>,
    Submitted { visitor, fields }: Submitted,
) -> Result<Response, Failure> {
    let to = ReturnTo::of(&fields);
    let then = see_other(to.as_str().unwrap_or("/login?done=signed-out"));
    visitor.sign_out(&state.control_plane, then).await
}
