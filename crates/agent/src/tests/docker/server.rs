//! The server in its container, and the port that it is published at.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use axum::{
    Json, Router,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};

/// The server before may still be letting go of the port.
pub(super) async fn listen(port: u16) -> TcpListener {
    loop {
        if let Ok(socket) = bind(port)
            && let Ok(listener) = socket.listen(64)
        {
            return listener;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A socket that shares its port with others, of which one may listen.
pub(super) fn bind(port: u16) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    #[cfg(target_os = "macos")]
    socket.set_reuseport(true)?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
    Ok(socket)
}

/// What the probe asks of a backend (contract/project-backend.md section 4).
pub(super) fn server(release: &str, env: &BTreeMap<String, String>, seeded: bool) -> Router {
    let health = json!({"status": "ok", "version": release.trim_start_matches('v')});
    let key = format!("Bearer {}", env["ACCESS_API_KEY"]);
    let project = json!({"projectId": env["PROJECT_ID"]});
    Router::new()
        .route("/api/health", get(|| async { Json(health) }))
        .route(
            "/api/metadata/project-id",
            get(move |headers: HeaderMap| async move { who_asks(&headers, &key, seeded, project) }),
        )
}

fn who_asks(headers: &HeaderMap, key: &str, seeded: bool, project: Value) -> Response {
    if seeded && headers["authorization"] == key {
        Json(project).into_response()
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}
