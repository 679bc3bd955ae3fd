//! Prediction as KServe's protocol v1 and TensorFlow Serving's REST API have it, as functions over
//! bytes.
//!
//! ```text
//!   body ──▶ Predict::read ──▶ Predict::parse ──▶ ParsedRequest ── … ──▶ AnswerView ──▶ render
//!              which form        by a signature                            in the same form
//! ```
//!
//! Both protocols post to `/v1/models/MODEL:predict`. Rows (`instances`, or a list as `inputs`, as
//! KServe takes it) are answered with `predictions`; columns (an object as `inputs`) with `outputs`.
//! What stands around them is the same for both: readiness, versions, metadata, and the list of
//! models that OpenAI's clients read, too.
//!
//! Sources: KServe's data plane v1; TensorFlow Serving's `api_rest.md`. Deliberately absent:
//! `classify` and `regress`, whose examples no model here takes, and the tokens `NaN` and `Infinity`,
//! which are no JSON: an answer that holds one is refused, as the Open Inference Protocol's is.

mod answer;
mod request;
mod status;

pub use self::answer::render;
pub use self::request::{Form, Predict};
pub use self::status::{metadata, model, models, versions};
