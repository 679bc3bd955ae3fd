//! An open connection: every wait on it ends by the request's deadline.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::api::NodeAddress;

/// A connection to a node.
pub(super) struct Open {
    stream: TcpStream,
    /// When the last answer was whole.
    pub(super) used: Instant,
    /// How long a read and a write may take, as the system was told.
    reads: Duration,
    writes: Duration,
}

impl Open {
    /// Connects to the first of the node's addresses that answers.
    ///
    /// # Errors
    /// None does by the deadline.
    pub(super) fn to(node: &NodeAddress, deadline: Instant) -> io::Result<Self> {
        let unreachable = |_| io::Error::from(io::ErrorKind::NotConnected);
        let addresses = node.to_string().to_socket_addrs().map_err(unreachable)?;
        let addresses: Vec<SocketAddr> = addresses.collect();
        Self::to_any(&addresses, deadline)
    }

    /// Each address has an even part of what the ones before have left.
    fn to_any(addresses: &[SocketAddr], deadline: Instant) -> io::Result<Self> {
        for (address, others) in addresses.iter().zip((0..addresses.len() as u32).rev()) {
            let left = deadline.saturating_duration_since(Instant::now());
            let part = (left / (others + 1)).max(CONNECT_MIN);
            let Ok(stream) = TcpStream::connect_timeout(address, part) else {
                continue;
            };
            stream.set_nodelay(true)?;
            return Ok(Self {
                stream,
                used: Instant::now(),
                reads: Duration::ZERO,
                writes: Duration::ZERO,
            });
        }
        Err(io::ErrorKind::NotConnected.into())
    }

    /// Whether the node has closed it while nobody asked, as it may: no request is lost by that.
    pub(super) fn is_stale(&self) -> io::Result<bool> {
        if self.used.elapsed() < IDLE_MIN {
            return Ok(false);
        }
        self.stream.set_nonblocking(true)?;
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false)?;
        Ok(match peeked {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        })
    }

    /// Writes all of it, however little the node takes at a time.
    ///
    /// # Errors
    /// The deadline has passed, or the connection is lost.
    pub(super) fn write(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            if let Some(left) = untold(self.writes, deadline)? {
                self.stream.set_write_timeout(Some(left))?;
                self.writes = left;
            }
            match self.stream.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads once.
    ///
    /// # Errors
    /// As [`Open::write`].
    pub(super) fn read(&mut self, into: &mut [u8], deadline: Instant) -> io::Result<usize> {
        if let Some(left) = untold(self.reads, deadline)? {
            self.stream.set_read_timeout(Some(left))?;
            self.reads = left;
        }
        self.stream.read(into)
    }
}

/// What is left until the deadline, if that is not within a 16th of what the system was told before:
/// each telling is a call of the system, and almost no request needs a second one.
///
/// # Errors
/// Nothing is left.
fn untold(told: Duration, deadline: Instant) -> io::Result<Option<Duration>> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let is_told = told <= left + left / 16 && told >= left - left / 16;
    Ok((!is_told).then_some(left))
}

/// A connection that was used later than this ago is not looked at first: it saves calls of the system.
pub(super) const IDLE_MIN: Duration = Duration::from_secs(1);
/// What an address has at least, though nothing may be left: no time at all would be no attempt.
const CONNECT_MIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_name_is_reached_by_whichever_of_its_addresses_answers() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = gone.local_addr().unwrap();
        drop(gone);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let deadline = || Instant::now() + Duration::from_secs(5);
        for addresses in [
            &[closed, open][..],
            &[open, closed],
            &[closed, closed, open],
        ] {
            let opened = Open::to_any(addresses, deadline()).unwrap();
            assert_eq!(opened.stream.peer_addr().unwrap(), open);
        }
        let refused = Open::to_any(&[closed, closed], deadline()).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::NotConnected);
        assert!(Open::to_any(&[], deadline()).is_err());
    }

    /// Each write goes through, for as long as somebody is patient.
    #[test]
    fn a_node_that_takes_little_at_a_time_holds_nobody_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let taking = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut bytes, mut sum) = (vec![0; 64 << 10], 0);
            while let Ok(read @ 1..) = stream.read(&mut bytes) {
                sum += read;
                std::thread::sleep(Duration::from_millis(20));
            }
            sum
        });
        let began = Instant::now();
        let deadline = began + Duration::from_millis(500);
        let mut open = Open::to_any(&[address], deadline).unwrap();
        // Twenty seconds' worth.
        let refused = open.write(&vec![0; 64 << 20], deadline).unwrap_err();
        let kinds = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
        assert!(kinds.contains(&refused.kind()), "{refused}");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
        // Nobody waits for the rest.
        open.stream.shutdown(std::net::Shutdown::Both).unwrap();
        assert!(taking.join().unwrap() > 0, "something was taken");
    }
}
