//! Memory for messages that arrive: so much at a time for all calls of a door, however many there are.

use std::sync::Arc;

use paceline_protocol::{ErrorCode, Failure};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The room of a door. Cheap to clone.
#[derive(Clone)]
pub(super) struct Room {
    kib: Arc<Semaphore>,
}

/// What one call has of it, until it is dropped.
#[derive(Default)]
pub(super) struct Place {
    permit: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Room {
    /// Room for so many bytes.
    pub(super) fn of(bytes: usize) -> Self {
        let kib = (bytes >> 10).min(Semaphore::MAX_PERMITS);
        Self {
            kib: Arc::new(Semaphore::new(kib)),
        }
    }

    /// Takes room for so many bytes more.
    ///
    /// # Errors
    /// `OVERLOADED` if there is none: whoever waited would keep what it has.
    pub(super) fn take(&self, place: &mut Place, bytes: usize) -> Result<(), Failure> {
        place.bytes += bytes;
        let held = place
            .permit
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let more = place.bytes.div_ceil(1 << 10).saturating_sub(held);
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        match self.kib.clone().try_acquire_many_owned(more) {
            Ok(permit) => {
                match &mut place.permit {
                    Some(held) => held.merge(permit),
                    none => *none = Some(permit),
                }
                Ok(())
            }
            Err(_full) => {
                let message = "the node holds as many bytes of messages as it may";
                Err(Failure::new(ErrorCode::Overloaded, message).retry_after_ms(RETRY_MS))
            }
        }
    }
}

/// A message arrives in less, or its sender is slow.
const RETRY_MS: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back_with_the_place() {
        let room = Room::of(4 << 10);
        let (mut first, mut second) = (Place::default(), Place::default());
        assert!(room.take(&mut first, 1).is_ok());
        assert!(room.take(&mut first, 1_023).is_ok(), "the same kibibyte");
        assert!(room.take(&mut first, 2 << 10).is_ok());
        assert!(room.take(&mut second, 1 << 10).is_ok());
        let full = room.take(&mut second, 1).unwrap_err();
        assert_eq!(full.code, ErrorCode::Overloaded);
        drop(first);
        assert!(room.take(&mut second, 1).is_ok());
    }
}
