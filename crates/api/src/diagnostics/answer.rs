//! An AI's answer on its way to the person who asked. It holds none of the places for requests at work, since those are given
//! back when an answer's headers are out; there are places of its own instead.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use cp_ai::{AiError, Analyst, Answer};
use cp_domain::{AnalysisOutcome, ControlPlane, UserCaller};
use cp_model::AnalysisId;
use futures::Stream;
use futures::stream::unfold;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::problem::Problem;

/// Answers on their way at once in this process.
const AT_ONCE: usize = 100;

/// A comment is sent when nothing else was for so long: proxies end connections that are silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Who can be asked; none: this installation has no AI.
#[derive(Clone)]
pub struct Analyses {
    analyst: Option<Analyst>,
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
}

/// A place for one answer, and who gives it.
pub struct Place {
    analyst: Analyst,
    _permit: OwnedSemaphorePermit,
    shutdown: CancellationToken,
}

impl Analyses {
    pub fn new(analyst: Option<Analyst>, shutdown: CancellationToken) -> Self {
        Self {
            analyst,
            places: Arc::new(Semaphore::new(AT_ONCE)),
            shutdown,
        }
    }

    pub fn begin(self) -> Result<Place, Problem> {
        let analyst = self.analyst.ok_or_else(|| {
            Problem::not_configured(
                "This installation has no AI to ask. Use insforge diagnose without --ai.",
            )
        })?;
        Ok(Place {
            analyst,
            _permit: self
                .places
                .try_acquire_owned()
                .map_err(|_| Problem::unavailable())?,
            shutdown: self.shutdown,
        })
    }
}

/// A question that was counted, until it is noted how it ended. Dropped before that, the person has hung up.
pub struct Running(Option<Asked>);

struct Asked {
    control_plane: ControlPlane,
    by: UserCaller,
    id: AnalysisId,
}

impl Asked {
    async fn end(&self, outcome: AnalysisOutcome) {
        let ended = self.control_plane.end_analysis(&self.by, self.id, outcome);
        if let Err(error) = ended.await {
            tracing::warn!(%error, "how an analysis ended could not be noted");
        }
    }
}

impl Running {
    pub fn new(control_plane: ControlPlane, by: UserCaller, id: AnalysisId) -> Self {
        Self(Some(Asked {
            control_plane,
            by,
            id,
        }))
    }

    async fn end(mut self, outcome: AnalysisOutcome) {
        if let Some(asked) = self.0.take() {
            asked.end(outcome).await;
        }
    }

    fn id(&self) -> Option<AnalysisId> {
        self.0.as_ref().map(|asked| asked.id)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let (Some(asked), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { asked.end(AnalysisOutcome::Abandoned).await });
        }
    }
}

/// Where an answer stands.
enum Stage {
    /// With what is asked.
    Begin(String),
    /// With whether there was any text yet.
    Answer(Box<Answer>, bool),
    End,
}

enum Step {
    Text(Box<Answer>, String),
    Done,
    Failed(&'static str),
}

/// Asks, and passes on what comes as it comes. Whoever hangs up drops the stream, and with it the call to the AI.
pub fn stream(
    place: Place,
    running: Running,
    message: String,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let state = (place, Some(running), Stage::Begin(message));
    let events = unfold(state, |(place, mut running, stage)| async move {
        let shutdown = place.shutdown.clone();
        let step = match stage {
            Stage::End => return None,
            stage => {
                shutdown
                    .run_until_cancelled(advance(&place.analyst, stage))
                    .await
            }
        };
        let step = step.unwrap_or(Step::Failed("The service restarts. Ask again in a minute."));
        let (event, stage) = match step {
            Step::Text(answer, text) => (
                event("delta", &json!({ "text": text })),
                Stage::Answer(answer, true),
            ),
            Step::Done => {
                let session = running.as_ref().and_then(Running::id);
                end(&mut running, AnalysisOutcome::Done).await;
                (event("done", &json!({ "session_id": session })), Stage::End)
            }
            Step::Failed(message) => {
                end(&mut running, AnalysisOutcome::Failed).await;
                (event("error", &json!({ "message": message })), Stage::End)
            }
        };
        Some((Ok(event), (place, running, stage)))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

async fn end(running: &mut Option<Running>, outcome: AnalysisOutcome) {
    if let Some(running) = running.take() {
        running.end(outcome).await;
    }
}

/// The next thing to tell.
async fn advance(analyst: &Analyst, stage: Stage) -> Step {
    let (mut answer, had_text) = match stage {
        Stage::Begin(message) => match analyst.ask(super::prompt::SYSTEM, &message).await {
            Ok(answer) => (Box::new(answer), false),
            Err(error) => return Step::Failed(told(&error)),
        },
        Stage::Answer(answer, had_text) => (answer, had_text),
        Stage::End => return Step::Done,
    };
    match answer.next().await {
        Ok(Some(text)) => Step::Text(answer, text),
        Ok(None) if had_text => Step::Done,
        Ok(None) => Step::Failed(told(&AiError::Unexpected("the answer is empty".into()))),
        Err(error) => Step::Failed(told(&error)),
    }
}

/// What the person is told. The provider's own words are for the operator: they are about our account.
fn told(error: &AiError) -> &'static str {
    match error {
        AiError::Unavailable { .. } => {
            tracing::warn!(%error, "an analysis failed");
            "The AI did not answer to the end. Ask again in a minute."
        }
        AiError::Missing | AiError::Refused { .. } | AiError::Unexpected(_) => {
            tracing::error!(%error, "the AI endpoint (analysis.url) cannot be used");
            "The AI cannot be asked at the moment. The service's operator has to mend that."
        }
    }
}

/// JSON has no line ends outside of texts, and there it escapes them: so it is one line.
fn event(name: &'static str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}
