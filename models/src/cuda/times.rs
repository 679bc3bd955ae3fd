//! How long batches took in each stage, by the device's own clock.

/// Sums over all batches since the start, from CUDA events.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StageTimes {
    /// Batches, or passes of them.
    pub passes: u64,
    /// Copies to the device, in milliseconds.
    pub copy_in_ms: f64,
    /// Computation, in milliseconds.
    pub compute_ms: f64,
    /// Copies from the device, in milliseconds.
    pub copy_out_ms: f64,
    /// Of the copies to the device, what went on while the batch before computed.
    pub overlapped_ms: f64,
    /// Batches whose copy to the device went on, in part at least, while the one before computed.
    pub overlapped_passes: u64,
}

/// One batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct PassTimes {
    pub(super) copy_in_ms: f32,
    pub(super) compute_ms: f32,
    pub(super) copy_out_ms: f32,
    pub(super) overlapped_ms: f32,
}

impl StageTimes {
    pub(super) fn add(&mut self, pass: PassTimes) {
        self.passes += 1;
        self.copy_in_ms += f64::from(pass.copy_in_ms);
        self.compute_ms += f64::from(pass.compute_ms);
        self.copy_out_ms += f64::from(pass.copy_out_ms);
        self.overlapped_ms += f64::from(pass.overlapped_ms);
        self.overlapped_passes += u64::from(pass.overlapped_ms > 0.0);
    }
}

/// What two spans have in common, each from its start to its end on one clock.
pub(super) fn common(a: (f32, f32), b: (f32, f32)) -> f32 {
    (a.1.min(b.1) - a.0.max(b.0)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_in_common_what_they_share() {
        assert_eq!(common((0.0, 4.0), (1.0, 2.0)), 1.0);
        assert_eq!(common((0.0, 4.0), (3.0, 9.0)), 1.0);
        assert_eq!(common((0.0, 4.0), (-1.0, 0.5)), 0.5);
        assert_eq!(common((0.0, 4.0), (4.0, 5.0)), 0.0);
        assert_eq!(common((0.0, 4.0), (-3.0, -1.0)), 0.0);
    }

    #[test]
    fn passes_add_up() {
        let mut times = StageTimes::default();
        for overlapped_ms in [0.0, 0.25] {
            times.add(PassTimes {
                copy_in_ms: 0.5,
                compute_ms: 2.0,
                copy_out_ms: 0.125,
                overlapped_ms,
            });
        }
        assert_eq!((times.passes, times.overlapped_passes), (2, 1));
        assert_eq!((times.copy_in_ms, times.compute_ms), (1.0, 4.0));
        assert_eq!((times.copy_out_ms, times.overlapped_ms), (0.25, 0.25));
    }
}
