//! Liveness and our public key (project-backend 4). Health says nothing about the database.

use axum::{Json, extract::State};
use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::{VERSION, state::AppState};

/// `GET /api/health`
pub(crate) async fn health() -> Json<Value> {
    Json(json!({
        "status": "ok",
        "version": VERSION,
        "service": "InsForge devbackend (stand-in)",
        "timestamp": Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
    }))
}

/// `GET /.well-known/jwks.json`: an empty set if the pair is unreadable.
pub(crate) async fn jwks(State(state): State<AppState>) -> Json<Value> {
    match state.signing_key().await {
        Ok(key) => Json(key.jwks()),
        Err(_) => Json(json!({ "keys": [] })),
    }
}
