//! A token's first vector: its word's, its position's and its segment's, added.

use super::config::Config;
use super::layout::Layout;
use super::sequence::Row;
use super::weights::Tables;

impl Tables {
    /// Appends the vectors of a row's tokens: `[tokens, width] f32`, before normalization.
    /// Ids, positions and segments must be inside the tables. Cost: one pass over three rows of
    /// tables for each token.
    pub(super) fn extend(&self, config: &Config, row: Row<'_>, out: &mut Vec<f32>) {
        let width = config.width;
        let tokens = row.ids().zip(row.segments()).zip(positions(config, row));
        for ((id, segment), position) in tokens {
            let word = &self.words[id as usize * width..][..width];
            let position = &self.positions[position * width..][..width];
            let sums = word
                .iter()
                .zip(position)
                .map(|(word, position)| word + position);
            match self.segments.get(segment * width..(segment + 1) * width) {
                Some(segment) => out.extend(sums.zip(segment).map(|(sum, value)| sum + value)),
                None => out.extend(sums),
            }
        }
    }
}

/// Which row of the table of positions each token takes.
pub(super) fn positions<'a>(
    config: &Config,
    row: Row<'a>,
) -> impl Iterator<Item = usize> + use<'a> {
    let Config { layout, pad, .. } = *config;
    let mut seen = 0;
    row.ids().enumerate().map(move |(place, id)| match layout {
        Layout::Bert | Layout::DistilBert => place,
        // As fairseq counted: from behind the padding token's own position, on which padding
        // stays.
        Layout::Roberta if id == pad => pad as usize,
        Layout::Roberta => {
            seen += 1;
            pad as usize + seen
        }
    })
}
