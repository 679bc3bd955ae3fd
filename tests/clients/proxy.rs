//! A wire between a client and a door that can be cut without a word to either.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::net::UdpSocket;

/// Datagrams pass until the wire is cut.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    swallowed: Arc<AtomicU64>,
    relaying: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// A wire of one client to `door`.
    pub(crate) async fn to(door: SocketAddr) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        back.connect(door).await.unwrap();
        let address = front.local_addr().unwrap();
        let is_cut = Arc::new(AtomicBool::new(false));
        let swallowed = Arc::new(AtomicU64::new(0));
        let (cut, lost) = (is_cut.clone(), swallowed.clone());
        let relaying = tokio::spawn(async move {
            let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
            let mut client = None;
            loop {
                let passes = || {
                    let passes = !cut.load(Ordering::SeqCst);
                    lost.fetch_add(u64::from(!passes), Ordering::SeqCst);
                    passes
                };
                tokio::select! {
                    Ok((bytes, from)) = front.recv_from(&mut up) => {
                        client = Some(from);
                        if passes() {
                            drop(back.send(&up[..bytes]).await);
                        }
                    }
                    Ok(bytes) = back.recv(&mut down) => {
                        if let Some(client) = client && passes() {
                            drop(front.send_to(&down[..bytes], client).await);
                        }
                    }
                    else => return,
                }
            }
        });
        Self {
            address,
            is_cut,
            swallowed,
            relaying,
        }
    }

    /// From now on, nothing passes.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }

    /// From now on, everything passes again.
    pub(crate) fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }

    /// Datagrams that did not pass.
    pub(crate) fn swallowed(&self) -> u64 {
        self.swallowed.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.relaying.abort();
    }
}
