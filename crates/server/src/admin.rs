//! The second listener, for operators alone: `/healthz`, `/readyz`, `/metrics`, and the queue board
//! on every other path. No authentication: it listens on loopback unless configured otherwise.

mod board;
mod metrics;

use std::io;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use cp_domain::ControlPlane;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use metrics::{Metrics, MetricsError};

#[derive(Clone)]
struct Admin {
    control_plane: ControlPlane,
    metrics: Metrics,
    /// Whose machines `/metrics` counts.
    provider: &'static str,
}

pub fn router(control_plane: ControlPlane, metrics: Metrics, provider: &'static str) -> Router {
    let board = board::router(control_plane.database().pool());
    let state = Admin {
        control_plane,
        metrics,
        provider,
    };
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(render_metrics))
        .with_state(state)
        .merge(board)
}

pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) -> io::Result<()> {
    if let Ok(address) = listener.local_addr()
        && !address.ip().is_loopback()
    {
        tracing::warn!(%address, "the admin listener has no authentication and can be reached from outside");
    }
    let serving = axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.clone().cancelled_owned())
        .into_future();
    // A board left open in a browser must not hold up the end.
    tokio::select! {
        ended = serving => ended,
        () = shutdown.cancelled() => Ok(()),
    }
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    match admin.control_plane.check_ready().await {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn render_metrics(
    State(admin): State<Admin>,
) -> ([(axum::http::HeaderName, &'static str); 1], String) {
    let text = admin
        .metrics
        .render(&admin.control_plane, admin.provider)
        .await;
    // Prometheus text exposition format 0.0.4.
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(axum::http::header::CONTENT_TYPE, kind)], text)
}
