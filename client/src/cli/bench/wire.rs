//! One inference over an open HTTP/1.1 connection, with as little of our own work as possible.

mod head;
mod open;

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use paceline_protocol::operator::ErrorBody;

use super::interval::Kind;
use crate::api::NodeAddress;
use crate::cli::infer::Body;
use head::{HEAD_BYTES_MAX, Head, malformed, parse};
use open::Open;

/// What is sent again and again, and where to. The one place that knows how a request is written
/// and an answer read: whoever makes load sees [`Line::ask`].
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    nodes: Vec<NodeAddress>,
    bodies: Vec<Body>,
    /// What stands before the bodies, for each node one of each body.
    heads: Vec<Vec<u8>>,
    limit: Duration,
    /// The outputs that every answer to each body shall have, as they are written; none if any will
    /// do.
    expected: Vec<Vec<u8>>,
}

/// Whom to ask what.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// At least one.
    pub(super) nodes: Vec<NodeAddress>,
    pub(super) api_key: Option<String>,
    pub(super) path: String,
    /// At least one.
    pub(super) bodies: Vec<Body>,
    /// For one request, connecting included.
    pub(super) limit: Duration,
}

/// A connection that is opened when it is needed, to one node after the other.
pub(super) struct Line<'a> {
    exchange: &'a Exchange,
    /// Which node is next, and which was asked last.
    at: usize,
    asked: usize,
    open: Option<Open>,
    buffer: Vec<u8>,
    /// Where in the buffer the last answer's body is.
    answer: Range<usize>,
    /// Head and body together, as far as they fit.
    out: Vec<u8>,
}

/// A request without the answer that was wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Miss {
    pub(super) kind: Kind,
    /// The code to count it under.
    pub(super) code: String,
    /// Whether the same may succeed when it is sent again.
    pub(super) may_repeat: bool,
}

impl Exchange {
    pub(super) fn new(question: Question) -> Self {
        let nodes = question.nodes.iter();
        let heads = nodes.flat_map(|node| {
            let bodies = question.bodies.iter();
            bodies.map(|body| question.head(node, body))
        });
        Self {
            heads: heads.collect(),
            nodes: question.nodes,
            bodies: question.bodies,
            limit: question.limit,
            expected: Vec::new(),
        }
    }

    /// Asks once for each body, and has every answer from now on compared with these; tells which
    /// version answered.
    ///
    /// # Errors
    /// An answer is a miss.
    pub(super) fn expect_the_same(&mut self) -> Result<Option<String>, Miss> {
        let mut line = Line::new(self, 0);
        let mut expected = Vec::new();
        for body in 0..self.bodies.len() {
            line.ask(body)?;
            expected.push(outputs(line.answer()).to_vec());
        }
        let version = line.version();
        self.expected = expected;
        Ok(version)
    }

    /// Has no answer compared any more.
    pub(super) fn expect_anything(&mut self) {
        self.expected.clear();
    }

    fn head(&self, node: usize, body: usize) -> &[u8] {
        &self.heads[node * self.bodies.len() + body]
    }
}

impl Question {
    fn head(&self, node: &NodeAddress, body: &Body) -> Vec<u8> {
        let mut head = format!("POST {} HTTP/1.1\r\nHost: {node}\r\n", self.path);
        match body.json_bytes {
            None => head.push_str("Content-Type: application/json\r\n"),
            Some(json_bytes) => head.push_str(&format!(
                "Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {json_bytes}\r\n"
            )),
        }
        head.push_str(&format!("Content-Length: {}\r\n", body.bytes.len()));
        if let Some(key) = &self.api_key {
            head.push_str(&format!("Authorization: Bearer {key}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
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
            answer: 0..0,
            out: Vec::new(),
        }
    }

    /// Sends a body and reads the whole answer.
    ///
    /// # Errors
    /// Why there is none. After a failure of the connection, or once the node has said that it
    /// closes it, the next request goes to the next node.
    pub(super) fn ask(&mut self, body: usize) -> Result<(), Miss> {
        self.asked = self.at;
        let head = self.exchange(body).map_err(|error| {
            self.turn();
            Miss::lost(&error)
        })?;
        if head.closes {
            self.turn();
        }
        self.answer = head.head_bytes..head.head_bytes + head.body_bytes;
        if head.status != 200 {
            return Err(Miss::said(head.status, self.answer()));
        }
        match self.exchange.expected.get(body) {
            Some(expected) if outputs(self.answer()) != expected => Err(Miss {
                kind: Kind::Wrong,
                code: "WRONG_ANSWER".to_owned(),
                may_repeat: false,
            }),
            _ => Ok(()),
        }
    }

    /// Sends the request once more, to the node after the one that was asked.
    ///
    /// # Errors
    /// As for [`Line::ask`].
    pub(super) fn ask_elsewhere(&mut self, body: usize) -> Result<(), Miss> {
        if self.at == self.asked {
            self.turn();
        }
        self.ask(body)
    }

    /// The body of the last answer.
    fn answer(&self) -> &[u8] {
        &self.buffer[self.answer.clone()]
    }

    /// The version that gave the last answer, if it says so.
    fn version(&self) -> Option<String> {
        let head = std::str::from_utf8(&self.buffer[..self.answer.start]).ok()?;
        let mut lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
        let (_, value) = lines.find(|(name, _)| name.eq_ignore_ascii_case("paceline-version"))?;
        Some(value.trim().to_owned())
    }

    /// Leaves the node: the next request goes to the next one.
    fn turn(&mut self) {
        self.open = None;
        self.at = (self.at + 1) % self.exchange.nodes.len();
    }

    fn exchange(&mut self, body: usize) -> io::Result<Head> {
        let Exchange { nodes, limit, .. } = self.exchange;
        let deadline = Instant::now() + *limit;
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.is_stale().unwrap_or(true))
        {
            self.open = None;
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(Open::to(&nodes[self.at], deadline)?),
        };
        let (head, body) = (
            self.exchange.head(self.at, body),
            &self.exchange.bodies[body].bytes,
        );
        if head.len() + body.len() <= TOGETHER_BYTES_MAX {
            // One packet, one call.
            self.out.clear();
            self.out.extend_from_slice(head);
            self.out.extend_from_slice(body);
            open.write(&self.out, deadline)?;
        } else {
            open.write(head, deadline)?;
            open.write(body, deadline)?;
        }
        let mut filled = 0;
        let mut head = None;
        loop {
            let read = open.read(&mut self.buffer[filled..], deadline)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if head.is_none() {
                head = parse(&self.buffer[..filled])?;
            }
            let wanted = head.map_or(HEAD_BYTES_MAX, |head| head.head_bytes + head.body_bytes);
            match head {
                Some(head) if filled == wanted => {
                    open.used = Instant::now();
                    return Ok(head);
                }
                Some(_) if filled > wanted => return Err(malformed("more than was asked for")),
                None if filled >= wanted => return Err(malformed("a head without an end")),
                _ if self.buffer.len() < wanted => self.buffer.resize(wanted, 0),
                _ => {}
            }
        }
    }
}

impl Miss {
    /// No whole answer came.
    fn lost(error: &io::Error) -> Self {
        let code = code_of(error);
        let is_late = code == NO_ANSWER_IN_TIME;
        Self {
            kind: if is_late { Kind::Expired } else { Kind::Lost },
            code: code.to_owned(),
            // What has no answer in time had its time; what is no HTTP stays so.
            may_repeat: matches!(code, NO_CONNECTION | CONNECTION_LOST),
        }
    }

    /// The node answered with another status than 200.
    fn said(status: u16, body: &[u8]) -> Self {
        let code = serde_json::from_slice(body).map_or(String::new(), |body: ErrorBody| body.code);
        Self {
            kind: match status {
                400..=499 | 503 => Kind::Refused,
                504 => Kind::Expired,
                _ => Kind::Failed,
            },
            // The node cannot, and another one may. More load does not help one with too much.
            may_repeat: status == 503,
            code: match code.is_empty() {
                true => format!("HTTP_{status}"),
                false => code,
            },
        }
    }
}

/// The part of an answer that does not name the request or the version, from the outputs on.
fn outputs(answer: &[u8]) -> &[u8] {
    let key = b"\"outputs\"";
    let at = answer.windows(key.len()).position(|bytes| bytes == key);
    &answer[at.unwrap_or(0)..]
}

fn code_of(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotConnected => NO_CONNECTION,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => NO_ANSWER_IN_TIME,
        io::ErrorKind::InvalidData => "NO_HTTP",
        _ => CONNECTION_LOST,
    }
}

const NO_CONNECTION: &str = "NO_CONNECTION";
const CONNECTION_LOST: &str = "CONNECTION_LOST";
const NO_ANSWER_IN_TIME: &str = "NO_ANSWER_IN_TIME";
/// What is copied into one packet's worth of bytes rather than written in two calls.
const TOGETHER_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::open::IDLE_MIN;
    use super::*;

    #[test]
    fn statuses_have_kinds_and_codes_of_the_node_go_first() {
        let body = br#"{"error":"too much","code":"OVERLOADED"}"#;
        for (status, kind, code, may_repeat) in [
            (429, Kind::Refused, "OVERLOADED", false),
            (503, Kind::Refused, "OVERLOADED", true),
            (504, Kind::Expired, "OVERLOADED", false),
            (500, Kind::Failed, "OVERLOADED", false),
        ] {
            let code = code.to_owned();
            let wanted = Miss {
                kind,
                code,
                may_repeat,
            };
            assert_eq!(Miss::said(status, body), wanted);
        }
        assert_eq!(Miss::said(404, b"<html>").code, "HTTP_404");
        let late = Miss::lost(&io::ErrorKind::WouldBlock.into());
        assert_eq!((late.kind, late.may_repeat), (Kind::Expired, false));
        let lost = Miss::lost(&io::ErrorKind::UnexpectedEof.into());
        assert_eq!((lost.kind, lost.may_repeat), (Kind::Lost, true));
    }

    /// A node may close what nobody uses; it is opened again, and no request is lost by that.
    #[test]
    fn a_connection_that_was_closed_while_idle_is_opened_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = std::thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                assert!(stream.read(&mut [0; 1_024]).unwrap() > 0);
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                stream.write_all(answer).unwrap();
            }
        });
        let exchange = Exchange::new(Question {
            nodes: vec![address.to_string().parse().unwrap()],
            api_key: None,
            path: "/p".to_owned(),
            bodies: vec![Body {
                bytes: b"{}".to_vec(),
                json_bytes: None,
            }],
            limit: Duration::from_secs(5),
        });
        let mut line = Line::new(&exchange, 0);
        assert_eq!(line.ask(0), Ok(()));
        std::thread::sleep(IDLE_MIN + Duration::from_millis(50));
        assert_eq!(line.ask(0), Ok(()));
        served.join().unwrap();
    }

    #[test]
    fn binary_tensors_say_where_they_begin() {
        let question = Question {
            nodes: vec!["127.0.0.1:1".parse().unwrap()],
            api_key: Some("pk_x".to_owned()),
            path: "/p".to_owned(),
            bodies: vec![Body {
                bytes: vec![0; 30],
                json_bytes: Some(20),
            }],
            limit: Duration::from_secs(1),
        };
        let exchange = Exchange::new(question);
        let head = std::str::from_utf8(exchange.head(0, 0)).unwrap();
        let wanted = "POST /p HTTP/1.1\r\nHost: 127.0.0.1:1\r\nContent-Type: application/octet-stream\r\n\
                      Inference-Header-Content-Length: 20\r\nContent-Length: 30\r\n\
                      Authorization: Bearer pk_x\r\n\r\n";
        assert_eq!(head, wanted);
        assert_eq!(
            outputs(br#"{"id":"7","outputs":[1]}"#),
            br#""outputs":[1]}"#
        );
    }
}
