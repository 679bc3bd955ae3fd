//! The task that keeps a node's certificate fresh: [`paceline_core::renewal`] decides when, a
//! voter signs itself, and every other node asks at a voter's join door. It belongs to the node
//! and ends with it; without it a node is a stranger after a day.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use paceline_core::renewal;
use tokio::sync::watch;

use crate::identity::authority::AuthorityError;
use crate::identity::credentials::Credentials;
use crate::identity::files::{Files, FilesError};
use crate::join::{self, Admits, JoinError};

/// What the task needs.
pub struct Renewal {
    /// Whose certificate it is.
    pub credentials: Credentials,
    /// Where it is kept.
    pub files: Files,
    /// Who signs, or where a voter is.
    pub admits: Arc<dyn Admits>,
    /// The node's own: nodes that were started together renew apart.
    pub seed: u64,
    /// True once the node stops.
    pub stopping: watch::Receiver<bool>,
}

#[derive(Debug, thiserror::Error)]
enum RenewalError {
    #[error("no voter is known")]
    NoVoter,
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error(transparent)]
    Sign(#[from] AuthorityError),
    #[error("the new certificate is another key's: {0}")]
    Key(#[from] rustls::Error),
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error("the new certificate was not saved: {0}")]
    Save(#[from] tokio::task::JoinError),
}

/// Renews until the node stops.
pub async fn keep_fresh(mut renewal: Renewal) {
    let mut failures = 0;
    loop {
        let due_s = renewal::due_s(renewal.credentials.life(), renewal.seed);
        let wait_s = match failures {
            0 => due_s.saturating_sub(now_s()),
            failures => renewal::retry_in_s(failures, renewal.seed),
        };
        // The clock that certificates go by may be set meanwhile: it is looked at again.
        let wait = Duration::from_secs(wait_s).min(LOOK_AGAIN);
        tokio::select! {
            _ = renewal.stopping.wait_for(|stopping| *stopping) => return,
            () = tokio::time::sleep(wait) => {}
        }
        if now_s() < due_s {
            continue;
        }
        match renewal.renew().await {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                let left_s = renewal.credentials.life().until_s.saturating_sub(now_s());
                // While there is time it is tried again; after that a human has to look.
                if left_s == 0 {
                    tracing::error!(%error, failures, "the node's certificate has expired");
                } else {
                    tracing::warn!(%error, failures, left_s, "the certificate was not renewed");
                }
            }
        }
    }
}

impl Renewal {
    async fn renew(&self) -> Result<(), RenewalError> {
        let certificate = match (self.admits.authority(), self.admits.voter()) {
            (Some(authority), _) => {
                let request = self.credentials.request()?;
                let subject = self.credentials.subject();
                let signed = authority.sign(&request, subject, SystemTime::now())?;
                self.credentials.renew(signed.clone())?;
                signed
            }
            (None, Some(voter)) => join::renew(&voter, &self.credentials).await?,
            (None, None) => return Err(RenewalError::NoVoter),
        };
        let files = self.files.clone();
        tokio::task::spawn_blocking(move || files.save_certificate(&certificate)).await??;
        tracing::info!("the certificate was renewed");
        Ok(())
    }
}

fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

const LOOK_AGAIN: Duration = Duration::from_secs(600);
