use axum::Router;
use axum::body::{Body, to_bytes};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use http::header::ALLOW;
use serde_json::Value;
use tower::ServiceExt;

use super::*;

/// A router behind the door with a few ways to fail.
fn app(options: &ApiOptions) -> Router {
    Router::new()
        .route("/partnership/v1/x/ok", get(async || "fine"))
        .route(
            "/partnership/v1/x/panics",
            post(async || -> &'static str { panic!("hunter2") }),
        )
        .route(
            "/agent/v1/refused",
            get(async || Problem::invalid_input("wait must be a number")),
        )
        .route("/api/oauth/v1/token", post(async || "fine"))
        .route("/auth/v1/profile", get(async || "fine"))
        .route(
            "/login",
            get(async || (StatusCode::BAD_REQUEST, axum::Extension(Page), "<p>no")),
        )
        .route("/agent/v1/desired", get(async || "fine"))
        .route("/agent/v1/register", post(async || "fine"))
        .layer(from_fn_with_state(Arc::new(FrontDoor::new(options)), pass))
}

async fn call(options: &ApiOptions, method: Method, path: &str) -> Response {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("x-request-id", "r-1")
        .body(Body::empty())
        .unwrap();
    app(options).oneshot(request).await.unwrap()
}

async fn json(response: Response) -> Value {
    assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn every_answer_has_the_request_id_and_secrets_are_not_stored() {
    let options = ApiOptions::default();
    for (method, path, status) in [
        (Method::GET, "/partnership/v1/x/ok", 200),
        (Method::PUT, "/partnership/v1/x/ok", 405),
        (Method::POST, "/partnership/v1/x/panics", 500),
        (Method::GET, "/partnership/v1/nowhere", 404),
        (Method::GET, "/agent/v1/refused", 400),
        (Method::POST, "/api/oauth/v1/token", 200),
        (Method::GET, "/auth/v1/profile", 200),
    ] {
        let response = call(&options, method, path).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()[REQUEST_ID], "r-1", "{path}");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store", "{path}");
    }
    let response = call(&options, Method::GET, "/nowhere").await;
    assert!(!response.headers().contains_key(CACHE_CONTROL));
}

#[tokio::test]
async fn a_request_id_that_could_forge_log_lines_is_replaced() {
    let request = Request::get("/nowhere")
        .header("x-request-id", "a b")
        .body(Body::empty())
        .unwrap();
    let response = app(&ApiOptions::default()).oneshot(request).await.unwrap();
    let id = response.headers()[REQUEST_ID].to_str().unwrap();
    assert!(id.starts_with("req_"), "{id}");
}

#[tokio::test]
async fn the_routers_own_refusals_have_the_form_of_their_interface() {
    let options = ApiOptions::default();
    let unknown = json(call(&options, Method::GET, "/partnership/v1/nowhere").await).await;
    assert_eq!(unknown["success"], false);
    assert_eq!(unknown["code"], "not_found");
    assert_eq!(unknown["requestId"], "r-1");

    let response = call(&options, Method::PUT, "/agent/v1/refused").await;
    assert_eq!(response.headers()[ALLOW], "GET,HEAD");
    let refused = json(response).await;
    assert_eq!(refused["code"], "method_not_allowed");
    assert!(refused["error"].is_string());
}

#[tokio::test]
async fn oauth_is_refused_in_its_own_form() {
    let options = ApiOptions::default();
    for (method, path, status) in [
        (Method::GET, "/api/oauth/v1/nowhere", 404),
        (Method::GET, "/api/oauth/v1/token", 405),
    ] {
        let response = call(&options, method, path).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()[PRAGMA], "no-cache");
        let body = json(response).await;
        assert_eq!(body["error"], "invalid_request");
        assert!(body["error_description"].is_string());
    }
}

#[tokio::test]
async fn a_page_that_refuses_stays_a_page() {
    let response = call(&ApiOptions::default(), Method::GET, "/login").await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    assert_eq!(body, "<p>no");
}

#[tokio::test]
async fn pages_of_any_origin_may_call_what_takes_no_cookie() {
    let preflight = async |path: &str| {
        let request = Request::options(path)
            .header("origin", "https://app.example")
            .header("access-control-request-method", "POST")
            .body(Body::empty())
            .unwrap();
        app(&ApiOptions::default()).oneshot(request).await.unwrap()
    };
    for path in ["/api/oauth/v1/token", "/auth/v1/profile"] {
        let response = preflight(path).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT, "{path}");
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        let allowed = response.headers()["access-control-allow-headers"]
            .to_str()
            .unwrap();
        assert!(allowed.contains("Authorization") && allowed.contains("Content-Type"));
        assert!(
            !response
                .headers()
                .contains_key("access-control-allow-credentials")
        );
    }
    for path in ["/auth/v1/login", "/login", "/partnership/v1/x/ok"] {
        let response = preflight(path).await;
        assert!(
            !response
                .headers()
                .contains_key("access-control-allow-origin"),
            "{path}"
        );
    }
    let refused = call(&ApiOptions::default(), Method::PUT, "/api/oauth/v1/token").await;
    assert_eq!(refused.headers()["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn a_panic_is_a_500_that_tells_nothing() {
    let options = ApiOptions::default();
    let body = json(call(&options, Method::POST, "/partnership/v1/x/panics").await).await;
    assert_eq!(body["code"], "internal_error");
    assert!(!body.to_string().contains("hunter2"));
}

#[tokio::test]
async fn a_full_house_is_refused_at_the_door() {
    let options = ApiOptions {
        max_in_flight: 0,
        ..ApiOptions::default()
    };
    let response = call(&options, Method::GET, "/partnership/v1/x/ok").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[http::header::RETRY_AFTER], "2");
    let polled = call(&options, Method::GET, "/agent/v1/desired").await;
    assert_eq!(
        polled.status(),
        StatusCode::OK,
        "agents have their own places"
    );
    let registered = call(&options, Method::POST, "/agent/v1/register").await;
    assert_eq!(
        registered.status(),
        StatusCode::OK,
        "and so have registrations"
    );
}

#[tokio::test]
async fn slow_registrations_take_no_places_of_others() {
    let door = FrontDoor::new(&ApiOptions {
        max_in_flight: 1,
        ..ApiOptions::default()
    });
    let admit = |path| door.admit(path);
    let held: Vec<_> = std::iter::from_fn(|| admit("/agent/v1/register")).collect();
    assert_eq!(held.len(), MAX_REGISTRATIONS);
    let _report = admit("/agent/v1/report").expect("has a place");
    assert!(admit("/partnership/v1/x/ok").is_none());
}

#[test]
fn an_outage_is_told_now_and_then_with_its_size() {
    let outage = Outage::default();
    let start = Instant::now();
    assert_eq!(outage.tell(start), Some(1));
    assert_eq!(outage.tell(start), None);
    assert_eq!(outage.tell(start + OUTAGE_EVERY / 2), None);
    assert_eq!(outage.tell(start + OUTAGE_EVERY), Some(3));
}
