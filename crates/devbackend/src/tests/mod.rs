//! The stand-in on a real Postgres, through its router. Each test has a cluster of its own,
//! which goes away with it, also when the test fails.

mod cloud;
mod harness;
mod keys;
mod migrations;
mod routes;
mod sql;
mod usage;
