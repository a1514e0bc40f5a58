//! `POST /internal/usage/v1/events`: services of ours tell what projects used
//! (contract/partnership-api.md, "Usage").

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use cp_domain::usage::{Ingested, MOST_EVENTS, NewUsageEvent, UsageEvent, UsageService};
use cp_model::{FieldError, FieldResult};
use http::header::RETRY_AFTER;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiState;
use crate::bearer;
use crate::body::{JsonBody, RequestBody};
use crate::docs::errors::UsageEventErrors;
use crate::problem::Problem;

/// Batches of one process that are worked on at once; a service that sends more is told to wait.
/// Each holds a connection and a transaction: more of them would be no faster, and would take the
/// connections of everybody else.
pub const AT_ONCE: usize = 8;
/// A thousand events of the longest kind.
const MAX_BYTES: usize = 1024 * 1024;

pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(post_usage_events))
}

/// The service that calls.
struct CallingService(UsageService);

impl FromRequestParts<ApiState> for CallingService {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let token = bearer::presented(&parts.headers)?;
        let service = state
            .control_plane
            .authenticate_usage_service(token)
            .await?;
        Ok(Self(service))
    }
}

/// One of the [`AT_ONCE`], taken before the body is read: what must wait takes no memory.
struct Place(#[allow(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl FromRequestParts<ApiState> for Place {
    type Rejection = Response;

    async fn from_request_parts(_: &mut Parts, state: &ApiState) -> Result<Self, Response> {
        let place = state.batches.clone().try_acquire_owned();
        place.map(Self).map_err(|_| busy())
    }
}

/// A batch as it comes: each event is read by itself, so that one that cannot be read spoils no
/// other.
#[derive(Deserialize)]
struct Batch {
    #[serde(deserialize_with = "read_some")]
    events: Vec<Box<RawValue>>,
}

/// Of more events than a batch may have, one more is kept, and the rest only read over.
fn read_some<'de, D: Deserializer<'de>>(events: D) -> Result<Vec<Box<RawValue>>, D::Error> {
    struct Events;

    impl<'de> Visitor<'de> for Events {
        type Value = Vec<Box<RawValue>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a sequence")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut given: A) -> Result<Self::Value, A::Error> {
            let mut events = Vec::new();
            while events.len() <= MOST_EVENTS {
                match given.next_element()? {
                    Some(event) => events.push(event),
                    None => return Ok(events),
                }
            }
            while given.next_element::<IgnoredAny>()?.is_some() {}
            Ok(events)
        }
    }

    events.deserialize_seq(Events)
}

impl RequestBody for Batch {
    const MAX_BYTES: usize = MAX_BYTES;
}

/// Up to 1,000 events.
#[derive(ToSchema)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
struct UsageEvents {
    #[schema(max_items = 1000)]
    events: Vec<UsageEventBody>,
}

/// One thing that a project used.
#[derive(ToSchema)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
struct UsageEventBody {
    /// The event's own name at its source. Counted once, however often it is sent.
    #[schema(min_length = 1, max_length = 200, example = "req_01h9")]
    id: String,
    /// Which service counted it; one of those that the token is for.
    #[schema(pattern = "^[a-z0-9._-]{1,64}$", example = "ai-gateway")]
    source: String,
    #[schema(format = Uuid)]
    project_id: String,
    #[schema(example = "ai_tokens")]
    metric: String,
    /// Sizes: the size. The rest: how much more; negative to correct what was told before.
    /// `ai_credits` may have six decimals.
    value: f64,
    /// At most 35 days ago and 5 minutes ahead.
    #[schema(format = DateTime)]
    occurred_at: String,
}

/// One event, its texts borrowed where nothing in them is escaped.
#[derive(Deserialize)]
struct EventText<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    project_id: Cow<'a, str>,
    #[serde(borrow)]
    metric: Cow<'a, str>,
    #[serde(borrow)]
    value: &'a RawValue,
    #[serde(borrow)]
    occurred_at: Cow<'a, str>,
}

/// What became of the events.
#[derive(Serialize, ToSchema)]
struct UsageEventsResponse {
    /// Counted now.
    accepted: usize,
    /// Counted before, or more than once in this batch.
    duplicates: usize,
    /// Not counted. Sending them again unchanged is no use.
    refused: Vec<RefusedUsageEvent>,
}

#[derive(Serialize, ToSchema)]
struct RefusedUsageEvent {
    /// Its place in the batch, from 0.
    index: usize,
    /// What is wrong with it.
    #[schema(example = "metric")]
    field: &'static str,
    #[schema(example = "metric must be one of ai_tokens, …")]
    error: String,
}

impl From<Ingested> for UsageEventsResponse {
    fn from(ingested: Ingested) -> Self {
        let refused = ingested
            .refused
            .into_iter()
            .map(|refused| RefusedUsageEvent {
                index: refused.index,
                field: refused.error.field,
                error: refused.error.to_string(),
            })
            .collect();
        Self {
            accepted: ingested.accepted,
            duplicates: ingested.duplicates,
            refused,
        }
    }
}

/// Tell what projects used
///
/// Each event is counted once, by its `source` and `id`; whatever the answer, the batch may be sent
/// again. An event that breaks a rule is refused by itself, and the others are counted.
#[utoipa::path(
    post,
    path = "/internal/usage/v1/events",
    tag = "Usage",
    security(("service_token" = [])),
    request_body = UsageEvents,
    responses(
        (status = 200, description = "What became of each", body = UsageEventsResponse),
        UsageEventErrors,
    )
)]
async fn post_usage_events(
    State(state): State<ApiState>,
    CallingService(service): CallingService,
    _place: Place,
    body: JsonBody<Batch>,
) -> Result<Json<UsageEventsResponse>, Problem> {
    let batch = body.value.events;
    if batch.len() > MOST_EVENTS {
        return Err(Problem::invalid_input(format!(
            "events must be at most {MOST_EVENTS}; send the rest in another batch"
        )));
    }
    let events = batch.iter().map(|event| read(event)).collect();
    let ingested = state
        .control_plane
        .record_usage_events(&service, events)
        .await?;
    for (outcome, count) in [
        ("accepted", ingested.accepted),
        ("duplicate", ingested.duplicates),
        ("refused", ingested.refused.len()),
    ] {
        metrics::counter!("usage_events_total", "outcome" => outcome).increment(count as u64);
    }
    Ok(Json(ingested.into()))
}

fn busy() -> Response {
    let mut response = Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "rate_limited",
        "Too many batches at once. Send this one again in a second; what was counted is not counted twice.",
    )
    .into_response();
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn read(event: &RawValue) -> FieldResult<UsageEvent> {
    // serde reads structs from lists, too: not an interface that we mean to have.
    if !event.get().starts_with('{') {
        return Err(FieldError::new("event", "must be an object"));
    }
    let text: EventText<'_> = serde_json::from_str(event.get()).map_err(|error| {
        let text = error.to_string();
        let reason = text.split(" at line ").next().unwrap_or_default();
        let rule = format!("must be an object with the texts id, source, project_id, metric, occurred_at and the number value: {reason}");
        FieldError::new("event", rule)
    })?;
    UsageEvent::parse(&NewUsageEvent {
        id: &text.id,
        source: &text.source,
        project_id: &text.project_id,
        metric: &text.metric,
        value: text.value.get(),
        occurred_at: &text.occurred_at,
    })
}
