//! The platform interface: people and the command-line client (contract/platform-api.md).

mod ai;
mod analyze;
mod backend_calls;
mod backups;
mod billing;
mod checklist;
mod matrix;
mod metrics;
mod organizations;
mod projects;
mod sites;
mod together;

use cp_tests::{App, AppOptions};

/// Without a worker, so that mails wait until the scenario fetches them, and projects stay as they are set.
async fn quiet() -> App {
    App::start_with(AppOptions {
        worker: false,
        ..AppOptions::default()
    })
    .await
}
