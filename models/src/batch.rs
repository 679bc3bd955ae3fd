//! Rows of several requests that are computed together.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use paceline_protocol::{Signature, Tensor, TensorSpec};

use crate::engine::RunError;

/// Requests side by side, borrowed. Nothing is copied, and nothing is padded: a batch has
/// exactly the rows of its requests.
#[derive(Debug)]
pub struct Batch<'a> {
    requests: &'a [&'a [Tensor]],
    rows: u64,
    threads_max: u32,
    threads: AtomicU32,
}

impl<'a> Batch<'a> {
    /// Takes requests that were validated against the signature: each holds its inputs in the
    /// signature's order, all with the same number of rows, at least one.
    ///
    /// Cost: one addition a request.
    pub fn new(requests: &'a [&'a [Tensor]]) -> Self {
        Self {
            requests,
            rows: requests.iter().map(|inputs| rows_of(inputs)).sum(),
            threads_max: 1,
            threads: AtomicU32::new(1),
        }
    }

    /// The same batch, which may be divided among so many threads, its caller's among them.
    #[must_use]
    pub fn among(mut self, threads: u32) -> Self {
        self.threads_max = threads.max(1);
        self
    }

    /// Among how many threads it may be divided: one, unless that was said.
    pub fn threads_max(&self) -> u32 {
        self.threads_max
    }

    /// The requests, in the order in which answers are given.
    pub fn requests(&self) -> &'a [&'a [Tensor]] {
        self.requests
    }

    /// How many threads compute it, or did: what it costs is its time so many times over. One,
    /// unless its engine says otherwise.
    pub fn threads(&self) -> u32 {
        self.threads.load(Ordering::Relaxed)
    }

    /// An engine divides it among so many threads.
    pub fn divide(&self, threads: u32) {
        self.threads.store(threads, Ordering::Relaxed);
    }

    /// Rows of all requests.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Each request with the rows of the batch that are its own.
    pub fn row_ranges(&self) -> impl Iterator<Item = (&'a [Tensor], Range<u64>)> + use<'a> {
        let mut start = 0;
        self.requests.iter().map(move |inputs| {
            let rows = start..start + rows_of(inputs);
            start = rows.end;
            (*inputs, rows)
        })
    }

    /// What keeps a lapse at the gateway from becoming a panic, or a wrong answer, in an
    /// engine. Cost: a comparison for each dimension of each tensor.
    pub(crate) fn check(&self, signature: &Signature, rows_max: u32) -> Result<(), RunError> {
        if self.rows == 0 || self.rows > u64::from(rows_max) {
            return Err(RunError::Rows {
                rows: self.rows,
                rows_max,
            });
        }
        for (request, inputs) in self.requests.iter().enumerate() {
            check_request(request, inputs, &signature.inputs)?;
        }
        Ok(())
    }
}

fn rows_of(inputs: &[Tensor]) -> u64 {
    inputs.first().map_or(0, Tensor::rows)
}

fn check_request(request: usize, inputs: &[Tensor], specs: &[TensorSpec]) -> Result<(), RunError> {
    if inputs.len() != specs.len() {
        return Err(RunError::Input {
            request,
            input: "inputs".into(),
            wanted: format!("{} tensors", specs.len()),
            got: inputs.len().to_string(),
        });
    }
    let rows = rows_of(inputs);
    for (tensor, spec) in inputs.iter().zip(specs) {
        let fits = tensor.dtype() == spec.dtype && spec.shape.matches(tensor.shape());
        if !fits || tensor.rows() != rows || rows == 0 {
            return Err(RunError::Input {
                request,
                input: spec.name.clone(),
                wanted: format!("{} {} of {} rows", spec.dtype, spec.shape, rows.max(1)),
                got: format!("{} {}", tensor.dtype(), tensor.shape()),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use paceline_protocol::{Dim, Dtype, ShapePattern};

    fn signature() -> Signature {
        let spec = |name: &str| TensorSpec {
            name: name.into(),
            dtype: Dtype::Fp32,
            shape: ShapePattern(vec![Dim::Any, Dim::Exactly(2)]),
        };
        Signature {
            inputs: vec![spec("a"), spec("b")],
            outputs: vec![spec("y")],
        }
    }

    fn rows(rows: usize) -> Tensor {
        Tensor::from_f32(2, &vec![0.5; rows * 2])
    }

    #[test]
    fn requests_own_consecutive_rows() {
        let (one, two) = ([rows(3), rows(3)], [rows(1), rows(1)]);
        let requests = [&one[..], &two[..]];
        let batch = Batch::new(&requests);
        assert_eq!(batch.rows(), 4);
        let ranges: Vec<_> = batch.row_ranges().map(|(_, range)| range).collect();
        assert_eq!(ranges, [0..3, 3..4]);
        assert_eq!(batch.check(&signature(), 4), Ok(()));
        assert_eq!(
            batch.check(&signature(), 3),
            Err(RunError::Rows {
                rows: 4,
                rows_max: 3
            })
        );
    }

    #[test]
    fn what_does_not_fit_the_signature_names_request_and_tensor() {
        let good = [rows(1), rows(1)];
        let uneven = [rows(1), rows(2)];
        let missing = [rows(1)];
        let wrong = [rows(1), Tensor::from_f32(3, &[0.; 3])];
        let text = [rows(1), Tensor::from_byte_strings(&["x"])];
        for (bad, input) in [
            (&uneven[..], "b"),
            (&missing[..], "inputs"),
            (&wrong[..], "b"),
            (&text[..], "b"),
        ] {
            let requests = [&good[..], bad];
            let error = Batch::new(&requests).check(&signature(), 8).unwrap_err();
            let RunError::Input {
                request: 1,
                input: named,
                ..
            } = &error
            else {
                panic!("{error}")
            };
            assert_eq!(named, input);
        }
        assert!(matches!(
            Batch::new(&[]).check(&signature(), 8),
            Err(RunError::Rows { .. })
        ));
    }
}
