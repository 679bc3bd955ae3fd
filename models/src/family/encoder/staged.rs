//! Rows of a batch as an offload takes them: sorted by length, in passes that fit its memory.

use std::sync::Arc;

use super::config::Config;
use super::forward::{Forward, Group};
use super::outline::Outline;
use super::sequence::Row;
use super::settings::Pooling;
use super::tables::positions;
use super::weights::Reader;
use crate::engine::{LoadError, RunError};
use crate::offload::{Input, Offload, Work};

/// A loaded encoder whose layers are elsewhere.
///
/// What crosses for a token is a row of each table, 12 bytes, rather than its first vector
/// (1,536 bytes at MiniLM's width): the tables lie where the layers do.
pub(super) struct Staged {
    forward: Arc<Forward>,
    offload: Arc<dyn Offload>,
}

impl Staged {
    /// # Errors
    /// A weight that is not finite; the offload's.
    pub(super) fn load(
        outline: &Outline,
        reader: &Reader<'_>,
        offload: &Arc<dyn Offload>,
    ) -> Result<Self, LoadError> {
        let dtype = outline.precision.dtype();
        let forward = Forward::load(&outline.config, reader, dtype, &**offload)?;
        Ok(Self {
            forward: Arc::new(forward),
            offload: offload.clone(),
        })
    }

    /// One vector a row, in the order of the rows: `[rows, width] f32`.
    ///
    /// # Errors
    /// The offload's.
    pub(super) fn pooled(
        &self,
        config: &Config,
        rows: &[Row<'_>],
        (pooling, normalize): (Pooling, bool),
    ) -> Result<Vec<f32>, RunError> {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|row| rows[*row].tokens());
        let mut pooled = vec![0.0; rows.len() * config.width];
        let tokens_max = self.offload.pass_limits().tokens;
        let mut left = &order[..];
        while !left.is_empty() {
            let pass;
            (pass, left) = left.split_at(pass_of(left, rows, tokens_max));
            let groups = groups(pass, rows);
            let forward = self.forward.clone();
            let vectors = self.offload.run(Work {
                input: Input::U32(places(config, pass, rows)),
                outputs: pass.len() * config.width,
                compute: Box::new(move |places| {
                    forward.pooled(&places, &groups, pooling, normalize)
                }),
            })?;
            for (row, vector) in pass.iter().zip(vectors.chunks_exact(config.width)) {
                pooled[row * config.width..][..config.width].copy_from_slice(vector);
            }
        }
        Ok(pooled)
    }
}

/// How many of the rows pass together: at least one.
fn pass_of(order: &[usize], rows: &[Row<'_>], tokens_max: usize) -> usize {
    let mut tokens = 0;
    let fits = |row: &&usize| {
        tokens += rows[**row].tokens();
        tokens <= tokens_max
    };
    order.iter().take_while(fits).count().max(1)
}

/// Runs of one length, in order.
fn groups(pass: &[usize], rows: &[Row<'_>]) -> Vec<Group> {
    pass.chunk_by(|a, b| rows[*a].tokens() == rows[*b].tokens())
        .map(|alike| Group {
            rows: alike.len(),
            tokens: rows[alike[0]].tokens(),
        })
        .collect()
}

/// Words of all tokens, their positions, and their segments where there is a table of them.
fn places(config: &Config, pass: &[usize], rows: &[Row<'_>]) -> Vec<u32> {
    let narrow =
        |place: usize| u32::try_from(place).expect("tables have some hundred thousand rows");
    let each = || pass.iter().map(|row| rows[*row]);
    let mut places: Vec<u32> = each().flat_map(Row::ids).collect();
    places.extend(each().flat_map(|row| positions(config, row)).map(narrow));
    if config.segments > 0 {
        places.extend(each().flat_map(Row::segments).map(narrow));
    }
    places
}
