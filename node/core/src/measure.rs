//! Policy: what the size of a batch is counted in, since that is what its cost grows with.

use serde::{Deserialize, Serialize};

use crate::request::RequestMeta;

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Measure {
    /// All rows cost the same.
    #[default]
    Rows,
    /// Rows are texts, and a long one costs as much as many short ones.
    Tokens,
}

impl Measure {
    /// The size of a request, at least 1: a row has a token.
    pub(crate) fn of(self, request: &RequestMeta) -> u32 {
        self.size(request.rows, request.tokens)
    }

    /// The size of a batch.
    pub(crate) fn size(self, rows: u32, tokens: u32) -> u32 {
        match self {
            Self::Rows => rows,
            Self::Tokens => tokens.max(rows),
        }
    }
}
