//! The engine against real databases.

// clippy knows tests by their attribute; all of this is one. Nothing here is built so often that strings matter.
#![allow(
    clippy::unwrap_used,
    clippy::format_collect,
    clippy::format_push_string
)]

mod apply;
mod cases;
mod cluster;
mod combinations;
mod command;
mod database;
mod decisions;
mod definitions;
mod dump;
mod hostile;
mod merging;
mod online;
mod product;
mod properties;
mod reading;
mod rebase;
mod renames;
mod rights;
mod script;
mod speed;
