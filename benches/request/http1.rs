//! A connection over HTTP/1.1 that is asked one request at a time.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::answer::{Extent, extent};
use crate::load::Ask;

/// A connection that stays open.
pub(crate) struct Http1 {
    stream: TcpStream,
    /// Room for one answer.
    buffer: Vec<u8>,
    /// Bytes that every answer's body has.
    body_bytes: usize,
}

impl Ask for Http1 {
    /// Head and body in one piece.
    type Request = Bytes;

    async fn open(address: SocketAddr, request: &Bytes, body: &[u8]) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream,
            buffer: vec![0; body.len() + HEAD_BYTES_MAX],
            body_bytes: body.len(),
        };
        let Extent { head, .. } = connection.answer(request).await?;
        let found = &connection.buffer[head..head + body.len()];
        ensure!(found == body, "two answers to one request differ");
        Ok(connection)
    }

    async fn ask(&mut self, request: &Bytes) -> anyhow::Result<()> {
        self.answer(request).await.map(drop)
    }
}

impl Http1 {
    /// Sends a request and reads its answer into the buffer.
    async fn answer(&mut self, request: &[u8]) -> anyhow::Result<Extent> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let mut found = None;
        loop {
            let room = &mut self.buffer[filled..];
            ensure!(!room.is_empty(), "an answer is longer than it should be");
            let read = self.stream.read(room).await?;
            ensure!(read > 0, "the server closed a connection");
            filled += read;
            if found.is_none() {
                found = extent(&self.buffer[..filled])?;
            }
            if let Some(extent) = found {
                let (body, wanted) = (extent.body, self.body_bytes);
                ensure!(
                    body == wanted,
                    "an answer has {body} bytes instead of {wanted}"
                );
                ensure!(
                    filled <= extent.head + body,
                    "more was sent than was asked for"
                );
                if filled == extent.head + body {
                    return Ok(extent);
                }
            }
        }
    }
}

/// One connection to `address`, one request, and the answer's body.
pub(crate) fn ask_once(address: SocketAddr, request: &[u8]) -> anyhow::Result<Vec<u8>> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = stream.read(&mut piece)?;
        ensure!(
            read > 0,
            "the server closed the connection without an answer"
        );
        bytes.extend_from_slice(&piece[..read]);
        if let Some(Extent { head, body }) = extent(&bytes)?
            && bytes.len() >= head + body
        {
            return Ok(bytes.split_off(head));
        }
    }
}

/// More than any server here writes in front of a body.
const HEAD_BYTES_MAX: usize = 4 << 10;
/// How long one answer may take while nothing is measured.
const PATIENCE: Duration = Duration::from_secs(10);
