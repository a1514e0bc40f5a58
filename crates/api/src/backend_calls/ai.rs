//! The AI gateway (contract/project-backend.md 3.3): each project has an API key of its own at OpenRouter, made when its
//! backend first asks. Backends keep it until they are restarted, so it stays the same until one of them rotates it.

use std::time::Duration;

use axum::extract::{FromRef, State};
use axum::{Extension, Json};
use cp_ai::OpenRouter;
use cp_domain::{AiKey, AiKeyAttempt, AiKeyStart, ControlPlane, FinishedAiKey};
use cp_model::Project;
use secrecy::ExposeSecret as _;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use utoipa::ToSchema;

use super::{SignBody, SignQuery, Unproven};
use crate::ApiState;
use crate::body::JsonBody;
use crate::docs::errors::{BackendAiErrors, BackendErrors, BackendNotConfigured};
use crate::params::{ProjectParam, QueryText};
use crate::problem::Problem;

/// How long a request waits for the key that another one makes, and how often it looks.
const WAIT: Duration = Duration::from_secs(25);
const LOOK: Duration = Duration::from_millis(250);

/// Where keys are made; none: this installation has no AI gateway.
#[derive(Clone)]
pub struct Gateway(Option<OpenRouter>);

impl FromRef<ApiState> for Gateway {
    fn from_ref(state: &ApiState) -> Self {
        Self(state.openrouter.clone())
    }
}

impl Gateway {
    fn get(self) -> Result<OpenRouter, Problem> {
        self.0.ok_or_else(|| {
            Problem::not_configured(
                "This installation has no AI gateway. Set OPENROUTER_API_KEY in the project's secrets to use your own.",
            )
        })
    }
}

/// Work that goes on when its caller hangs up; `serve` waits for it before the process ends.
type Work = Option<Extension<TaskTracker>>;

/// A key at OpenRouter.
#[derive(Serialize, ToSchema)]
struct OpenRouterCredentials {
    #[schema(example = "sk-or-v1-0123456789abcdef")]
    api_key: String,
    /// US dollars that the key may spend until the month ends; left out while that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 4.25)]
    limit_remaining: Option<f64>,
}

/// With what a backend asks AI models.
#[derive(Serialize, ToSchema)]
pub struct AiCredentials {
    openrouter: OpenRouterCredentials,
}

/// Get a project's AI credentials
///
/// An API key of the project's own at OpenRouter, made when it is first asked for: the same one each time. What it may
/// spend in a month depends on the organization's plan.
#[utoipa::path(
    get,
    path = "/ai/v1/credentials/{projectId}",
    tag = "Backends",
    security(("signature" = [])),
    params(ProjectParam, SignQuery),
    responses(
        (status = 200, description = "The key", body = AiCredentials),
        BackendErrors, BackendAiErrors, BackendNotConfigured,
    )
)]
pub async fn get_ai_credentials(
    State(control_plane): State<ControlPlane>,
    State(gateway): State<Gateway>,
    QueryText(query): QueryText<SignQuery>,
    work: Work,
    call: Unproven,
) -> Result<Json<AiCredentials>, Problem> {
    let signature = query.sign.as_deref();
    let project = call.prove(&control_plane, signature, b"").await?;
    let openrouter = gateway.get()?;
    let key = key_of(&control_plane, &openrouter, project, work).await?;
    Ok(Json(shown(&openrouter, &key).await))
}

/// Rotate a project's AI credentials
///
/// The project gets another key; the one before it works two minutes longer.
#[utoipa::path(
    post,
    path = "/ai/v1/credentials/{projectId}/rotate",
    tag = "Backends",
    security(("signature" = [])),
    params(ProjectParam),
    request_body = SignBody,
    responses(
        (status = 200, description = "The new key", body = AiCredentials),
        BackendErrors, BackendAiErrors, BackendNotConfigured,
    )
)]
pub async fn rotate_ai_credentials(
    State(control_plane): State<ControlPlane>,
    State(gateway): State<Gateway>,
    work: Work,
    call: Unproven,
    body: JsonBody<SignBody>,
) -> Result<Json<AiCredentials>, Problem> {
    let signature = Some(body.value.sign.as_str());
    let project = call.prove(&control_plane, signature, &body.raw).await?;
    let openrouter = gateway.get()?;
    let attempt = control_plane.begin_ai_key_attempt(&project).await?;
    let key = make(&control_plane, &openrouter, project, attempt, work).await?;
    Ok(Json(shown(&openrouter, &key).await))
}

/// Get a project's AI activity
///
/// Not told: OpenRouter tells the activity of a whole account, and that is other projects' too. Backends show it as
/// unavailable.
#[utoipa::path(
    get,
    path = "/ai/v1/activity/{projectId}",
    tag = "Backends",
    security(("signature" = [])),
    params(ProjectParam, SignQuery),
    responses(BackendErrors, BackendNotConfigured)
)]
pub async fn get_ai_activity(
    State(control_plane): State<ControlPlane>,
    QueryText(query): QueryText<SignQuery>,
    call: Unproven,
) -> Result<(), Problem> {
    call.prove(&control_plane, query.sign.as_deref(), b"")
        .await?;
    Err(Problem::not_configured(
        "This installation does not tell AI activity by project. The credentials tell what is left of the month's limit.",
    ))
}

/// The project's key, made now if there is none.
async fn key_of(
    control_plane: &ControlPlane,
    openrouter: &OpenRouter,
    project: Project,
    work: Work,
) -> Result<AiKey, Problem> {
    let until = Instant::now() + WAIT;
    loop {
        match control_plane.begin_ai_key(&project).await? {
            AiKeyStart::There(key) => return Ok(key),
            AiKeyStart::Make(attempt) => {
                return make(control_plane, openrouter, project, attempt, work).await;
            }
            AiKeyStart::Wait if Instant::now() < until => tokio::time::sleep(LOOK).await,
            AiKeyStart::Wait => return Err(Problem::ai_unavailable()),
        }
    }
}

/// Makes a key, also when the caller hangs up: what was made and not stored would have to be found and deleted.
async fn make(
    control_plane: &ControlPlane,
    openrouter: &OpenRouter,
    project: Project,
    attempt: AiKeyAttempt,
    work: Work,
) -> Result<AiKey, Problem> {
    let (control_plane, openrouter) = (control_plane.clone(), openrouter.clone());
    let making =
        async move { make_and_store(&control_plane, &openrouter, &project, &attempt).await };
    let work = work.map(|Extension(work)| work).unwrap_or_default();
    let made = work.spawn(making.in_current_span()).await;
    made.map_err(|error| Problem::internal(error.to_string()))?
}

async fn make_and_store(
    control_plane: &ControlPlane,
    openrouter: &OpenRouter,
    project: &Project,
    attempt: &AiKeyAttempt,
) -> Result<AiKey, Problem> {
    let made = openrouter.create_key(&attempt.name, attempt.monthly_limit);
    let made = match made.await {
        Ok(made) => AiKey {
            hash: made.hash,
            key: made.key,
        },
        Err(error) => {
            let may_exist = error.may_have_happened();
            control_plane.abandon_ai_key(attempt, may_exist).await?;
            return Err(error.into());
        }
    };
    match control_plane.finish_ai_key(attempt, project, &made).await? {
        FinishedAiKey::Current => Ok(made),
        // A worker deletes it.
        FinishedAiKey::TooLate => Err(Problem::ai_unavailable()),
    }
}

async fn shown(openrouter: &OpenRouter, key: &AiKey) -> AiCredentials {
    let left = openrouter.limit_remaining(&key.hash).await;
    let left = left.inspect_err(
        |error| tracing::info!(%error, "how much is left of an AI key's limit is not known"),
    );
    AiCredentials {
        openrouter: OpenRouterCredentials {
            api_key: key.key.expose_secret().to_owned(),
            limit_remaining: left.ok().flatten(),
        },
    }
}
