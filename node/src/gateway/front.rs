//! Where connections of clients come from: sockets, or memory in tests.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};

/// How a node is reached by clients over HTTP and gRPC.
#[derive(Clone, Default)]
pub enum Front {
    /// At the addresses of its configuration.
    #[default]
    Sockets,
    /// From this process only.
    Memory(MemoryFront),
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Inference and operator API.
    Http,
    /// gRPC inference.
    Grpc,
    /// Prometheus.
    Metrics,
}

/// A node's doors in memory. Cheap to clone; a node that is started again gets new ones.
#[derive(Clone)]
pub struct MemoryFront {
    http: MemoryDoor,
    grpc: MemoryDoor,
    metrics: MemoryDoor,
}

#[derive(Clone)]
struct MemoryDoor {
    bell: mpsc::Sender<DuplexStream>,
    inbox: Inbox,
}

type Inbox = Arc<Mutex<mpsc::Receiver<DuplexStream>>>;

/// A place where connections arrive; it is not given up while the node lives.
#[derive(Clone)]
pub enum Listener {
    /// A port.
    Socket(Arc<std::net::TcpListener>),
    /// A queue, and the address that stands for it.
    Memory(Inbox, SocketAddr),
}

/// A listener in a runtime.
pub(super) enum Accepting {
    Socket(tokio::net::TcpListener),
    Memory(Inbox),
}

/// A connection.
pub(super) enum Accepted {
    Socket(TcpStream),
    Memory(DuplexStream),
}

impl Front {
    /// Binds a door; one in memory has `address` as its name only.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn bind(&self, door: Door, address: SocketAddr) -> io::Result<Listener> {
        match self {
            Self::Sockets => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(Listener::Socket(Arc::new(listener)))
            }
            Self::Memory(front) => Ok(Listener::Memory(front.door(door).inbox.clone(), address)),
        }
    }
}

impl MemoryFront {
    /// Doors that nobody listens at yet.
    pub fn new() -> Self {
        let door = || {
            let (bell, inbox) = mpsc::channel(WAITING_MAX);
            let inbox = Arc::new(Mutex::new(inbox));
            MemoryDoor { bell, inbox }
        };
        Self {
            http: door(),
            grpc: door(),
            metrics: door(),
        }
    }

    /// Connects to a door; the node may answer or not, as behind a socket.
    ///
    /// # Errors
    /// `ConnectionRefused` when too many wait.
    pub fn connect(&self, door: Door) -> io::Result<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
        let rung = self.door(door).bell.try_send(theirs);
        rung.map_err(|_full| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(ours)
    }

    fn door(&self, door: Door) -> &MemoryDoor {
        match door {
            Door::Http => &self.http,
            Door::Grpc => &self.grpc,
            Door::Metrics => &self.metrics,
        }
    }
}

impl Default for MemoryFront {
    fn default() -> Self {
        Self::new()
    }
}

impl Listener {
    /// Where it is reached.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Socket(listener) => listener.local_addr(),
            Self::Memory(_, address) => Ok(*address),
        }
    }

    pub(super) fn accepting(&self) -> io::Result<Accepting> {
        match self {
            Self::Socket(listener) => {
                let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
                Ok(Accepting::Socket(listener))
            }
            Self::Memory(inbox, _) => Ok(Accepting::Memory(inbox.clone())),
        }
    }
}

impl Accepting {
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Socket(listener) => {
                let (stream, _) = listener.accept().await?;
                // Without it small answers wait for acknowledgements; a socket that refuses
                // still works.
                let _ = stream.set_nodelay(true);
                Ok(Accepted::Socket(stream))
            }
            Self::Memory(inbox) => {
                let stream = inbox.lock().await.recv().await;
                stream
                    .map(Accepted::Memory)
                    .ok_or_else(|| io::ErrorKind::NotConnected.into())
            }
        }
    }
}

/// Connections that have not been accepted yet.
const WAITING_MAX: usize = 1_024;
/// Bytes under way on a connection in memory, each way.
const BUFFER_BYTES: usize = 64 << 10;
