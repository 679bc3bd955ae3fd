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
        let mut seen = 0;
        for (place, (id, segment)) in row.ids().zip(row.segments()).enumerate() {
            let position = match config.layout {
                Layout::Bert | Layout::DistilBert => place,
                // As fairseq counted: from behind the padding token's own position, on which
                // padding stays.
                Layout::Roberta if id == config.pad => config.pad as usize,
                Layout::Roberta => {
                    seen += 1;
                    config.pad as usize + seen
                }
            };
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
