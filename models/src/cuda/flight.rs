//! A batch under way on the device, from when it was issued until its lane has the answer.

use std::sync::{Arc, OnceLock};

use candle_core::Tensor as Array;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, DriverError};

use super::fault;
use super::pinned::Lease;
use super::times::{PassTimes, common};
use crate::engine::RunError;

/// What the first sticky error said. Nothing is issued afterwards.
pub(super) type Lost = Arc<OnceLock<String>>;

/// Two events around what a stream does, with the time of each.
pub(super) struct Span {
    pub(super) start: CudaEvent,
    pub(super) end: CudaEvent,
}

/// A batch that was started. The lane waits for it; then its buffers are free.
pub(super) struct Flight {
    pub(super) lease: Lease,
    pub(super) outputs: usize,
    pub(super) copy_in: Span,
    pub(super) compute: Arc<Span>,
    pub(super) copy_out: Span,
    pub(super) before: Option<Arc<Span>>,
    /// Memory of the device that its streams use until the last event: freed on one stream while
    /// another reads it, it would be given to the next batch.
    pub(super) _held: [Array; 2],
}

impl Flight {
    /// Waits until the batch is done: what came out, and how long each stage took.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub(super) fn land(mut self, lost: &Lost) -> Result<(Vec<f32>, PassTimes), RunError> {
        let landed = (|| {
            self.copy_out.end.synchronize()?;
            let outcome = self.lease.outcome(self.outputs)?;
            Ok((outcome, self.times()?))
        })();
        landed.map_err(|error| verdict(lost, error, "a batch"))
    }

    fn times(&self) -> Result<PassTimes, DriverError> {
        let overlapped_ms = match &self.before {
            None => 0.0,
            Some(before) => {
                let at = |event: &CudaEvent| before.start.elapsed_ms(event);
                let copying = (at(&self.copy_in.start)?, at(&self.copy_in.end)?);
                common(copying, (0.0, at(&before.end)?))
            }
        };
        Ok(PassTimes {
            copy_in_ms: self.copy_in.elapsed_ms()?,
            compute_ms: self.compute.elapsed_ms()?,
            copy_out_ms: self.copy_out.elapsed_ms()?,
            overlapped_ms,
        })
    }
}

impl Drop for Flight {
    /// The lane that waited may have panicked or gone: the buffers go back to the pool only when
    /// the device has done with them.
    fn drop(&mut self) {
        let _ = self.copy_out.end.synchronize();
    }
}

impl Span {
    fn elapsed_ms(&self) -> Result<f32, DriverError> {
        self.start.elapsed_ms(&self.end)
    }
}

/// What an error of the driver means for a batch, and for all that follow.
pub(super) fn verdict(lost: &Lost, error: DriverError, message: &str) -> RunError {
    let what = format!("{message}: {}", told(error));
    if fault::sticky(error.0 as u32).is_none() {
        return RunError::Engine { message: what };
    }
    RunError::DeviceLost {
        message: lost.get_or_init(|| what).clone(),
    }
}

/// The driver's own name of an error: asking it for a text needs a driver that answers.
pub(super) fn told(error: DriverError) -> String {
    format!("{:?}", error.0)
}
