//! Copies between real servers: what arrives, what does not, and what failures leave behind.

#![allow(clippy::unwrap_used)] // all of it is tests; clippy knows only the functions of `#[test]`

mod backend;
mod copies;
mod cron;
mod failures;
mod fix_ups;
mod harness;
mod in_place;
mod snapshots;
mod speed;
mod tls;
