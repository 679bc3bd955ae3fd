//! The forward pass, by one of two ways.

use super::error::EncoderError;
use super::outline::Outline;
use super::pooling;
use super::ragged::Ragged;
use super::sequence::Row;
use super::settings::Pooling;
use super::staged::Staged;
use super::weights::{Reader, Tables};
use crate::engine::{LoadError, RunError};
use crate::family::Path;
use crate::kernel::Kernels;

/// The tables and layers of a loaded encoder.
pub(super) enum Network {
    /// On the calling thread, or on those of an engine's that are idle.
    Kernels {
        /// A token's first vector is looked up here.
        tables: Box<Tables>,
        /// What follows.
        layers: Box<Ragged>,
    },
    /// Elsewhere.
    Offload(Staged),
}

impl Network {
    /// Reads tables and layers.
    ///
    /// # Errors
    /// A weight that is not finite; kernels that are asked for by name and not there; what the
    /// device lacks.
    pub(super) fn load(
        outline: &Outline,
        reader: &Reader<'_>,
        path: &Path,
    ) -> Result<Self, LoadError> {
        match path {
            Path::Offload(offload) => Staged::load(outline, reader, offload).map(Self::Offload),
            Path::Kernels { kernels, crew } => {
                let best = || Kernels::new(outline.precision.into());
                let kernels = kernels.map_or_else(best, Ok);
                let kernels = kernels.map_err(|error| LoadError::Engine {
                    message: error.to_string(),
                })?;
                let tables = reader.tables().map_err(EncoderError::into_load)?;
                let layers = Ragged::load(
                    &outline.config,
                    reader,
                    &tables.norm,
                    (kernels, crew.clone()),
                )?;
                Ok(Self::Kernels {
                    tables: Box::new(tables),
                    layers: Box::new(layers),
                })
            }
        }
    }

    /// One vector a row, `[rows, width] f32`: the last layer's, pooled and perhaps of length 1; and
    /// among how many threads they were divided, of so many at most. Rows were checked.
    ///
    /// # Errors
    /// The computation itself.
    pub(super) fn pooled(
        &self,
        outline: &Outline,
        (rows, threads_max): (&[Row<'_>], usize),
        (pooling, normalize): (Pooling, bool),
    ) -> Result<(Vec<f32>, usize), RunError> {
        let config = &outline.config;
        match self {
            Self::Offload(staged) => {
                let pooled = staged.pooled(config, rows, (pooling, normalize))?;
                Ok((pooled, 1))
            }
            Self::Kernels { tables, layers } => {
                let width = config.width;
                let mut pooled = vec![0.0; rows.len() * width];
                let threads =
                    layers.run(tables, config, (rows, threads_max), &mut |row, hidden| {
                        let pooled = &mut pooled[row * width..][..width];
                        pooling::pool(pooling, hidden, pooled);
                        if normalize {
                            pooling::normalize(pooled);
                        }
                    });
                Ok((pooled, threads))
            }
        }
    }
}
