//! `insforge-agent`: runs on every machine, makes it what the control plane desires and reports
//! what it sees. It decides nothing, and everything is begun by it: no port of the machine is open
//! to the control plane.
//!
//! The story, in the order of the files:
//!
//! | module | what for |
//! |---|---|
//! | [`config`] | `agent.json`, written by whoever made the machine |
//! | `keep` | what must outlive a restart: the agent's token, the last desired state |
//! | [`agent`] | the tasks: follow the control plane, supervise, report, end |
//! | `control` | the control plane's three calls (`cp_model::agent_protocol`) |
//! | `observed` | what it reports |
//! | `supervise` | desired state → running Postgres and backend → observed state |
//! | `postgres` | the machine's cluster and its superuser's password |
//! | `backend` | the backend's environment and process |
//! | `probe` | does it serve? |
//! | [`builtin`] | the stand-in backend, as a process of its own |
//! | `compose` | in production, in place of the three above: the release as containers |
//! | `disk` | there, file systems as large as their volumes |
//! | `process`, `command` | signals and left-over processes; programs run to their end |
//!
//! It serves on without the control plane, also after a reboot. It is small (one thread, two HTTP
//! connections), because a laptop runs one per project.

pub mod agent;
mod backend;
mod backoff;
pub mod builtin;
mod command;
mod compose;
pub mod config;
mod control;
mod disk;
mod keep;
mod meter;
mod observed;
mod postgres;
mod probe;
mod process;
mod supervise;
#[cfg(test)]
mod tests;

/// What the agent calls itself to the control plane.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
