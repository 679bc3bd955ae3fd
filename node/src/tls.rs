//! TLS on clients' doors: an operator's certificate, from PEM files that may change while it is used.
//!
//! A door wraps what it accepts ([`TlsDoor::accept`]). New handshakes show the newest pair that could be
//! used, connections keep what they began with. Nodes among themselves have certificates of their
//! own (`identity`), which nobody has to bring.

mod pair;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use self::pair::{Pair, Stamp};
pub use self::pair::{TlsFault, Validity};
use crate::clock::Wall;
use crate::threads::Threads;

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and what leads from it to its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A certificate in use, for all doors of a node. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    files: TlsFiles,
    newest: Arc<Newest>,
    wall: Wall,
}

/// What new handshakes show.
struct Newest {
    key: ArcSwap<CertifiedKey>,
    state: Mutex<State>,
}

/// What there is to say of it.
#[derive(Clone, Debug)]
struct State {
    validity: Validity,
    stamp: Stamp,
    /// What the files hold instead, if that cannot be used.
    refused: Option<Refused>,
}

#[derive(Clone, Debug)]
struct Refused {
    stamp: Stamp,
    /// Files that are being replaced one after another are refused once without a word.
    is_told: bool,
}

/// TLS of one door. Cheap to clone.
#[derive(Clone)]
pub struct TlsDoor {
    acceptor: TlsAcceptor,
}

impl TlsFiles {
    /// Looks whether they can be used.
    ///
    /// # Errors
    /// What is wrong, with the key of the configuration and its file.
    pub fn check(&self) -> Result<(), TlsFault> {
        Pair::load(self, Wall::System.now_ms()).map(drop)
    }
}

impl Tls {
    /// Reads the pair.
    ///
    /// # Errors
    /// It cannot be used.
    pub(crate) fn load(files: TlsFiles, wall: Wall) -> Result<Self, TlsFault> {
        let stamp = Stamp::of(&files);
        let pair = Pair::load(&files, wall.now_ms())?;
        let state = State {
            validity: pair.validity,
            stamp,
            refused: None,
        };
        let newest = Newest {
            key: ArcSwap::new(pair.key),
            state: Mutex::new(state),
        };
        Ok(Self(Arc::new(Shared {
            files,
            newest: Arc::new(newest),
            wall,
        })))
    }

    /// A door whose clients choose among `protocols` (ALPN), the first of them first.
    ///
    /// # Errors
    /// The provider offers no version of TLS.
    pub fn door(&self, protocols: &[&[u8]]) -> Result<TlsDoor, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.0.newest.clone());
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(TlsDoor {
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    /// When the certificate in use ends, in seconds since 1970.
    pub fn expires_s(&self) -> u64 {
        self.0.newest.state().validity.until_s
    }

    /// What an operator should know of it.
    pub fn warnings(&self) -> Vec<String> {
        let state = self.0.newest.state();
        let left_s = state
            .validity
            .until_s
            .saturating_sub(self.0.wall.now_ms() / 1_000);
        let mut warnings = Vec::new();
        if left_s < SOON_S {
            let days = left_s.div_ceil(86_400);
            warnings.push(match days {
                0 => "the TLS certificate has expired".to_owned(),
                days => format!("the TLS certificate ends within {days} d"),
            });
        }
        if state.refused.is_some_and(|refused| refused.is_told) {
            let warning = "the new TLS certificate or key cannot be used, and the one before is shown; the log says why";
            warnings.push(warning.to_owned());
        }
        warnings
    }

    /// Looks at the files every few seconds, until the node stops, and takes what has changed.
    pub(crate) async fn keep_fresh(
        self,
        threads: Threads,
        mut stopping: watch::Receiver<bool>,
        told: impl Fn(&Self) + Send,
    ) {
        loop {
            told(&self);
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let looked = self.clone();
            // A look that panics is lost, and the next one is not.
            let _ = threads.blocking(move || looked.look()).await;
        }
    }

    /// Takes the pair in the files if it is another one and can be used.
    fn look(&self) {
        let Shared {
            files,
            newest,
            wall,
            ..
        } = &*self.0;
        // Before the files are read: what changes meanwhile is seen at the next look.
        let stamp = Stamp::of(files);
        let mut state = newest.state();
        if stamp == state.stamp {
            state.refused = None;
        } else if state.is_settled(&stamp) {
            return;
        } else {
            match Pair::load(files, wall.now_ms()) {
                Ok(pair) => {
                    tracing::info!(until_s = pair.validity.until_s, "a new TLS certificate");
                    newest.key.store(pair.key);
                    state.validity = pair.validity;
                    state.stamp = stamp;
                    state.refused = None;
                }
                Err(fault) => state.refuse(stamp, &fault),
            }
        }
        *newest.lock() = state;
    }
}

impl Newest {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> State {
        self.lock().clone()
    }
}

impl State {
    /// Whether everything was said of files with this stamp.
    fn is_settled(&self, stamp: &Stamp) -> bool {
        let refused = self.refused.as_ref();
        refused.is_some_and(|refused| refused.is_told && refused.stamp == *stamp)
    }

    fn refuse(&mut self, stamp: Stamp, fault: &TlsFault) {
        let before = self.refused.take();
        let is_told = before.is_some_and(|before| before.stamp == stamp);
        if is_told {
            tracing::warn!(%fault, "the new TLS certificate cannot be used; the one before goes on");
        }
        self.refused = Some(Refused { stamp, is_told });
    }
}

impl TlsDoor {
    /// Shakes hands. How many do at a time is bounded by the door's connections: places of their own
    /// would be a few that silent clients could hold.
    ///
    /// # Errors
    /// The client speaks no TLS that is offered, or takes too long; it is the client's.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        timeout(HANDSHAKE_LIMIT, self.acceptor.accept(stream))
            .await
            .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl ResolvesServerCert for Newest {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key.load_full())
    }
}

impl std::fmt::Debug for Newest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Newest").finish_non_exhaustive()
    }
}

/// What a handshake may take: as long as a connection may stand
/// still in the middle of anything else.
const HANDSHAKE_LIMIT: Duration = Duration::from_millis(paceline_protocol::limits::STREAM_STALL_MS);
/// How often the files are looked at: two calls of the system.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A certificate that ends sooner should have been renewed: those for 90 days are after 60.
const SOON_S: u64 = 14 * 86_400;

#[cfg(test)]
mod tests;
