//! A client over HTTP/1.1 on a connection in memory: one request a connection.

use std::io;

use paceline_node::gateway::{Door, MemoryFront};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What a door answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The header's lines, in lower case.
    header: String,
    pub(crate) body: Vec<u8>,
}

/// Asks, and waits for the whole answer.
pub(crate) async fn ask(
    front: &MemoryFront,
    method: &str,
    path: &str,
    body: &[u8],
) -> io::Result<Answer> {
    let mut stream = front.connect(Door::Http)?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    Answer::parse(&bytes).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

impl Answer {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let header = std::str::from_utf8(&bytes[..end]).ok()?.to_lowercase();
        let status = header.split(' ').nth(1)?.parse().ok()?;
        let mut answer = Self {
            status,
            header,
            body: bytes[end + 4..].to_vec(),
        };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = unchunked(&answer.body)?;
        }
        let whole = answer.header("content-length").is_none_or(|length| {
            let length: Result<usize, _> = length.parse();
            length == Ok(answer.body.len())
        });
        whole.then_some(answer)
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.header.split("\r\n");
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The body as JSON; `null` if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The stable name of the failure, or `OK`.
    pub(crate) fn code(&self) -> String {
        if self.status / 100 == 2 {
            return "OK".to_owned();
        }
        let json = self.json();
        json["code"].as_str().unwrap_or("NO_CODE").to_owned()
    }
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        let chunk = rest.get(end + 2..end + 2 + size)?;
        if size == 0 {
            return Some(body);
        }
        body.extend(chunk);
        rest = rest.get(end + 2 + size + 2..)?;
    }
}

#[test]
fn an_answer_is_read_whole_or_not_at_all() {
    let plain = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nX-Y: Z\r\n\r\n{}";
    let answer = Answer::parse(plain).expect("it is whole");
    assert_eq!((answer.status, answer.header("x-y")), (200, Some("z")));
    assert_eq!(Answer::parse(&plain[..plain.len() - 1]), None);
    let chunked =
        b"HTTP/1.1 500 E\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n";
    let answer = Answer::parse(chunked).expect("it is whole");
    assert_eq!(
        (&answer.body[..], answer.code().as_str()),
        (&b"{}"[..], "NO_CODE")
    );
    assert_eq!(Answer::parse(&chunked[..chunked.len() - 8]), None);
}
