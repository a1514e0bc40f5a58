//! `POST /billing/v1/stripe/webhook`: what the payment provider tells us. Its signature is the only credential.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRef, State};
use cp_billing::{Stripe, WebhookError};
use cp_domain::{ControlPlane, NotedEvent};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::provider::Payments;
use crate::ApiState;
use crate::body;
use crate::docs::errors::{NotConfiguredError, WebhookErrors};
use crate::problem::Problem;

/// Stripe's greatest events are some ten KiB; those with many items can be more.
const MOST_BYTES: usize = 512 * 1024;
const ARRIVAL: Duration = Duration::from_secs(10);

/// Events read at once. Stripe tells again what finds no place.
const AT_ONCE: usize = 32;

/// Where events are read.
#[derive(Clone)]
pub struct EventPlaces(Arc<Semaphore>);

impl Default for EventPlaces {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl FromRef<ApiState> for EventPlaces {
    fn from_ref(state: &ApiState) -> Self {
        state.event_places.clone()
    }
}

/// That an event was taken.
#[derive(Serialize, ToSchema)]
pub struct EventTaken {
    received: bool,
}

/// Take an event of the payment provider
///
/// For Stripe alone, which signs it (`Stripe-Signature`). An event changes nothing by what it says: it makes us ask Stripe
/// what the organization has subscribed to. The same event twice is taken once.
#[utoipa::path(
    post,
    path = "/billing/v1/stripe/webhook",
    tag = "Billing",
    security(()),
    params(("Stripe-Signature" = String, Header, description = "`t=…,v1=…`, as Stripe documents it")),
    request_body(content = Object, description = "An event of Stripe's"),
    responses(
        (status = 200, description = "It was taken, or is nothing to us", body = EventTaken),
        WebhookErrors, NotConfiguredError,
    )
)]
pub async fn take_stripe_event(
    State(control_plane): State<ControlPlane>,
    State(EventPlaces(places)): State<EventPlaces>,
    Payments(stripe): Payments,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<EventTaken>, Problem> {
    let Some(stripe) = stripe else {
        return Err(Problem::not_configured(
            "This installation takes no payments, and no events of them.",
        ));
    };
    let signature = headers
        .get("stripe-signature")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let now = control_plane.clock().now();
    // Anybody may send something: what can be refused without its body is, and the rest waits in few places.
    Stripe::check_webhook_header(signature, now).map_err(|error| refused(&error))?;
    let Ok(_place) = places.try_acquire() else {
        return Err(Problem::unavailable());
    };
    let body = body::read(&headers, body, MOST_BYTES, ARRIVAL).await?;
    let event = stripe
        .verify_webhook(&body, signature, now)
        .map_err(|error| refused(&error))?;
    let result = match &event.customer {
        Some(customer) if event.kind.may_change_plan() => {
            let noted = control_plane.note_billing_event(
                &event.id,
                event.kind.as_str(),
                customer.as_str(),
                event.created,
            );
            match noted.await? {
                NotedEvent::New => "new",
                NotedEvent::Known => "known",
                NotedEvent::NotOurs => "not_ours",
            }
        }
        _ => "irrelevant",
    };
    tracing::info!(event = %event.id, kind = event.kind.as_str(), result, "an event of the payment provider");
    metrics::counter!("billing_events_total", "result" => result).increment(1);
    Ok(Json(EventTaken { received: true }))
}

fn refused(error: &WebhookError) -> Problem {
    metrics::counter!("billing_events_total", "result" => "refused").increment(1);
    Problem::new(
        StatusCode::BAD_REQUEST,
        "invalid_event",
        format!("The event is not taken: {error}."),
    )
}
