//! AI providers, over HTTP. No database and no clock: whoever calls keeps what was made, and decides who may.
//!
//! | module | what for |
//! |---|---|
//! | [`openrouter`] | an API key of its own for each project, at [OpenRouter](https://openrouter.ai/docs/features/provisioning-api-keys) |
//! | [`analysis`] | answers to questions, as they come, of an endpoint that speaks OpenAI's chat completions |
//! | `http` | one call: authentication, deadlines, what a refusal means |
//!
//! Nothing that holds a secret implements `Debug`; a test keeps it so.

pub mod analysis;
pub mod openrouter;

mod error;
mod http;

#[cfg(test)]
mod tests;

pub use analysis::{Analyst, AnalystConfig, Answer};
pub use error::{AiError, AiResult};
pub use openrouter::{ListedKey, MadeKey, OpenRouter, OpenRouterConfig};
