//! One inference over an open HTTP/1.1 connection, with as little of our own work as possible.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use paceline_protocol::limits::BODY_BYTES_MAX;
use paceline_protocol::operator::ErrorBody;

use crate::api::NodeAddress;

/// What is sent again and again, and where to.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    /// At least one.
    pub(super) nodes: Vec<NodeAddress>,
    pub(super) api_key: Option<String>,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
    /// For one request, connecting included.
    pub(super) limit: Duration,
}

/// A connection that is opened when it is needed, to one node after the other.
pub(super) struct Line<'a> {
    exchange: &'a Exchange,
    /// Which node is next, and which was asked last.
    at: usize,
    asked: usize,
    open: Option<(TcpStream, Vec<u8>)>,
    buffer: Vec<u8>,
}

/// A request without the answer that was wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Miss {
    /// The code to count it under.
    pub(super) code: String,
    /// Whether the same may succeed when it is sent again.
    pub(super) may_repeat: bool,
}

/// The beginning of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Bytes up to the body.
    head_bytes: usize,
    body_bytes: usize,
    closes: bool,
}

impl Exchange {
    fn request(&self, node: &NodeAddress) -> Vec<u8> {
        let mut head = format!(
            "POST {} HTTP/1.1\r\nHost: {node}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
            self.path,
            self.body.len()
        );
        if let Some(key) = &self.api_key {
            head.push_str(&format!("Authorization: Bearer {key}\r\n"));
        }
        head.push_str("\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}

impl<'a> Line<'a> {
    /// The `number`-th of several lines: they begin at different nodes.
    pub(super) fn new(exchange: &'a Exchange, number: usize) -> Self {
        Self {
            exchange,
            at: number % exchange.nodes.len(),
            asked: 0,
            open: None,
            buffer: vec![0; 16 << 10],
        }
    }

    /// Sends the request and reads the whole answer.
    ///
    /// # Errors
    /// Why there is none. After a failure of the connection, or once the node has said that it
    /// closes it, the next request goes to the next node.
    pub(super) fn ask(&mut self) -> Result<(), Miss> {
        self.asked = self.at;
        let head = self.exchange().map_err(|error| {
            self.turn();
            Miss {
                code: code_of(&error).to_owned(),
                // What has no answer in time had its time; what is no HTTP stays so.
                may_repeat: matches!(code_of(&error), NO_CONNECTION | CONNECTION_LOST),
            }
        })?;
        if head.closes {
            self.turn();
        }
        if head.status == 200 {
            return Ok(());
        }
        let body = &self.buffer[head.head_bytes..head.head_bytes + head.body_bytes];
        let code = serde_json::from_slice(body).map_or(String::new(), |body: ErrorBody| body.code);
        Err(Miss {
            // The node cannot, and another one may. More load does not help one with too much.
            may_repeat: head.status == 503,
            code: match code.is_empty() {
                true => format!("HTTP_{}", head.status),
                false => code,
            },
        })
    }

    /// Sends the request once more, to the node after the one that was asked.
    ///
    /// # Errors
    /// As for [`Line::ask`].
    pub(super) fn ask_elsewhere(&mut self) -> Result<(), Miss> {
        if self.at == self.asked {
            self.turn();
        }
        self.ask()
    }

    /// Leaves the node: the next request goes to the next one.
    fn turn(&mut self) {
        self.open = None;
        self.at = (self.at + 1) % self.exchange.nodes.len();
    }

    fn exchange(&mut self) -> io::Result<Head> {
        let deadline = Instant::now() + self.exchange.limit;
        if self.open.is_none() {
            let node = &self.exchange.nodes[self.at];
            let stream = connect(node, self.exchange.limit)?;
            self.open = Some((stream, self.exchange.request(node)));
        }
        let (stream, request) = self.open.as_mut().expect("it was opened above");
        stream.write_all(request)?;
        let mut filled = 0;
        let mut head = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            let read = stream.read(&mut self.buffer[filled..])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if head.is_none() {
                head = parse(&self.buffer[..filled])?;
            }
            let wanted = head.map_or(HEAD_BYTES_MAX, |head| head.head_bytes + head.body_bytes);
            match head {
                Some(head) if filled == wanted => return Ok(head),
                Some(_) if filled > wanted => return Err(malformed("more than was asked for")),
                None if filled >= wanted => return Err(malformed("a head without an end")),
                _ if self.buffer.len() < wanted => self.buffer.resize(wanted, 0),
                _ => {}
            }
        }
    }
}

fn connect(node: &NodeAddress, limit: Duration) -> io::Result<TcpStream> {
    let unreachable = |_| io::Error::from(io::ErrorKind::NotConnected);
    let mut addresses = node.to_string().to_socket_addrs().map_err(unreachable)?;
    let address = addresses.next().ok_or(io::ErrorKind::NotConnected)?;
    let stream = TcpStream::connect_timeout(&address, limit).map_err(unreachable)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

/// The head, once it is whole (RFC 9112). Bodies have a `Content-Length`: a node's always do.
fn parse(bytes: &[u8]) -> io::Result<Option<Head>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| malformed("a head of bytes"))?;
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok())
        .ok_or_else(|| malformed("no status"))?;
    let (mut body_bytes, mut closes) = (None, false);
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            body_bytes = value.parse().ok().filter(|bytes| *bytes <= BODY_BYTES_MAX);
        } else if name.eq_ignore_ascii_case("connection") {
            closes = value.eq_ignore_ascii_case("close");
        }
    }
    let body_bytes = body_bytes.ok_or_else(|| malformed("no length"))?;
    Ok(Some(Head {
        status,
        head_bytes: end + 4,
        body_bytes,
        closes,
    }))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn code_of(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotConnected => NO_CONNECTION,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "NO_ANSWER_IN_TIME",
        io::ErrorKind::InvalidData => "NO_HTTP",
        _ => CONNECTION_LOST,
    }
}

const NO_CONNECTION: &str = "NO_CONNECTION";
const CONNECTION_LOST: &str = "CONNECTION_LOST";
/// More than any node writes in front of a body.
const HEAD_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_whole_and_refused_when_it_lies() {
        let text = b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\nConnection: close\r\n\r\n{}";
        let head = Head {
            status: 503,
            head_bytes: text.len() - 2,
            body_bytes: 2,
            closes: true,
        };
        assert_eq!(parse(text).unwrap(), Some(head));
        for cut in 0..text.len() - 2 {
            assert_eq!(parse(&text[..cut]).unwrap(), None);
        }
        for bad in [
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 x\r\nContent-Length: 0\r\n\r\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
