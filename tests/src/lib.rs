//! The harness: what scenarios arrange with. Everything is real but the cloud: Postgres, the HTTP
//! interface on a loopback port, workers on runtimes of their own (so that one can be killed), and
//! machines of `cp_provider::sim` whose agents speak the agent's protocol.
//!
//! Scenarios live in `it/`. Those of `it/real/` start the real programs instead.

mod app;
pub mod aws;
mod browser;
mod callback;
mod clock;
mod command_line;
mod local;
mod member;
mod openrouter;
mod partner;
mod person;
mod postgres;
pub mod programs;
mod relying_party;
mod shape;
mod sim_agents;
mod truth;
mod usage;
mod visitor;
mod visits;
mod worker;

pub use app::{App, AppOptions};
pub use browser::{Browser, Scripts};
pub use callback::{BACK, Callback, Returned};
pub use clock::MovingClock;
pub use command_line::{CLI_SCOPES, CommandLineClient, StoredSession};
pub use local::Local;
pub use member::Member;
pub use openrouter::{Fault, OpenRouterStandIn};
pub use partner::{Answer, PartnerClient};
pub use person::{PASSWORD, Person, ReceivedMail};
pub use postgres::{PrivateCluster, TestDatabase};
pub use relying_party::{REDIRECT_URI, RelyingParty, SCOPE};
pub use shape::Shape;
pub use sim_agents::{AgentPace, SimAgents};
pub use usage::{StoryClock, UsageClient, UsageService};
pub use visitor::{Button, Form, Page, Visitor};
pub use worker::WorkerProcess;

use std::time::Duration;

/// What [`eventually`] waits for at least. A scenario says how soon a thing should come; a loaded machine may
/// take longer, and speed is judged by `make bench`. Below nextest's limit of 300 s for a test.
const PATIENCE: Duration = Duration::from_secs(90);

/// Looks every 20 ms until `look` gives something.
///
/// # Panics
/// When it has not within `at_most`, or 90 s if that is longer; says what was waited for.
pub async fn eventually<T>(
    what: &str,
    at_most: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let at_most = at_most.max(PATIENCE);
    let until = tokio::time::Instant::now() + at_most;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(
            tokio::time::Instant::now() < until,
            "not within {at_most:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The names of an object's fields, sorted: what an answer has, and nothing besides.
///
/// # Panics
/// When it is no object.
#[track_caller]
pub fn fields(value: &serde_json::Value) -> Vec<&str> {
    let object = value
        .as_object()
        .unwrap_or_else(|| panic!("not an object: {value}"));
    let mut names: Vec<&str> = object.keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}
