//! HTTP/1.1 by hand: exact bytes go out, every wait has a limit, and what is malformed can be sent.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest wait for bytes: a debug build on a busy machine answers far sooner.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One connection, kept open between requests.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path, Vec::new())
    }

    pub(crate) fn post(path: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", path, body.into())
    }

    pub(crate) fn new(method: &'static str, path: impl Into<String>, body: Vec<u8>) -> Self {
        let (path, headers) = (path.into(), Vec::new());
        Self {
            method,
            path,
            headers,
            body,
        }
    }

    /// The same with a header; Host and Content-Length replace the usual ones.
    pub(crate) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// The bytes on the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.path).into_bytes();
        let has = |name: &str| {
            self.headers
                .iter()
                .any(|(n, _)| n.eq_ignore_ascii_case(name))
        };
        let mut add = |name: &str, value: &str| {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        };
        if !has("Host") {
            add("Host", "127.0.0.1");
        }
        let is_framed = has("Content-Length") || has("Transfer-Encoding");
        if !is_framed && (!self.body.is_empty() || self.method == "POST") {
            add("Content-Length", &self.body.len().to_string());
        }
        for (name, value) in &self.headers {
            add(name, value);
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::try_open(address).expect("the node takes connections")
    }

    pub(crate) fn try_open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Sends a request and reads its answer; the connection can be used again.
    pub(crate) fn ask(&mut self, request: &Request) -> Answer {
        self.try_ask(request)
            .unwrap_or_else(|error| panic!("{} {}: {error}", request.method, request.path))
    }

    pub(crate) fn try_ask(&mut self, request: &Request) -> io::Result<Answer> {
        self.write(&request.bytes())?;
        self.read(request.method)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Another handle of its socket, for bytes that are sent while an answer is read.
    pub(crate) fn writer(&self) -> TcpStream {
        let stream = self.stream.get_ref().try_clone();
        stream.expect("a socket can be shared")
    }

    /// Reads the answer to a request with this method.
    pub(crate) fn read(&mut self, method: &str) -> io::Result<Answer> {
        let status = loop {
            let line = self.line()?;
            let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
            match status.ok_or_else(|| invalid(&line))? {
                100 => drop(self.line()?),
                status => break status,
            }
        };
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            match line.split_once(':') {
                Some((name, value)) => {
                    headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
                None if line.is_empty() => break,
                None => return Err(invalid(&line)),
            }
        }
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        if method != "HEAD" && status != 204 {
            let length = answer
                .header("content-length")
                .and_then(|text| text.parse().ok());
            answer.body = vec![0; length.ok_or_else(|| invalid("no Content-Length"))?];
            self.stream.read_exact(&mut answer.body)?;
        }
        Ok(answer)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Answer {
    /// A header's value, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The JSON of an answer that must be a success.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Code and sentence of a failure, which has both and nothing else.
    pub(crate) fn failure(&self) -> (String, String) {
        assert!(self.status >= 400, "{} is no failure", self.status);
        assert_eq!(
            self.header("content-type"),
            Some("application/json"),
            "{self:?}"
        );
        let body = self.json();
        let text = |key: &str| body[key].as_str().map(str::to_owned);
        let (Some(code), Some(error)) = (text("code"), text("error")) else {
            panic!("no code and error in {body}");
        };
        (code, error)
    }

    /// JSON and binary tensors of an answer that has such.
    pub(crate) fn parts(&self) -> (Value, &[u8]) {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(
            self.header("content-type"),
            Some("application/octet-stream")
        );
        let length = self.header("inference-header-content-length");
        let length = length
            .and_then(|text| text.parse().ok())
            .expect("a length of the JSON");
        let (json, binary) = self.body.split_at(length);
        (serde_json::from_slice(json).expect("JSON"), binary)
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
