//! Texts as OpenAI's clients and those of text-embeddings-inference (TEI) send them, as functions
//! over bytes.
//!
//! ```text
//!   body ──▶ Texts::read ──▶ Texts::parse ──▶ ParsedRequest ── … ──▶ AnswerView ──▶ render
//!              what is asked    by a signature                         in the same form
//! ```
//!
//! | Path | Protocol | Model |
//! |---|---|---|
//! | `/v1/embeddings`, `/openai/v1/embeddings` | OpenAI | the one that the request names |
//! | `/embed`, `/rerank` | TEI, which serves one model | the one that the request names, or the only one that fits |
//!
//! Deliberately absent: TEI's `truncate`. A text that is longer than its model reads is cut, as
//! sentence-transformers does; `usage` says how many tokens were computed.
//!
//! Sources: OpenAI's API reference 2.3.0; text-embeddings-inference's `openapi.json`, 1.9.

mod answer;
mod failure;
mod request;

pub use self::answer::render;
pub use self::failure::{render_failure, status};
pub use self::request::{Asked, Texts};

/// The output that is a text's vector.
pub(in crate::gateway) const EMBEDDING: &str = "embedding";
/// How well a text answers a query: between 0 and 1, and as the model gives it.
pub(in crate::gateway) const SCORE: &str = "score";
const LOGIT: &str = "logit";
/// How many tokens a row had.
const TOKENS: &str = "tokens";

#[cfg(test)]
mod tests;
