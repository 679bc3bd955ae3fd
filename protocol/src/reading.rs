//! How the texts of a request are read, and what is wanted of them: what a door says to the replica,
//! which has the model's tokenizer and the names of its classes.

use serde::{Deserialize, Serialize};

/// How a request is read. The default is what inference asks for that knows nothing of texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// What happens to a text that is longer than its model reads.
    pub long: LongText,
    /// What is answered.
    pub asks: Asks,
}

/// What happens to a text that is longer than its model reads. Variants are only ever appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LongText {
    /// It loses its end.
    #[default]
    KeepsStart,
    /// It loses its beginning.
    KeepsEnd,
    /// Its request is refused.
    IsRefused,
}

/// What is answered. Variants are only ever appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asks {
    /// The model's outputs.
    #[default]
    Outputs,
    /// The model's outputs and, behind them, the names of its classes: BYTES `[rows, classes]`.
    OutputsAndClasses,
    /// The tokens of each text, uncut: BYTES `[rows, 1]`, of each row a list in JSON, as
    /// text-embeddings-inference has it. Nothing is computed.
    Tokens {
        /// Whether those that stand for nothing in the text are among them.
        special: bool,
    },
    /// What the model is: BYTES `[1, 1]`, an object in JSON. Nothing is computed.
    Facts,
}

impl Asks {
    /// Whether the model computes something.
    pub fn is_computed(self) -> bool {
        match self {
            Self::Outputs | Self::OutputsAndClasses => true,
            Self::Tokens { .. } | Self::Facts => false,
        }
    }
}
