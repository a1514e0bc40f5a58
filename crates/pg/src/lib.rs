//! Private Postgres clusters on this machine: finds the binaries, makes, copies, starts and
//! stops clusters. Processes and files only; whoever wants SQL brings a client.
//!
//! Called by the server's `dev` (its own database), the `local` machine provider (copies of a
//! template), the agent (the Postgres of its machine) and the test harness. Linux and macOS.
//!
//! A cluster listens on 127.0.0.1 and one TCP port, and has no Unix socket: the path of a socket
//! may not exceed 107 bytes, and data folders of projects easily do. Started clusters outlive
//! the caller on purpose (`pg_ctl` daemonizes them); the next caller adopts them.

mod binaries;
mod cluster;
mod command;
mod error;
mod ports;
mod postmaster;
mod run_as;
mod settings;
#[cfg(test)]
mod tests;

pub use binaries::{Binaries, NotFound};
pub use cluster::{Cluster, SUPERUSER, Started, StopMode};
pub use error::Error;
pub use ports::{free_port, free_port_excluding};
pub use run_as::RunAs;
pub use settings::{Durability, Settings};
