//! The requests that engines of a replica died of, by fingerprint: drives
//! [`paceline_core::quarantine`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use paceline_core::Instant;
use paceline_core::quarantine::{Fingerprint, Quarantine, Verdict};
use paceline_protocol::Tensor;

/// Shared by a replica, which keeps it while engines come and go, and its device.
#[derive(Debug, Default)]
pub struct Suspects {
    quarantine: Mutex<Quarantine>,
    /// Read first: while nothing is held, no request is looked at.
    holds_some: AtomicBool,
}

impl Suspects {
    /// Whether no request need be looked at.
    pub(super) fn is_empty(&self) -> bool {
        !self.holds_some.load(Ordering::Relaxed)
    }

    /// What a request may do. Cost: while some are held, a pass over its bytes.
    pub(super) fn verdict(&self, now: Instant, inputs: &[Tensor]) -> Verdict {
        if self.is_empty() {
            return Verdict::Free;
        }
        let fingerprint = fingerprint(inputs);
        self.lock().verdict(now, fingerprint)
    }

    /// An engine died while these ran.
    pub(super) fn died<'a>(
        &self,
        now: Instant,
        requests: impl Iterator<Item = &'a [Tensor]>,
        is_second: bool,
    ) {
        let fingerprints: Vec<_> = requests.map(fingerprint).collect();
        let mut quarantine = self.lock();
        quarantine.died(now, fingerprints, is_second);
        self.note(&quarantine);
    }

    /// These have run to their end.
    pub(super) fn ran<'a>(&self, requests: impl Iterator<Item = &'a [Tensor]>) {
        if self.is_empty() {
            return;
        }
        for inputs in requests {
            let fingerprint = fingerprint(inputs);
            self.lock().ran(fingerprint);
        }
        let quarantine = self.lock();
        self.note(&quarantine);
    }

    fn note(&self, quarantine: &Quarantine) {
        self.holds_some
            .store(!quarantine.is_empty(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Quarantine> {
        self.quarantine
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Half of a BLAKE3 hash over types, shapes and bytes: nobody makes two requests that share one.
fn fingerprint(inputs: &[Tensor]) -> Fingerprint {
    let mut hasher = blake3::Hasher::new();
    for tensor in inputs {
        let dims = tensor.shape().dims();
        hasher.update(&[tensor.dtype() as u8, dims.len() as u8]);
        for dim in dims {
            hasher.update(&dim.to_le_bytes());
        }
        hasher.update(tensor.data());
    }
    let mut half = [0; 16];
    hasher.finalize_xof().fill(&mut half);
    Fingerprint(u128::from_le_bytes(half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_inputs_are_told_apart_from_all_others() {
        let row = |values: &[f32]| vec![Tensor::from_f32(values.len(), values)];
        let killer = row(&[1., 2.]);
        let suspects = Suspects::default();
        assert_eq!(suspects.verdict(Instant::ZERO, &killer), Verdict::Free);
        suspects.died(Instant::ZERO, [&killer[..]].into_iter(), false);
        let again = row(&[1., 2.]);
        assert_eq!(suspects.verdict(Instant::ZERO, &again), Verdict::Alone);
        let others = [
            row(&[2., 1.]),
            row(&[1., 2., 0.]),
            vec![Tensor::from_f32(1, &[1., 2.])],
            [row(&[1.]), row(&[2.])].concat(),
            vec![],
        ];
        for other in &others {
            assert_eq!(suspects.verdict(Instant::ZERO, other), Verdict::Free);
        }
        suspects.ran([&again[..]].into_iter());
        assert!(suspects.is_empty());
    }
}
