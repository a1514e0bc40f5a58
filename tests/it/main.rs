//! Scenarios. One binary, so that it links once; one file per story.

mod house;
mod partnership;
