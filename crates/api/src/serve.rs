//! Serves the router on a socket until it is told to stop.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long requests in flight may go on after the order to stop. Long polls and waits end at
/// once ([`crate::ApiOptions::shutdown`]), so only real work is left.
const DRAIN: Duration = Duration::from_secs(15);

/// Answers until `shutdown`, then lets the requests in flight end. Give [`crate::ApiOptions`] the
/// same token, or open long polls hold the stop up.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) -> io::Result<()> {
    // Small answers go out at once instead of waiting for an acknowledgement (RFC 896).
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
    });
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, service)
        .with_graceful_shutdown(shutdown.clone().cancelled_owned())
        .into_future();
    tokio::select! {
        ended = serving => ended,
        () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => {
            tracing::warn!(seconds = DRAIN.as_secs(), "requests were still running when the time to stop was over");
            Ok(())
        }
    }
}
