//! The forward pass, by one of two ways.

use super::config::Config;
use super::reference::Reference;
use super::sequence::Row;
use super::weights::{Norm, Reader, Tables};
use crate::engine::{LoadError, RunError};

/// How an encoder computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Path {
    /// candle's operations.
    #[default]
    Reference,
}

/// The layers of a loaded encoder.
pub(super) enum Network {
    Reference(Reference),
}

impl Network {
    /// Reads the layers.
    ///
    /// # Errors
    /// A weight that is not finite.
    pub(super) fn load(
        config: &Config,
        reader: &Reader<'_>,
        norm: &Norm,
        path: Path,
    ) -> Result<Self, LoadError> {
        match path {
            Path::Reference => Reference::load(config, reader, norm).map(Self::Reference),
        }
    }

    /// Gives the last layer's vectors of each row, `[tokens, width] f32`, to `take`, with the
    /// row's number. Rows were checked.
    ///
    /// # Errors
    /// The computation itself.
    pub(super) fn run(
        &self,
        tables: &Tables,
        config: &Config,
        rows: &[Row<'_>],
        take: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), RunError> {
        match self {
            Self::Reference(reference) => {
                for (number, row) in rows.iter().enumerate() {
                    let mut sums = Vec::with_capacity(row.tokens() * config.width);
                    tables.extend(config, *row, &mut sums);
                    take(number, &reference.hidden(sums)?);
                }
            }
        }
        Ok(())
    }
}
