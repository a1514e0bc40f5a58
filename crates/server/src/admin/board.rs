//! apalis's own board of the queue, read-only. Its pages name their assets and its API absolutely,
//! so it has the root of the listener, and answers every path that nothing else has.

use apalis_board::axum::framework::{ApiBuilder, RegisterRoute};
use apalis_board::axum::ui::ServeUI;
use apalis_postgres::{Config, PgPool, PostgresStorage};
use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use cp_storage::wakeups::QUEUE;
use serde_json::Value;

pub(super) fn router(pool: &PgPool) -> Router {
    let queue = PostgresStorage::<Value>::new(pool).with_config(Config::default().queue(QUEUE));
    let api = RegisterRoute::<PostgresStorage<Value>, Value>::register(
        ApiBuilder::new(Router::new()),
        QUEUE,
        queue,
    )
    .build();
    Router::new()
        .nest("/api/v1", api.layer(middleware::from_fn(read_only)))
        .fallback_service(ServeUI::new())
}

/// The board's API can push messages; ours come from transactions alone.
async fn read_only(request: Request, next: Next) -> Response {
    if request.method() == Method::GET {
        next.run(request).await
    } else {
        StatusCode::METHOD_NOT_ALLOWED.into_response()
    }
}
