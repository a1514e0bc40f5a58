//! The backends of all simulated machines behind one listener: `/m/<machine id>/api/…`. They
//! answer what the control plane asks to see whether a backend serves
//! (contract/project-backend.md section 4).

use std::sync::{Arc, Mutex};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use cp_model::MachineId;
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::net::TcpListener;

use super::world::{self, World};

pub(super) async fn run(listener: TcpListener, world: Arc<Mutex<World>>) {
    let router = Router::new()
        .route("/m/{machine_id}/api/health", get(health))
        .route("/m/{machine_id}/api/metadata/project-id", get(project_id))
        .with_state(world);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::warn!(%error, "the simulated machines serve no more");
    }
}

async fn health(State(world): State<Arc<Mutex<World>>>, Path(id): Path<MachineId>) -> Response {
    if world::lock(&world).served_by(id).is_none() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    Json(json!({"status": "ok", "version": "0.0.0-sim", "service": "simulated"})).into_response()
}

async fn project_id(
    State(world): State<Arc<Mutex<World>>>,
    Path(id): Path<MachineId>,
    headers: HeaderMap,
) -> Response {
    let world = world::lock(&world);
    let Some((project_id, api_key)) = world.served_by(id) else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    if given != Some(api_key.expose_secret()) {
        let body = json!({"error": "AUTH_INVALID_API_KEY", "statusCode": 401});
        return (StatusCode::UNAUTHORIZED, Json(body)).into_response();
    }
    Json(json!({"projectId": project_id})).into_response()
}
