//! How much may be read from a peer's session, and when more.
//!
//! The library hands what it reads to an actor whose mailbox has no bound; this bounds what it
//! reads. A peer that says more than a node has to say waits in its own stream, by QUIC's flow
//! control, and disturbs nobody else.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use paceline_protocol::limits::{MESH_BURST_BYTES, MESH_BYTES_PER_SECOND};
use tokio::time::{Instant, Sleep, sleep_until};

/// A bucket of bytes that fills with time.
pub(super) struct Allowance {
    left: u32,
    filled_at: Instant,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Allowance {
    /// A full one.
    pub(super) fn new() -> Self {
        Self {
            left: MESH_BURST_BYTES,
            filled_at: Instant::now(),
            waiting: None,
        }
    }

    /// How many bytes may be read now; waits until there are some.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.as_mut().poll(context));
                self.waiting = None;
            }
            self.fill(Instant::now());
            if self.left > 0 {
                return Poll::Ready(self.left as usize);
            }
            self.waiting = Some(Box::pin(sleep_until(self.filled_at + PAUSE)));
        }
    }

    /// So many were read.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.left = self
            .left
            .saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// In whole pauses, so that nothing is lost to rounding.
    fn fill(&mut self, now: Instant) {
        let pauses = (now - self.filled_at).as_nanos() / PAUSE.as_nanos();
        let pauses = u32::try_from(pauses).unwrap_or(u32::MAX);
        let gained = pauses.saturating_mul(BYTES_A_PAUSE);
        self.left = MESH_BURST_BYTES.min(self.left.saturating_add(gained));
        self.filled_at += PAUSE * pauses;
    }
}

/// How long who has nothing left waits.
const PAUSE: Duration = Duration::from_millis(10);
const BYTES_A_PAUSE: u32 = MESH_BYTES_PER_SECOND / 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_brings_what_a_second_may_and_a_rest_no_more_than_a_burst() {
        let mut allowance = Allowance::new();
        let begun = Instant::now();
        let mut read = 0;
        while begun.elapsed() < Duration::from_secs(1) {
            let bytes = std::future::poll_fn(|context| allowance.poll(context)).await;
            allowance.spend(bytes);
            read += bytes as u64;
        }
        let most = u64::from(MESH_BURST_BYTES) + u64::from(MESH_BYTES_PER_SECOND);
        assert!(
            (most - most / 50..=most).contains(&read),
            "{read} of {most}"
        );
        tokio::time::sleep(Duration::from_secs(60)).await;
        let bytes = std::future::poll_fn(|context| allowance.poll(context)).await;
        assert_eq!(bytes, MESH_BURST_BYTES as usize);
    }
}
