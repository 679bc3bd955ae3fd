//! From pooled vectors to a request's answer.

use paceline_protocol::{Dtype, Shape, Tensor};

use super::Encoder;
use super::outline::Task;
use crate::batch::Batch;
use crate::engine::RunError;
use crate::family::arg_max;

impl Encoder {
    /// One answer a request, sharing the bytes of one buffer for each output. `pooled` is
    /// `[rows, width] f32`, `tokens` what was computed of each row.
    pub(super) fn answers(
        &self,
        batch: &Batch<'_>,
        pooled: Vec<f32>,
        tokens: &[u32],
    ) -> Result<Vec<Vec<Tensor>>, RunError> {
        let width = self.outline.config.width;
        let logits = match &self.head {
            Some(head) => head.logits(pooled, width)?,
            None => pooled,
        };
        let outputs = match &self.outline.task {
            Task::Embedding { .. } => vec![Tensor::from_f32(width, &logits), column(tokens)],
            Task::Rerank { scores } => {
                let mut scored = logits.clone();
                scores.apply(&mut scored, 1);
                vec![Tensor::from_f32(1, &scored), Tensor::from_f32(1, &logits)]
            }
            Task::Classification(classifier) => {
                let classes = classifier.labels.len();
                let mut scored = logits.clone();
                classifier.scores.apply(&mut scored, classes);
                let rows = logits.chunks_exact(classes);
                let labels: Vec<_> = rows.map(|row| &classifier.labels[arg_max(row)]).collect();
                vec![
                    Tensor::from_f32(classes, &scored),
                    Tensor::from_f32(classes, &logits),
                    Tensor::from_byte_strings(&labels),
                ]
            }
        };
        let answer = |rows: std::ops::Range<u64>| {
            outputs
                .iter()
                .map(|output| output.slice_rows(rows.clone()))
                .collect()
        };
        Ok(batch.row_ranges().map(|(_, rows)| answer(rows)).collect())
    }
}

/// A number a row.
fn column(values: &[u32]) -> Tensor {
    let shape = Shape::new(&[values.len() as u64, 1]).expect("two small dimensions");
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    Tensor::new(Dtype::Uint32, shape, bytes.into()).expect("as many as the shape")
}
