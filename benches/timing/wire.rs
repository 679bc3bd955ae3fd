//! A connection over which requests are asked one after another, from a thread of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::ensure;

use crate::answer::{Extent, extent};

/// An open connection to a node.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            buffer: vec![0; ANSWER_BYTES_MAX],
        })
    }

    /// Sends a request and returns the body of its answer, which must be a 200.
    pub(crate) fn ask(&mut self, request: &[u8]) -> anyhow::Result<&[u8]> {
        self.stream.write_all(request)?;
        let mut filled = 0;
        loop {
            let room = &mut self.buffer[filled..];
            ensure!(!room.is_empty(), "an answer is longer than it should be");
            let read = self.stream.read(room)?;
            ensure!(read > 0, "a node closed a connection");
            filled += read;
            if let Some(Extent { head, body }) = extent(&self.buffer[..filled])?
                && filled >= head + body
            {
                return Ok(&self.buffer[head..head + body]);
            }
        }
    }
}

/// One connection, one request, and the answer's body.
pub(crate) fn ask_once(address: SocketAddr, request: &[u8]) -> anyhow::Result<Vec<u8>> {
    Ok(Connection::open(address)?.ask(request)?.to_vec())
}

/// A list of models with their replicas fits.
const ANSWER_BYTES_MAX: usize = 256 << 10;
const PATIENCE: Duration = Duration::from_secs(30);
