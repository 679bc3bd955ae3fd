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
//! | `/embed`, `/rerank`, `/predict`, `/tokenize`, `/info` | TEI, which serves one model | the one that the request names, or the only one that fits |
//!
//! A door has neither a model's tokenizer nor the names of its classes: whether a text is too long,
//! its tokens, and what `/info` tells are said by the replica that the request is sent to
//! ([`Reading`](paceline_protocol::Reading)), on whichever node that is.
//!
//! Deliberately absent: TEI's `prompt_name`, its `/similarity`, `/decode` and `/embed_all`.
//!
//! Sources: OpenAI's API reference 2.3.0; text-embeddings-inference's `openapi.json`, 1.9.

mod answer;
mod failure;
mod info;
mod inputs;
mod request;

pub use self::answer::render;
pub use self::failure::{render_failure, status};
pub use self::request::{Asked, Texts};
pub(in crate::gateway) use self::request::{gives, reads_texts};

/// The output that is a text's vector.
pub(in crate::gateway) const EMBEDDING: &str = "embedding";
/// How well a text answers a query: between 0 and 1, and as the model gives it.
pub(in crate::gateway) const SCORE: &str = "score";
const LOGIT: &str = "logit";
/// The same of each class.
pub(in crate::gateway) const SCORES: &str = "scores";
const LOGITS: &str = "logits";
/// How many tokens a row had.
const TOKENS: &str = "tokens";

#[cfg(test)]
mod tests;
