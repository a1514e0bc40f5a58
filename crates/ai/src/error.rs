//! What can go wrong, one variant per thing that a caller acts on.

pub type AiResult<T> = Result<T, AiError>;

#[derive(Debug, thiserror::Error)]
pub enum AiError {
    /// The provider could not be reached, took too long, was too busy or failed (429, 5xx). Another time it works.
    #[error("the AI provider is not available: {reason}")]
    Unavailable {
        reason: String,
        /// What was asked for may have happened all the same.
        may_have_happened: bool,
    },
    /// The provider does not have it, or no more.
    #[error("the AI provider does not have it")]
    Missing,
    /// The provider will not do it: a wrong key, no credit. Nothing was done, and somebody has to mend something.
    #[error("the AI provider refused with {status}: {message}")]
    Refused { status: u16, message: String },
    /// The answer is not what the provider's documents say. What was asked for may have happened.
    #[error("the AI provider's answer is not understood: {0}")]
    Unexpected(String),
}

impl AiError {
    /// Whether what was asked for may have happened, although it was not confirmed.
    pub const fn may_have_happened(&self) -> bool {
        match self {
            Self::Unavailable {
                may_have_happened, ..
            } => *may_have_happened,
            Self::Unexpected(_) => true,
            Self::Missing | Self::Refused { .. } => false,
        }
    }
}
