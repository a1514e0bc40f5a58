//! What can go wrong between us and Postgres, sorted by what a caller can do about it.

use sqlx::error::ErrorKind;

pub type StorageResult<T> = Result<T, StorageError>;

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Postgres is away, restarting, or has no connection to spare. Trying again later helps.
    #[error("the database is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// Two transactions were in each other's way. Trying again at once helps.
    #[error("the transaction met another one: {0}")]
    Conflict(#[source] sqlx::Error),
    /// A named unique constraint refused the row. The domain knows what each means.
    #[error("constraint {0} refused the row")]
    Unique(String),
    /// A stored value that our own types do not know: a bug or a damaged database.
    #[error("{table}.{column} holds an unexpected value: {detail}")]
    Inconsistent {
        table: &'static str,
        column: &'static str,
        detail: String,
    },
    #[error(transparent)]
    Database(sqlx::Error),
    #[error("migration failed: {0}")]
    Migration(String),
}

impl StorageError {
    pub fn is_unique_violation_of(&self, constraint: &str) -> bool {
        matches!(self, Self::Unique(name) if name == constraint)
    }
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            sqlx::Error::Database(refusal) => {
                // SQLSTATE classes, PostgreSQL manual, appendix A.
                let code = refusal.code().unwrap_or_default().into_owned();
                match code.as_str() {
                    // Shutting down or starting up, too many connections, connection failures,
                    // cannot write yet (a standby being promoted).
                    "57P01" | "57P02" | "57P03" | "57P05" | "53300" | "25006" => {
                        Self::Unavailable(error)
                    }
                    _ if code.starts_with("08") => Self::Unavailable(error),
                    "40001" | "40P01" => Self::Conflict(error),
                    _ if refusal.kind() == ErrorKind::UniqueViolation => {
                        Self::Unique(refusal.constraint().unwrap_or("unknown").to_owned())
                    }
                    _ => Self::Database(error),
                }
            }
            _ => Self::Database(error),
        }
    }
}

/// Reads a stored text as one of our enums.
pub(crate) fn parse<T>(table: &'static str, column: &'static str, text: &str) -> StorageResult<T>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|e: T::Err| StorageError::Inconsistent {
            table,
            column,
            detail: e.to_string(),
        })
}
