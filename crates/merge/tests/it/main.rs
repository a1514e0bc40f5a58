//! The engine against real databases.

// mod cases;
mod cluster;
mod database;
mod decisions;
mod dump;
mod reading;
