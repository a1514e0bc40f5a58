//! Where an application on this computer takes people back: a listener on a loopback port, which is
//! what the command-line client and every native application has (RFC 8252 section 7.3).

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::get;
use reqwest::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// The parameters that a person was sent back with.
pub type Returned = BTreeMap<String, String>;

/// What a person sees when they are back.
pub const BACK: &str = "You can close this window.";

pub struct Callback {
    /// `http://127.0.0.1:<port>/callback`
    pub url: String,
    returned: Mutex<UnboundedReceiver<Returned>>,
    serving: JoinHandle<()>,
}

impl Callback {
    /// On a port that the system chooses.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a loopback port is free");
        let address = listener.local_addr().expect("it has an address");
        let (tell, returned) = unbounded_channel();
        let port = address.port();
        let router = Router::new()
            .route("/callback", get(take))
            .route("/back", get(back))
            .with_state(Taker { tell, port });
        let serving = tokio::spawn(async move {
            axum::serve(listener, router)
                .await
                .expect("the listener goes on");
        });
        Self {
            url: format!("http://{address}/callback"),
            returned: Mutex::new(returned),
            serving,
        }
    }

    /// The next person who comes back.
    ///
    /// # Panics
    /// When nobody does within ten seconds.
    pub async fn next(&self) -> Returned {
        let mut returned = self.returned.lock().await;
        tokio::time::timeout(Duration::from_secs(10), returned.recv())
            .await
            .expect("somebody comes back within ten seconds")
            .expect("the listener goes on")
    }
}

#[derive(Clone)]
struct Taker {
    tell: UnboundedSender<Returned>,
    port: u16,
}

impl Drop for Callback {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// As the command-line client does: without a code and a state, or an error, the wait goes on.
async fn take(State(taker): State<Taker>, Query(returned): Query<Returned>) -> Response {
    let has = |name: &str| returned.contains_key(name);
    if !(has("error") || has("code") && has("state")) {
        return (StatusCode::BAD_REQUEST, "Nothing to take.").into_response();
    }
    let _ = taker.tell.send(returned);
    // On to another host, as applications do whose API and site have names of their own: what our
    // pages tell browsers about forms must not stop that.
    Redirect::to(&format!("http://localhost:{}/back", taker.port)).into_response()
}

async fn back() -> Html<String> {
    let head = "<!doctype html><html lang=en><title>Back</title>";
    Html(format!("{head}<p>{BACK}</p></html>"))
}
