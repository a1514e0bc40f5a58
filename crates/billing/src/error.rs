//! What can go wrong, one variant per thing that a caller acts on.

use cp_model::Plan;

pub type BillingResult<T> = Result<T, BillingError>;

#[derive(Debug, thiserror::Error)]
pub enum BillingError {
    /// Stripe could not be reached, took too long, was too busy or failed (429, 5xx), and so it was when we tried
    /// again. What was asked for may have happened all the same. Answer 503; another time it works.
    #[error("Stripe is not available: {reason}")]
    Unavailable {
        reason: String,
        /// Stripe repeats an old failure, since the idempotency key is an old one: with the same key nothing else can
        /// come of it (for a day).
        is_replayed: bool,
    },
    /// The customer or subscription is not there, or no more. Forget its id.
    #[error("Stripe does not have it: {message}")]
    Missing { message: String },
    /// Stripe will not do it: a wrong key, a price that it does not know, an address of mail that it does not like.
    /// Somebody has to mend something. `code` is Stripe's `code`, or else its `type`
    /// (<https://docs.stripe.com/error-codes>).
    #[error("Stripe refused with {status} {code}: {message}")]
    Refused {
        status: u16,
        code: String,
        /// The parameter that it is about, as in `line_items[0][price]`.
        param: Option<String>,
        message: String,
        /// What Stripe's support asks for.
        request_id: Option<String>,
    },
    /// The answer is not what Stripe's documents say. A bug here, or somebody else answers there.
    #[error("Stripe's answer is not understood: {0}")]
    Unexpected(String),
    /// The plan has no price: nobody can buy it.
    #[error("the plan {0} is not sold")]
    NotSold(Plan),
}

impl BillingError {
    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable {
            reason: reason.into(),
            is_replayed: false,
        }
    }
}
