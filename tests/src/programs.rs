//! The real programs, started as processes: for scenarios that kill them, and for the bench.
//!
//! A [`Home`] is the folder of one scenario. Whatever it leaves running is found by that folder in
//! command lines and working directories, so that a test that fails half-way leaves nothing.

mod backend;
mod dev;
mod home;
mod mailbox;
mod processes;
mod sample_app;

pub use backend::Backend;
pub use dev::{Dev, NO_POOL};
pub use home::{Home, Program, Said};
pub use processes::{Process, kill};
pub use sample_app::SampleApp;

use std::path::PathBuf;

/// A program that this workspace builds, beside the test's own binary.
///
/// # Panics
/// When it is not built; says how.
pub fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a program knows its own path");
    // target/<profile>/deps/it-… or target/<profile>/bench
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| {
            panic!(
                "{name} is not built beside {}; run: cargo build --workspace",
                own.display()
            )
        })
}

/// A TCP port that is free now and below those that the system gives to outgoing connections, so
/// that it is still free when a program comes back to it. Local machines use 20,000 and up.
///
/// # Panics
/// When every port tried is taken.
pub fn quiet_port() -> u16 {
    (0..100)
        .map(|_| 10_000 + u16::try_from(uuid::Uuid::new_v4().as_u128() % 10_000).unwrap_or(0))
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of a hundred ports is free")
}
