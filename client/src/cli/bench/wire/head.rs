//! The beginning of an HTTP/1.1 answer, as far as somebody who makes load needs it.

use std::io;

use paceline_protocol::limits::BODY_BYTES_MAX;

/// The beginning of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    /// Bytes up to the body.
    pub(super) head_bytes: usize,
    pub(super) body_bytes: usize,
    pub(super) closes: bool,
}

/// The head, once it is whole (RFC 9112). Bodies have a `Content-Length`: a node's always do.
pub(super) fn parse(bytes: &[u8]) -> io::Result<Option<Head>> {
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

pub(super) fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// More than any node writes in front of a body.
pub(super) const HEAD_BYTES_MAX: usize = 16 << 10;

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
