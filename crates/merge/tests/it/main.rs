//! The engine against real databases.

mod apply;
mod cases;
mod cluster;
mod combinations;
mod command;
mod database;
mod decisions;
mod dump;
mod large;
mod merging;
mod product;
mod properties;
mod reading;
mod renames;
mod speed;
