//! What shall run: all that the containers are made from.

use std::collections::BTreeMap;

use cp_model::{ProjectId, agent_protocol::DesiredBackend};
use serde::{Deserialize, Serialize};

use super::{environment::in_url, memory::Memory};
use crate::postgres::database_of;

/// Holds secrets, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stack {
    pub project_id: ProjectId,
    /// The tag of the `insforge` image.
    pub release: String,
    pub restarts: i64,
    pub database_password: String,
    pub env: BTreeMap<String, String>,
    pub memory: Memory,
    /// Postgres runs, and nothing else.
    #[serde(default)]
    pub database_only: bool,
}

/// What `name` must contain for its value to be a secret; `APP_KEY` is in every address.
const TELLING: [&str; 5] = ["KEY", "SECRET", "PASSWORD", "TOKEN", "CREDENTIAL"];

impl Stack {
    pub(crate) fn new(desired: &DesiredBackend, release: &str, memory: Memory) -> Self {
        let mut env = desired.env.clone();
        env.insert("POSTGRES_DB".to_owned(), database_of(desired).to_owned());
        Self {
            project_id: desired.project_id,
            release: release.to_owned(),
            restarts: desired.restarts,
            database_password: desired.database_password.clone(),
            env,
            memory,
            database_only: desired.database_only,
        }
    }

    pub(crate) fn database(&self) -> &str {
        self.variable("POSTGRES_DB").unwrap_or("insforge")
    }

    pub(crate) fn superuser(&self) -> &str {
        self.variable("POSTGRES_USER").unwrap_or("postgres")
    }

    /// None when it is empty: that counts as unset (contract/project-backend.md section 1).
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        let value = self.env.get(name).map(String::as_str);
        value.filter(|value| !value.trim().is_empty())
    }

    /// What must never be in a log or a message.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let telling = |name: &str| {
            TELLING.iter().any(|part| name.contains(part)) && !name.ends_with("APP_KEY")
        };
        let variables = self.env.iter().filter(|(name, _)| telling(name));
        variables
            .map(|(_, value)| value.clone())
            .chain([
                self.database_password.clone(),
                in_url(&self.database_password),
            ])
            .collect()
    }

    /// Whether they differ in nothing but the count of restarts.
    pub(crate) fn is_same_but_restarted(&self, other: &Self) -> bool {
        let mut other = other.clone();
        other.restarts = self.restarts;
        *self == other
    }
}
