//! What the agent sees of its machine, on its way to the control plane.

use cp_model::agent_protocol::ObservedState;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observed {
    /// The generation that all of this speaks of.
    pub generation: i64,
    pub state: ObservedState,
    pub restarts: i64,
    pub backend_version: Option<String>,
    /// The release that serves, where the runtime knows releases.
    pub backend_release: Option<String>,
    /// The desired release, when the agent gave it up and `backend_release` serves in its place.
    pub rolled_back_from: Option<String>,
    pub message: Option<String>,
}

impl Observed {
    pub(crate) fn starting(generation: i64) -> Self {
        Self {
            generation,
            state: ObservedState::Starting,
            restarts: 0,
            backend_version: None,
            backend_release: None,
            rolled_back_from: None,
            message: None,
        }
    }

    pub(crate) fn idle(generation: i64) -> Self {
        Self {
            state: ObservedState::Idle,
            ..Self::starting(generation)
        }
    }

    pub(crate) fn database_only(generation: i64, restarts: i64) -> Self {
        Self {
            state: ObservedState::DatabaseOnly,
            restarts,
            ..Self::starting(generation)
        }
    }

    pub(crate) fn failing(generation: i64, restarts: i64, why: &impl ToString) -> Self {
        Self {
            state: ObservedState::Failing,
            restarts,
            message: Some(message(&why.to_string())),
            ..Self::starting(generation)
        }
    }
}

/// As long as the control plane keeps it.
pub(crate) fn message(text: &str) -> String {
    text.chars().take(500).collect()
}
