//! What this node says of itself, and when it says it to a peer.

use std::sync::Arc;

use paceline_protocol::NodeId;
use paceline_protocol::report::{NodeReport, Told};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{COALESCE, EVERY};

/// Takes the newest report.
pub(crate) struct Publisher {
    newest: watch::Sender<Option<Told>>,
    life: u64,
}

/// What is said to one peer over one stream.
pub(crate) struct Publication {
    newest: watch::Receiver<Option<Told>>,
    /// What was said last: by whom, in which life, and its number; and when.
    said: Option<((NodeId, u64, u64), Instant)>,
}

impl Publisher {
    /// Nothing has been said yet in this `life` of the node, whose number no other has.
    pub(crate) fn new(life: u64) -> Self {
        let newest = watch::Sender::new(None);
        Self { newest, life }
    }

    /// For one more peer.
    pub(crate) fn subscribe(&self) -> Publication {
        Publication {
            newest: self.newest.subscribe(),
            said: None,
        }
    }

    /// Replaces what is said. The same again is nothing new.
    pub(crate) fn publish(&self, report: NodeReport) {
        let report = report.bounded();
        self.newest.send_if_modified(|newest| {
            let sequence = match newest {
                Some(Told::Report { report: said, .. }) if **said == report => return false,
                Some(Told::Report { sequence, .. }) => *sequence + 1,
                _ => 1,
            };
            *newest = Some(Told::Report {
                life: self.life,
                sequence,
                report: Arc::new(report),
            });
            true
        });
    }
}

impl Publication {
    /// Waits for the time to say something, and returns it: the whole report first, then
    /// whatever is new, and each second that nothing is. `None` once there is no publisher.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        if let Some((_, at)) = self.said {
            sleep_until(at + COALESCE).await;
            if let Ok(Err(_closed)) = timeout_at(at + EVERY, self.newest.changed()).await {
                return None;
            }
        }
        let newest = self.newest.wait_for(Option::is_some).await.ok()?.clone()?;
        let Told::Report {
            life,
            sequence,
            report,
        } = &newest
        else {
            return None;
        };
        let (node, life, sequence) = (report.node, *life, *sequence);
        let mark = (node, life, sequence);
        let before = self.said.replace((mark, Instant::now()));
        match before {
            Some((before, _)) if before == mark => Some(Told::Still {
                node,
                life,
                sequence,
            }),
            _ => Some(newest),
        }
    }

    /// The same for another stream: it begins with the whole report.
    pub(crate) fn anew(&self) -> Self {
        Self {
            newest: self.newest.clone(),
            said: None,
        }
    }
}
