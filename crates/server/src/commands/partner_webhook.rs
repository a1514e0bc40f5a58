//! `insforge-cloud partner webhook …`: where a partner is told of events.

use std::time::Duration;

use chrono::{DateTime, Utc};
use cp_domain::ControlPlane;
use cp_domain::webhooks::{WebhookEventSummary, WebhookSet, WebhookSummary};
use cp_model::{PartnerId, WebhookEventId, WebhookEventType, WebhookState};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use serde_json::{Value, json};

use super::output::{columns, confirm, properties, show, time, time_or_dash};
use crate::cli::{Output, WebhookCommand};

/// How long a test waits for the worker and the receiver.
const TEST_WAIT: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(200);

#[derive(Serialize)]
struct ShownEvent {
    id: WebhookEventId,
    #[serde(rename = "type")]
    kind: WebhookEventType,
    state: WebhookState,
    attempts: i32,
    created_at: DateTime<Utc>,
    delivered_at: Option<DateTime<Utc>>,
    /// Only while it is queued.
    next_attempt_at: Option<DateTime<Utc>>,
    last_status: Option<i32>,
    last_error: Option<String>,
    data: Value,
}

impl From<WebhookEventSummary> for ShownEvent {
    fn from(event: WebhookEventSummary) -> Self {
        let is_queued = event.state == WebhookState::Queued;
        Self {
            id: event.id,
            kind: event.kind,
            state: event.state,
            attempts: event.attempts,
            created_at: event.created_at,
            delivered_at: event.delivered_at,
            next_attempt_at: is_queued.then_some(event.next_attempt_at),
            last_status: event.last_status,
            last_error: event.last_error,
            data: event.data,
        }
    }
}

pub async fn run(control_plane: &ControlPlane, command: WebhookCommand) -> anyhow::Result<()> {
    match command {
        WebhookCommand::Set {
            partner,
            url,
            rotate,
            output,
        } => {
            let set = control_plane.set_webhook(&partner, &url, rotate).await?;
            show_set(output, &partner, &set)
        }
        WebhookCommand::Show { partner, output } => {
            let webhook = control_plane.show_webhook(&partner).await?;
            show(output, &object(&partner, &webhook), || {
                properties(&lines(&partner, &webhook))
            })
        }
        WebhookCommand::Remove {
            partner,
            confirm: asked,
            output,
        } => {
            confirm(
                &format!("Tell partner {partner} of nothing any more, nor of what is queued?"),
                asked,
            )?;
            control_plane.remove_webhook(&partner).await?;
            show(
                output,
                &json!({ "partner": partner, "removed": true }),
                || format!("the webhook of {partner} is removed"),
            )
        }
        WebhookCommand::Test { partner, output } => test(control_plane, &partner, output).await,
        WebhookCommand::List {
            partner,
            state,
            limit,
            output,
        } => {
            let events = control_plane
                .list_webhook_events(&partner, state, limit)
                .await?;
            let events: Vec<ShownEvent> = events.into_iter().map(Into::into).collect();
            show(output, &events, || table(&events))
        }
        WebhookCommand::Redeliver {
            partner,
            event,
            output,
        } => {
            control_plane
                .redeliver_webhook_event(&partner, event)
                .await?;
            let value =
                json!({ "partner": partner, "event": event, "state": WebhookState::Queued });
            show(output, &value, || {
                format!(
                    "event {event} is told again; `partner webhook list {partner}` shows how it goes"
                )
            })
        }
    }
}

/// Queues a test event and tells what became of its first attempt. Fails when it was not taken.
async fn test(
    control_plane: &ControlPlane,
    partner: &PartnerId,
    output: Output,
) -> anyhow::Result<()> {
    let id = control_plane.test_webhook(partner).await?;
    let until = tokio::time::Instant::now() + TEST_WAIT;
    let event = loop {
        let event = control_plane.find_webhook_event(partner, id).await?;
        let is_tried = event.state != WebhookState::Queued || event.last_error.is_some();
        if is_tried || tokio::time::Instant::now() >= until {
            break event;
        }
        tokio::time::sleep(LOOK).await;
    };
    let state = event.state;
    let (status, error) = (event.last_status, event.last_error.clone());
    let shown = ShownEvent::from(event);
    show(output, &shown, || match (state, status, &error) {
        (WebhookState::Delivered, Some(status), _) => {
            format!("event {id} was taken (status {status})")
        }
        (WebhookState::Delivered, None, _) => format!("event {id} was taken"),
        (_, _, Some(error)) => format!("event {id} was not taken: {error}\nIt is tried again."),
        (_, _, None) => format!(
            "event {id} is still waiting after {} seconds. Does a worker run?",
            TEST_WAIT.as_secs()
        ),
    })?;
    match state {
        WebhookState::Delivered => Ok(()),
        WebhookState::Queued | WebhookState::Failed => {
            anyhow::bail!("the webhook of {partner} did not take the test event")
        }
    }
}

fn object(partner: &PartnerId, webhook: &WebhookSummary) -> Value {
    json!({
        "partner": partner, "url": webhook.url, "previous_secret_until": webhook.previous_secret_until,
        "created_at": webhook.created_at, "updated_at": webhook.updated_at,
    })
}

fn lines(partner: &PartnerId, webhook: &WebhookSummary) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("partner", partner.to_string()),
        ("url", webhook.url.clone()),
        ("created", time(webhook.created_at)),
        ("changed", time(webhook.updated_at)),
    ];
    if let Some(until) = webhook.previous_secret_until {
        lines.push(("old secret", format!("signs, too, until {}", time(until))));
    }
    lines
}

fn show_set(output: Output, partner: &PartnerId, set: &WebhookSet) -> anyhow::Result<()> {
    let mut value = object(partner, &set.webhook);
    if let Some(secret) = &set.secret {
        value["secret"] = json!(secret.expose_secret());
    }
    show(output, &value, || {
        let mut lines = lines(partner, &set.webhook);
        let Some(secret) = &set.secret else {
            return properties(&lines);
        };
        lines.push(("secret", secret.expose_secret().to_owned()));
        format!(
            "{}\n\nThe secret checks our signatures. It is shown this once and cannot be read again; keep it now.",
            properties(&lines)
        )
    })
}

fn table(events: &[ShownEvent]) -> String {
    let rows: Vec<_> = events
        .iter()
        .map(|event| {
            [
                event.id.to_string(),
                event.kind.to_string(),
                event.state.to_string(),
                event.attempts.to_string(),
                time(event.created_at),
                time_or_dash(event.next_attempt_at),
                event.last_error.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .collect();
    columns(
        [
            "ID",
            "TYPE",
            "STATE",
            "ATTEMPTS",
            "CREATED",
            "NEXT ATTEMPT",
            "LAST ERROR",
        ],
        &rows,
    )
}
