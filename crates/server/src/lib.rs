//! The binary insforge-cloud.
