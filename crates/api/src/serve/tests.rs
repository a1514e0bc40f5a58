use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::Extension;
use axum::middleware::from_fn;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::*;
use crate::idempotency::see_through;

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn send(address: SocketAddr, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn requests_know_their_callers_address_and_idle_connections_do_not_hold_up_the_stop() {
    let (listener, address) = listen().await;
    let router = Router::new().route(
        "/",
        get(
            async |Extension(ConnectInfo(from)): Extension<ConnectInfo<SocketAddr>>| {
                from.to_string()
            },
        ),
    );
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, router, shutdown.clone()));
    let _silent = TcpStream::connect(address).await.unwrap();
    let mut stream = send(address, "").await;
    let mine = stream.local_addr().unwrap().to_string();
    let mut answer = vec![0; 1024];
    let length = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with(&mine), "{answer}");

    shutdown.cancel();
    let stopped = tokio::time::timeout(Duration::from_secs(5), serving).await;
    stopped
        .expect("stops although a connection is open")
        .unwrap()
        .unwrap();
}

/// A request whose caller hangs up as soon as it runs; tells whether it ran to its end before
/// `serve` ended.
async fn ran_to_its_end(headers: &str) -> bool {
    let (listener, address) = listen().await;
    let begun = Arc::new(Notify::new());
    let ended = Arc::new(AtomicBool::new(false));
    let work = {
        let (begun, ended) = (Arc::clone(&begun), Arc::clone(&ended));
        async move || {
            begun.notify_one();
            tokio::time::sleep(Duration::from_millis(300)).await;
            ended.store(true, Ordering::SeqCst);
        }
    };
    let router = Router::new()
        .route("/", get(work))
        .route_layer(from_fn(see_through));
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, router, shutdown.clone()));
    let stream = send(address, headers).await;
    begun.notified().await;
    drop(stream);
    // hyper has to see that the caller is gone before it is told to stop.
    tokio::time::sleep(Duration::from_millis(100)).await;
    shutdown.cancel();
    serving.await.unwrap().unwrap();
    ended.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_request_with_a_key_ends_without_its_caller_and_the_stop_waits_for_it() {
    assert!(ran_to_its_end("Idempotency-Key: k-1\r\n").await);
    assert!(
        !ran_to_its_end("").await,
        "without a key nobody could get the answer"
    );
}

#[test]
fn slashes_that_a_base_url_brings_are_one() {
    for (asked, means) in [
        ("/auth/v1/profile", "/auth/v1/profile"),
        ("//auth/v1/profile?x=//y", "/auth/v1/profile?x=//y"),
        ("///", "/"),
        ("//", "/"),
        ("/a//b", "/a//b"),
        ("*", "*"),
        ("http://x.example//a", "http://x.example/a"),
    ] {
        let mut uri: Uri = asked.parse().unwrap();
        collapse_slashes(&mut uri);
        assert_eq!(uri.to_string(), means, "{asked}");
    }
}
