//! The HTTP interface: routes, extractors, wire types, OpenAPI.
//!
//! A request's way: [`front_door`] (request id, span, metrics, load shedding, one form for every
//! refusal) → [`partner_auth`] on the partnership routes (credentials, rate limit) → extractors
//! (model, path ids, body) → one `cp_domain` verb → a wire type. The `server` crate builds the
//! router and serves it; the test harness calls the router in process.

mod agent;
mod auth;
mod backend_calls;
mod bearer;
mod billing;
mod body;
mod branches;
mod caller;
mod client_address;
mod cors;
mod diagnostics;
mod docs;
mod etag;
mod front_door;
mod idempotency;
mod jwks;
mod oauth;
mod organizations;
mod pages;
mod params;
mod partner_auth;
mod partnership;
mod places;
mod platform;
mod problem;
mod projects;
mod same_site;
mod serve;
mod usage_events;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::FromRef;
use axum::middleware::{from_fn_with_state, map_response};
use cp_ai::{Analyst, OpenRouter};
use cp_billing::Stripe;
use cp_domain::ControlPlane;
use cp_model::Region;
use secrecy::SecretString;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

pub use docs::openapi;
pub use serve::serve;

use diagnostics::Analyses;
use front_door::FrontDoor;
use places::Waits;

/// Links to what is stored. The interface knows nothing of stores; the process has one, or has not.
#[async_trait]
pub trait Downloads: Send + Sync {
    /// A URL under which anyone can fetch the object for `lifetime`; none: no link can be made now.
    async fn link(&self, region: Region, key: &str, lifetime: Duration) -> Option<SecretString>;
}

/// What the process decides about the interface.
#[derive(Clone)]
pub struct ApiOptions {
    /// How many reverse proxies of ours stand in front. With none, `X-Forwarded-For` is ignored:
    /// anybody could write it.
    pub trusted_proxies: usize,
    /// Cancelled when the process is told to stop: open waits then end with what they have.
    pub shutdown: CancellationToken,
    /// Requests worked on at once; more are answered 503. Those that wait do not count.
    pub max_in_flight: usize,
    /// Agents' `desired` calls held open at once. They hold no connection to the database, so
    /// there may be many more of them than of other requests.
    pub max_agent_waits: usize,
    /// Where backups are fetched from.
    pub downloads: Option<Arc<dyn Downloads>>,
    /// Where projects' AI keys are made.
    pub openrouter: Option<OpenRouter>,
    /// Who is asked about projects.
    pub analyst: Option<Analyst>,
    /// Who takes payments; without one plans are the operator's alone.
    pub payments: Option<Stripe>,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            trusted_proxies: 0,
            shutdown: CancellationToken::new(),
            max_in_flight: 2_000,
            max_agent_waits: 20_000,
            downloads: None,
            openrouter: None,
            analyst: None,
            payments: None,
        }
    }
}

/// What every handler can ask for.
#[derive(Clone)]
pub(crate) struct ApiState {
    pub control_plane: ControlPlane,
    pub shutdown: CancellationToken,
    pub waits: Arc<Waits>,
    /// Batches of usage events worked on at once.
    pub batches: Arc<Semaphore>,
    pub downloads: Option<Arc<dyn Downloads>>,
    pub openrouter: Option<OpenRouter>,
    pub analyses: Analyses,
    pub payments: Option<Stripe>,
    pub event_places: billing::EventPlaces,
}

impl FromRef<ApiState> for ControlPlane {
    fn from_ref(state: &ApiState) -> Self {
        state.control_plane.clone()
    }
}

/// The public interface, complete with its middleware.
pub fn router(control_plane: ControlPlane, options: ApiOptions) -> Router {
    let door = Arc::new(FrontDoor::new(&options));
    let state = ApiState {
        control_plane,
        analyses: Analyses::new(options.analyst, options.shutdown.clone()),
        shutdown: options.shutdown,
        waits: Arc::default(),
        batches: Arc::new(Semaphore::new(usage_events::AT_ONCE)),
        downloads: options.downloads,
        openrouter: options.openrouter,
        payments: options.payments,
        event_places: billing::EventPlaces::default(),
    };
    let partnership = Router::from(partnership::routes()).route_layer(from_fn_with_state(
        state.control_plane.clone(),
        partner_auth::authenticate,
    ));
    Router::from(open_routes())
        .merge(partnership)
        .merge(pages::routes())
        .merge(docs::router().route_layer(map_response(docs::set_security_headers)))
        .layer(from_fn_with_state(door, front_door::pass))
        .with_state(state)
}

/// The documented routes that no partner's secret guards.
fn open_routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .merge(jwks::routes())
        .merge(oauth::routes())
        .merge(auth::routes())
        .merge(agent::routes())
        .merge(organizations::routes())
        .merge(projects::routes())
        .merge(billing::routes())
        .merge(diagnostics::routes())
        .merge(platform::routes())
        .merge(branches::people())
        .merge(backend_calls::routes())
        .merge(usage_events::routes())
}
