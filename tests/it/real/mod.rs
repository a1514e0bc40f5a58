//! Stories with the real programs as processes: `dev`, `serve`, `work`, agents, backends, Postgres.
//! Each starts its own in a folder of its own. nextest runs two of them at a time.

mod backups;
mod backups_at_risk;
mod branch_crashes;
mod branches;
mod browser;
mod cli;
mod cli_login;
mod clients;
mod command_runtime;
mod kills;
mod machine_lost;
mod outage;
mod restart;
mod rotated_key;
mod secrets;
mod secrets_sign_in;
pub mod stops;
mod tour;
