//! The operations engine, jobs and reconcilers.
