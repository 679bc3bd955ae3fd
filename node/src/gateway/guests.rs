//! Who is inside: connections of clients, whose requests end before the node's parts do.

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
