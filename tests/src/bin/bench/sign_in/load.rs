//! Load on an OAuth server, the same for both: connections that each send their next request when
//! the last one is answered. Refresh tokens change with every use, so `wrk` cannot do it.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub const CONNECTIONS: usize = 32;

const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(6);

/// An OAuth server, and the client that we are to it.
pub struct Server {
    /// `host:port`.
    pub address: String,
    pub token_path: &'static str,
    pub introspection_path: &'static str,
    pub client_id: String,
    pub client_secret: String,
}

/// What a connection sends, and what it makes of the answers.
pub trait Caller: Send + 'static {
    fn server(&self) -> &Server;

    fn next(&mut self) -> Request<Full<Bytes>>;

    /// # Panics
    /// When the answer is not what it should be.
    fn take(&mut self, answer: &[u8]);
}

/// Requests per second of all callers together, each with a connection of its own. Any answer but
/// 200 ends the bench.
pub async fn per_second<C: Caller>(callers: Vec<C>) -> (f64, Vec<C>) {
    let warm = Instant::now() + WARM_UP;
    let mut connections = JoinSet::new();
    for caller in callers {
        connections.spawn(call(caller, warm));
    }
    let (counts, callers): (Vec<u32>, Vec<C>) = connections.join_all().await.into_iter().unzip();
    let rate = f64::from(counts.iter().sum::<u32>()) / MEASURED.as_secs_f64();
    (rate, callers)
}

/// How many answers came after `warm` and before the end.
async fn call<C: Caller>(mut caller: C, warm: Instant) -> (u32, C) {
    let address = caller.server().address.clone();
    let stream = TcpStream::connect(&address)
        .await
        .expect("the server listens");
    stream
        .set_nodelay(true)
        .expect("a socket option can be set");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .expect("a new connection can be used");
    tokio::spawn(connection);
    let mut count = 0;
    loop {
        sender.ready().await.expect("the connection stays");
        let answer = sender
            .send_request(caller.next())
            .await
            .expect("the server answers");
        let status = answer.status();
        let body = answer
            .into_body()
            .collect()
            .await
            .expect("the answer arrives")
            .to_bytes();
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, StatusCode::OK, "{address}: {text}");
        caller.take(&body);
        let now = Instant::now();
        if now >= warm + MEASURED {
            return (count, caller);
        }
        if now >= warm {
            count += 1;
        }
    }
}

impl Server {
    /// With the client's credentials in the body (`client_secret_post`). Ours and theirs, ids,
    /// secrets and tokens are all made of characters that a form takes as they are.
    fn form(&self, path: &str, fields: &str) -> Request<Full<Bytes>> {
        let body = format!(
            "{fields}&client_id={}&client_secret={}",
            self.client_id, self.client_secret
        );
        Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, &self.address)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(body))
            .expect("a request can be built")
    }
}

/// A sign-in of somebody, kept alive: refreshes with the token that the last refresh gave.
pub struct Family {
    pub server: Arc<Server>,
    pub refresh_token: String,
    /// All that it was given so far.
    pub access_tokens: Vec<String>,
}

#[derive(Deserialize)]
struct Tokens {
    access_token: String,
    refresh_token: String,
}

impl Caller for Family {
    fn server(&self) -> &Server {
        &self.server
    }

    fn next(&mut self) -> Request<Full<Bytes>> {
        let fields = format!(
            "grant_type=refresh_token&refresh_token={}",
            self.refresh_token
        );
        self.server.form(self.server.token_path, &fields)
    }

    fn take(&mut self, answer: &[u8]) {
        let tokens: Tokens = serde_json::from_slice(answer).expect("the answer holds tokens");
        assert_ne!(
            tokens.refresh_token, self.refresh_token,
            "refresh tokens rotate"
        );
        self.refresh_token = tokens.refresh_token;
        self.access_tokens.push(tokens.access_token);
    }
}

/// Asks again and again whether these tokens are good.
pub struct Introspector {
    pub server: Arc<Server>,
    pub access_tokens: Vec<String>,
    pub asked: usize,
}

#[derive(Deserialize)]
struct Introspection {
    active: bool,
}

impl Caller for Introspector {
    fn server(&self) -> &Server {
        &self.server
    }

    fn next(&mut self) -> Request<Full<Bytes>> {
        let token = &self.access_tokens[self.asked % self.access_tokens.len()];
        self.asked += 1;
        let fields = format!("token={token}&token_type_hint=access_token");
        self.server.form(self.server.introspection_path, &fields)
    }

    fn take(&mut self, answer: &[u8]) {
        let said: Introspection =
            serde_json::from_slice(answer).expect("the answer is an introspection");
        assert!(said.active, "the tokens of the bench are good");
    }
}
