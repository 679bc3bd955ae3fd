//! What a replica's queue expects of its model, from the warm-up.

use paceline_core::batcher::{Options, Policy};
use paceline_core::cost::CostFit;
use paceline_models::{LoadedModel, WarmUp};

/// What the queue of a model must know that was warmed up. Of one that reads texts, a batch has at
/// most as many tokens as the full one of the warm-up: `rows_max` texts of a sentence or two, or one
/// longest text. A longer batch costs no less a token, and keeps others waiting.
pub(crate) fn options(model: &dyn LoadedModel, warm_up: &WarmUp) -> Options {
    let rows_max = warm_up.rows;
    let (one_row, full) = (warm_up.one_row_ns, warm_up.full_batch_ns);
    let by_rows = CostFit::from_warm_up(one_row, rows_max, full);
    let (tokens_max, cost) = match (model.tokens_max(), warm_up.tokens) {
        (Some(longest), Some([one_row_tokens, full_tokens])) => {
            let cost = CostFit::from_batches((one_row_tokens, one_row), (full_tokens, full));
            (full_tokens.max(longest), cost)
        }
        _ => (0, by_rows),
    };
    Options {
        rows_max,
        tokens_max,
        policy: Policy::default(),
        cost,
    }
}
