//! Who is inside: connections of clients, whose requests end before the node's parts do.

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;

/// Open connections of a node's doors. Cheap to clone.
#[derive(Clone, Default)]
pub struct Guests(watch::Sender<usize>);

/// A connection that is counted while this lives.
pub struct Guest(Guests);

impl Guests {
    /// Counts a connection.
    pub fn enter(&self) -> Guest {
        self.0.send_modify(|inside| *inside += 1);
        Guest(self.clone())
    }

    /// Waits until nobody is inside.
    pub async fn all_gone(&self) {
        let mut inside = self.0.subscribe();
        // The sender lives as long as this does.
        drop(inside.wait_for(|inside| *inside == 0).await);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.0.send_modify(|inside| *inside -= 1);
    }
}

/// One more on a gauge while this lives.
pub(super) struct Counted(Gauge);

impl Counted {
    pub(super) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_goes_on_when_the_last_one_has_left() {
        let guests = Guests::default();
        let soon = Duration::from_secs(1);
        assert!(timeout(soon, guests.all_gone()).await.is_ok(), "nobody");
        let (first, second) = (guests.enter(), guests.clone().enter());
        assert!(timeout(soon, guests.all_gone()).await.is_err(), "two");
        drop(first);
        assert!(timeout(soon, guests.all_gone()).await.is_err(), "one");
        let waiting = guests.clone();
        let waiting = tokio::spawn(async move { waiting.all_gone().await });
        drop(second);
        assert!(timeout(soon, waiting).await.is_ok());
    }
}
