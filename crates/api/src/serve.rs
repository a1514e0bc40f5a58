//! Serves the router on a socket until it is told to stop. Not by `axum::serve`, which gives
//! callers all the time they want to send their headers and waits for nothing but connections.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::serve::{Listener, ListenerExt};
use http::uri::PathAndQuery;
use http::{Request, Uri};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// How long requests in flight may go on after the order to stop. Long polls and waits end at
/// once ([`crate::ApiOptions::shutdown`]), so only real work is left.
const DRAIN: Duration = Duration::from_secs(15);

/// How long a connection may take to send the headers of its next request. hyper counts from the
/// end of the request before, so it must be more than the 60 seconds for which load balancers
/// usually keep an idle connection, or they would send requests into closed ones.
const HEADERS: Duration = Duration::from_secs(75);

/// Answers until `shutdown`, then lets the requests in flight end. Give [`crate::ApiOptions`] the
/// same token, or open long polls hold the stop up.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) -> io::Result<()> {
    // Small answers go out at once instead of waiting for an acknowledgement (RFC 896).
    let mut listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
    });
    let work = TaskTracker::new();
    loop {
        // axum's accept looks after errors: it logs them and tries again.
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (router, shutdown) = (router.clone(), shutdown.clone());
        work.spawn(converse(stream, address, router, work.clone(), shutdown));
    }
    drop(listener);
    work.close();
    if tokio::time::timeout(DRAIN, work.wait()).await.is_err() {
        tracing::warn!(
            seconds = DRAIN.as_secs(),
            "requests were still running when the time to stop was over"
        );
    }
    Ok(())
}

/// One connection, to its end. Each request gets its caller's address, and `work` for what shall
/// go on when the caller hangs up (`idempotency::see_through`).
async fn converse(
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    work: TaskTracker,
    shutdown: CancellationToken,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        collapse_slashes(request.uri_mut());
        let extensions = request.extensions_mut();
        extensions.insert(ConnectInfo(address));
        extensions.insert(work.clone());
        router.clone().oneshot(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "a connection ended early");
    }
}

/// Clients join base URL and path as text, so one whose base URL ends in `/` asks for `//auth/v1/…`
/// (contract/platform-api.md 2.1).
fn collapse_slashes(uri: &mut Uri) {
    let Some(asked) = uri.path_and_query().map(PathAndQuery::as_str) else {
        return;
    };
    if !asked.starts_with("//") {
        return;
    }
    let path = format!("/{}", asked.trim_start_matches('/'));
    if let Ok(path) = path.parse() {
        let mut parts = std::mem::take(uri).into_parts();
        parts.path_and_query = Some(path);
        *uri = Uri::from_parts(parts).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests;
