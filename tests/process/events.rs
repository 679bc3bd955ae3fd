//! Server-sent events, read by hand as they arrive.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::http::{PATIENCE, Request};

/// An answer in events. Dropping it closes the connection.
pub(crate) struct Events {
    stream: BufReader<TcpStream>,
    headers: Vec<(String, String)>,
    /// What has arrived and is no whole event yet.
    text: Vec<u8>,
}

/// A request that asks for events.
pub(crate) fn asking(path: &str, body: &Value) -> Request {
    Request::post(path, body.to_string()).header("Accept", "text/event-stream")
}

impl Events {
    /// Sends a request that must be answered in events, and reads up to the first.
    pub(crate) fn open(address: SocketAddr, request: &Request) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the node answers");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let mut events = Self {
            stream: BufReader::new(stream),
            headers: Vec::new(),
            text: Vec::new(),
        };
        let sent = events.stream.get_mut().write_all(&request.bytes());
        sent.expect("the request is taken");
        let status = events.line();
        while let Some((name, value)) = events.line().split_once(": ") {
            let header = (name.to_ascii_lowercase(), value.to_owned());
            events.headers.push(header);
        }
        assert!(status.contains(" 200 "), "{status} {:?}", events.headers);
        assert_eq!(events.header("content-type"), Some("text/event-stream"));
        assert_eq!(events.header("transfer-encoding"), Some("chunked"));
        events
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The next event: its name, empty for a part, and its data. `None` at the end of the body.
    pub(crate) fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.text.windows(2).position(|two| two == b"\n\n") {
                let rest = self.text.split_off(end + 2);
                let event = std::mem::replace(&mut self.text, rest);
                return Some(read(&event));
            }
            let length = usize::from_str_radix(&self.line(), 16).expect("the length of a chunk");
            let mut chunk = vec![0; length + 2];
            let whole = self.stream.read_exact(&mut chunk);
            whole.expect("a chunk is as long as it says");
            if length == 0 {
                assert_eq!(self.text, b"", "an event was cut off");
                return None;
            }
            self.text.extend_from_slice(&chunk[..length]);
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }
}

fn read(event: &[u8]) -> (String, Value) {
    let text = std::str::from_utf8(event).expect("events are text");
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let data = field("data: ").expect("every event has data");
    let data = serde_json::from_str(data).expect("data are JSON");
    (field("event: ").unwrap_or_default().to_owned(), data)
}
