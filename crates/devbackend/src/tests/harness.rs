//! A backend on a cluster of its own, and a control plane that is no more than its keys.

use std::{
    collections::HashMap,
    future::Future,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use axum::{
    Json, Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode},
    routing::get,
};
use cp_pg::{Binaries, Cluster, Settings, StopMode, free_port};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::{net::TcpListener, process::Command};
use tower::ServiceExt;

use crate::{config::Config, prepare, routes::router};

pub const PROJECT: &str = "7b0c1a52-4c11-4a6e-9d0b-3f2f8d1f0001";
pub const JWT_SECRET: &str = "a-jwt-secret-of-enough-characters";
pub const API_KEY: &str = "ik_0123456789abcdef0123456789abcdef";

/// The environment of a backend; tests change it between starts.
pub struct World {
    pub variables: HashMap<String, String>,
    cluster: Cluster,
    password: SecretString,
}

impl World {
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    pub async fn start(&self) -> Backend {
        let config = Config::from_lookup(|name| self.variables.get(name).cloned()).unwrap();
        let state = prepare(config).await.unwrap();
        Backend {
            router: router(state),
        }
    }

    pub async fn restart_postgres(&self) {
        self.cluster
            .stop(StopMode::Fast, Duration::from_secs(10))
            .await
            .unwrap();
        self.cluster.start(&Settings::tests()).await.unwrap();
    }

    /// As the control plane copies a backend: `pg_dump -Fc`, then a plain restore that must not
    /// report a single error, into an empty database.
    pub async fn copy_database(&self, from: &str, to: &str) {
        let binaries = Binaries::find().await.unwrap();
        let url = |name: &str| self.database_url(name).expose_secret().to_owned();
        let dump = self.cluster.dir().join("copy.dump");
        let run = async |program: &str, arguments: &[&str]| {
            let output = Command::new(binaries.program(program))
                .args(arguments)
                .output()
                .await
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{program}: {said}");
        };
        let dump = dump.to_str().unwrap();
        run("pg_dump", &["-Fc", "-f", dump, &url(from)]).await;
        run(
            "psql",
            &[
                "-X",
                "-c",
                &format!("CREATE DATABASE {to}"),
                &url("postgres"),
            ],
        )
        .await;
        run("pg_restore", &["--exit-on-error", "-d", &url(to), dump]).await;
    }

    pub fn database_url(&self, name: &str) -> SecretString {
        self.cluster.superuser_url(name, &self.password)
    }
}

/// Runs `test` with a fresh cluster; removes the cluster whatever happens.
pub async fn with_world<F, T>(test: F)
where
    F: FnOnce(World) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let password = SecretString::from("superuser");
    let cluster = Cluster::initdb(
        &Binaries::find().await.unwrap(),
        home.path().join("pg"),
        free_port().unwrap(),
        &password,
    )
    .await
    .unwrap();
    cluster.start(&Settings::tests()).await.unwrap();
    let variables = [
        ("PROJECT_ID", PROJECT),
        ("JWT_SECRET", JWT_SECRET),
        ("ACCESS_API_KEY", API_KEY),
        ("ROOT_ADMIN_USERNAME", "admin"),
        ("ROOT_ADMIN_PASSWORD", "correct horse"),
        ("CLOUD_API_HOST", "http://127.0.0.1:1"),
        ("POSTGRES_HOST", "127.0.0.1"),
        ("POSTGRES_PASSWORD", "superuser"),
        ("POSTGRES_PORT", &cluster.port().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let world = World {
        variables,
        cluster: cluster.clone(),
        password,
    };
    let outcome = tokio::spawn(test(world)).await;
    cluster.remove().await.unwrap();
    if let Err(failure) = outcome {
        std::panic::resume_unwind(failure.into_panic());
    }
}

pub struct Backend {
    router: Router,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The status and the `error` code, to compare with the contract's tables.
    pub fn error(&self) -> (u16, &str) {
        (
            self.status.as_u16(),
            self.body["error"].as_str().unwrap_or(""),
        )
    }
}

impl Backend {
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response = self
            .router
            .clone()
            .oneshot(request.body(body).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
        }
    }

    /// As the holder of the API key.
    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[("x-api-key", API_KEY)], None)
            .await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, &[("x-api-key", API_KEY)], Some(body))
            .await
    }

    pub async fn get_with_token(&self, path: &str, token: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        self.send("GET", path, &[("authorization", &bearer)], None)
            .await
    }

    pub async fn sql(&self, query: &str) -> Answer {
        self.post("/api/database/advance/rawsql", json!({ "query": query }))
            .await
    }

    pub async fn superuser_sql(&self, query: &str) -> Answer {
        self.post(
            "/api/database/advance/rawsql/unrestricted",
            json!({ "query": query }),
        )
        .await
    }
}

/// The control plane's JWKS endpoint.
pub struct ControlPlane {
    pub url: String,
    keys: Arc<Mutex<Vec<Value>>>,
    fetches: Arc<AtomicUsize>,
}

impl ControlPlane {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let keys: Arc<Mutex<Vec<Value>>> = Arc::default();
        let fetches = Arc::new(AtomicUsize::new(0));
        let (served, counted) = (Arc::clone(&keys), Arc::clone(&fetches));
        let router = Router::new().route(
            "/.well-known/jwks.json",
            get(async move || {
                counted.fetch_add(1, Ordering::SeqCst);
                Json(json!({ "keys": *served.lock().unwrap() }))
            }),
        );
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, keys, fetches }
    }

    pub fn publish(&self, key: &CloudKey) {
        self.keys.lock().unwrap().push(key.jwk());
    }

    pub fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

/// A signing key of the control plane, or of an impostor.
pub struct CloudKey {
    kid: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl CloudKey {
    pub fn rs256(kid: &str) -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8 = pair.as_der().unwrap();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pkcs8.as_ref())
        );
        Self {
            kid: kid.to_owned(),
            algorithm: Algorithm::RS256,
            key: EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
        }
    }

    pub fn es256(kid: &str) -> Self {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .unwrap();
        Self {
            kid: kid.to_owned(),
            algorithm: Algorithm::ES256,
            key: EncodingKey::from_ec_der(pkcs8.as_ref()),
        }
    }

    fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.kid.clone());
        serde_json::to_value(jwk).unwrap()
    }

    pub fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

/// Claims of a good token of the control plane, five minutes long.
pub fn good_claims() -> Value {
    json!({
        "projectId": PROJECT,
        "type": "project_authorization",
        "userId": "user-1",
        "exp": chrono::Utc::now().timestamp() + 300,
    })
}

/// [`good_claims`] with one field changed; null takes it out.
pub fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = good_claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

pub fn hs256(claims: &Value) -> String {
    let key = EncodingKey::from_secret(JWT_SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}
