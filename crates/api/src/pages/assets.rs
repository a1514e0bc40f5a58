//! The stylesheet and the icon, in the binary. Their addresses hold a hash of their content, so
//! that browsers may keep them for ever and still see each release's own.

use std::sync::LazyLock;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};

use crate::ApiState;

const STYLE: &str = include_str!("style.css");
const ICON: &str = include_str!("icon.svg");

/// Where the stylesheet is.
pub static STYLE_PATH: LazyLock<String> =
    LazyLock::new(|| format!("/assets/style-{:016x}.css", fnv1a(STYLE)));
/// Where the icon is.
pub static ICON_PATH: LazyLock<String> =
    LazyLock::new(|| format!("/assets/icon-{:016x}.svg", fnv1a(ICON)));

/// FNV-1a of 64 bits: it tells releases apart and need withstand nobody.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

pub fn routes() -> Router<ApiState> {
    Router::new()
        .route(
            &STYLE_PATH,
            get(async || asset("text/css; charset=utf-8", STYLE)),
        )
        .route(&ICON_PATH, get(async || asset("image/svg+xml", ICON)))
}

fn asset(kind: &'static str, content: &'static str) -> Response {
    let mut response = content.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // An SVG that is opened by itself is a document.
        (CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
