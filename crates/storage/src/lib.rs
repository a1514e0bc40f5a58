//! The only SQL on our own database. Plain functions on a connection or transaction; the domain
//! decides what belongs into one transaction. Names: `find_` gives an Option, `list_`, `insert_`,
//! `mark_`, `delete_`; every tenant query takes the tenant's id first; every state change is a
//! conditional UPDATE whose row count is returned.

pub mod accounts;
pub mod ai_keys;
pub mod analyses;
pub mod api_keys;
pub mod audit;
pub mod backups;
pub mod billing;
pub mod branch_comparisons;
pub mod branches;
pub mod browser_sessions;
pub mod database;
pub mod email_challenges;
pub mod error;
pub mod idempotency;
pub mod machine_runs;
pub mod machines;
pub mod mails;
pub mod metrics;
pub mod notifications;
pub mod oauth_clients;
pub mod oauth_codes;
pub mod oauth_consents;
pub mod oauth_devices;
pub mod oauth_grants;
pub mod operations;
pub mod organizations;
pub mod partners;
pub mod project_secrets;
pub mod projects;
pub mod rate_limits;
pub mod retention;
pub mod signing_keys;
pub mod sites;
pub mod usage;
pub mod usage_collections;
pub mod usage_limits;
pub mod usage_statements;
pub mod usage_tokens;
pub mod used_signatures;
pub mod wakeups;
pub mod webhooks;

pub use database::{Database, DatabaseConfig, Transaction};
pub use error::{StorageError, StorageResult};
pub use sqlx::{PgConnection, PgPool};
