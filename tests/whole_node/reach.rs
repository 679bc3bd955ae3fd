//! A client's way to one life of a node.

use std::time::Duration;

use paceline_node::gateway::MemoryFront;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::http::{Answer, ask};

/// A node's door, as long as the node lives.
#[derive(Clone)]
pub(crate) struct Reach {
    pub(crate) front: MemoryFront,
    pub(crate) ended: watch::Receiver<bool>,
    pub(crate) stalled: watch::Receiver<bool>,
}

/// There is no answer: what became of the request is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost;

impl Reach {
    /// Asks, and waits for the answer while the node lives. A stalled node takes no question
    /// and gives no answer until it goes on.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer, Lost> {
        let (mut ended, mut stalled) = (self.ended.clone(), self.stalled.clone());
        let mut also_stalled = stalled.clone();
        let asking = async {
            let _ = stalled.wait_for(|stalled| !*stalled).await;
            let answered = ask(&self.front, method, path, body).await;
            let _ = also_stalled.wait_for(|stalled| !*stalled).await;
            answered.map_err(|_broken| Lost)
        };
        tokio::select! {
            biased;
            _ = ended.wait_for(|ended| *ended) => Err(Lost),
            answered = timeout(PATIENCE, asking) => answered.unwrap_or(Err(Lost)),
        }
    }
}

/// Longer than a node works on anything that is asked here.
const PATIENCE: Duration = Duration::from_secs(15);
