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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::{Body, to_bytes};
    use axum::http::{Method, Request};
    use tower::ServiceExt as _;

    use super::*;
    use crate::config::Config;
    use crate::plane;

    /// The listener of a process whose database is away: nothing listens on port 1.
    fn without_database() -> Router {
        let mut config = Config::default();
        config.database.url = Some("postgres://postgres@127.0.0.1:1/x".into());
        config.database.acquire_timeout = Duration::from_millis(200).into();
        let key = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        config.secrets.sealing_key = Some(key.into());
        let database = plane::database(&config, "test").unwrap();
        let control_plane = plane::control_plane(&config, database, "http://127.0.0.1").unwrap();
        router(control_plane, Metrics::install().unwrap(), "local")
    }

    async fn answer(router: &Router, method: Method, path: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 10_000_000).await.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn without_its_database_a_process_is_alive_but_not_ready() {
        let router = without_database();
        let (status, _) = answer(&router, Method::GET, "/healthz").await;
        assert_eq!(status, StatusCode::OK);
        let (status, reason) = answer(&router, Method::GET, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(reason.contains("database"), "{reason}");
        let (status, metrics) = answer(&router, Method::GET, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(metrics.contains("\ninsforge_database_up 0\n"), "{metrics}");
    }

    #[tokio::test]
    async fn the_board_is_there_to_look_at_only() {
        let router = without_database();
        let (status, page) = answer(&router, Method::GET, "/").await;
        assert_eq!(status, StatusCode::OK);
        assert!(page.contains("<html"), "{page}");
        for method in [Method::PUT, Method::POST, Method::DELETE] {
            let (status, _) = answer(&router, method, "/api/v1/queues/operations/tasks").await;
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        }
    }
}
