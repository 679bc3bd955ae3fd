//! The forward pass, by one of two ways.

use super::outline::Outline;
use super::ragged::Ragged;
use super::reference::Reference;
use super::sequence::Row;
use super::weights::{Norm, Reader, Tables};
use crate::engine::{LoadError, RunError};
use crate::kernel::Kernels;

/// How an encoder computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// Kernels of our own; the best of this machine, unless they are named.
    Kernels(Option<Kernels>),
    /// candle's operations.
    Reference,
}

impl Default for Path {
    fn default() -> Self {
        Self::Kernels(None)
    }
}

/// The layers of a loaded encoder.
pub(super) enum Network {
    Kernels(Ragged),
    Reference(Reference),
}

impl Network {
    /// Reads the layers.
    ///
    /// # Errors
    /// A weight that is not finite; kernels that are asked for by name and not there.
    pub(super) fn load(
        outline: &Outline,
        reader: &Reader<'_>,
        norm: &Norm,
        path: Path,
    ) -> Result<Self, LoadError> {
        let config = &outline.config;
        match path {
            Path::Reference => Reference::load(config, reader, norm).map(Self::Reference),
            Path::Kernels(named) => {
                let best = || Kernels::new(outline.precision.into());
                let kernels = named.map_or_else(best, Ok);
                let kernels = kernels.map_err(|error| LoadError::Engine {
                    message: error.to_string(),
                })?;
                Ragged::load(config, reader, norm, kernels).map(Self::Kernels)
            }
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
        outline: &Outline,
        rows: &[Row<'_>],
        take: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), RunError> {
        let config = &outline.config;
        match self {
            Self::Kernels(ragged) => ragged.run(tables, config, rows, take),
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
