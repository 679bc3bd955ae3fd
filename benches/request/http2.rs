//! A connection of gRPC that is asked one call at a time: HTTP/2 by hand, as little of it as a
//! well-behaved server needs.
//!
//! Every call is a stream. Its headers are the same bytes each time, none of them remembered by
//! either side (RFC 7541, section 6.2.2), so that only the stream's number changes.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::Ask;

/// A call, rendered beforehand.
#[derive(Clone)]
pub(crate) struct Call {
    /// Its header block.
    headers: Bytes,
    /// The message behind gRPC's prefix of five bytes.
    message: Bytes,
}

/// A connection that stays open.
pub(crate) struct Http2 {
    stream: TcpStream,
    /// What was read and not yet looked at is in `unread` of it.
    buffer: Vec<u8>,
    unread: std::ops::Range<usize>,
    /// Written in one piece.
    outgoing: Vec<u8>,
    next_stream: u32,
    /// What the server takes: on the connection, on a new stream, in a frame.
    room: i64,
    stream_room: i64,
    frame_bytes_max: usize,
    /// Read since the server was last told that there is room again.
    taken: u32,
    /// Bytes that every answer has.
    body_bytes: usize,
}

/// Of one call.
struct Answer {
    stream: u32,
    /// What the server takes of it.
    room: i64,
    body_bytes: usize,
    /// Its bytes, where they are wanted.
    body: Option<Vec<u8>>,
    is_over: bool,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    /// Where its payload is in the buffer.
    payload: std::ops::Range<usize>,
}

impl Call {
    /// A call of `path` with this message.
    pub(crate) fn new(path: &str, message: &[u8]) -> Self {
        // POST and http, of the static table.
        let mut headers = vec![0x83, 0x86];
        for (name, value) in [
            // Names 4, 1 and 31 of the static table: :path, :authority, content-type.
            (&[0x04][..], path),
            (&[0x01], "127.0.0.1"),
            (&[0x0f, 31 - 15], "application/grpc"),
            (b"\x00\x02te", "trailers"),
        ] {
            headers.extend_from_slice(name);
            let length = u8::try_from(value.len()).expect("a short value");
            assert!(length < 127, "its length takes one byte");
            headers.push(length);
            headers.extend_from_slice(value.as_bytes());
        }
        let length = u32::try_from(message.len()).expect("under 4 GiB");
        let message = [&[0][..], &length.to_be_bytes(), message].concat();
        Self {
            headers: headers.into(),
            message: message.into(),
        }
    }
}

impl Ask for Http2 {
    type Request = Call;

    async fn open(address: SocketAddr, call: &Call, body: &[u8]) -> anyhow::Result<Self> {
        let mut connection = Self::connect(address).await?;
        let found = connection.whole(call).await?;
        // A map's entries may stand in any order: the values were looked at before.
        let same = found.len() == body.len();
        ensure!(same, "two answers to one call differ in length");
        connection.body_bytes = body.len();
        Ok(connection)
    }

    async fn ask(&mut self, call: &Call) -> anyhow::Result<()> {
        let (body, wanted) = (self.call(call, None).await?.body_bytes, self.body_bytes);
        ensure!(
            body == wanted,
            "an answer has {body} bytes instead of {wanted}"
        );
        Ok(())
    }
}

impl Http2 {
    async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut hello = PREFACE.to_vec();
        let mut settings = Vec::new();
        for (name, value) in [
            (INITIAL_WINDOW_SIZE, WINDOW_BYTES),
            (MAX_FRAME_SIZE, FRAME_BYTES_MAX),
        ] {
            settings.extend_from_slice(&name.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        frame(&mut hello, (SETTINGS, 0, 0), &settings);
        // The connection's window is not among the settings.
        frame(
            &mut hello,
            (WINDOW_UPDATE, 0, 0),
            &WINDOW_BYTES.to_be_bytes(),
        );
        stream.write_all(&hello).await?;
        Ok(Self {
            stream,
            buffer: vec![0; 4 * FRAME_BYTES_MAX as usize],
            unread: 0..0,
            outgoing: Vec::new(),
            next_stream: 1,
            room: 65_535,
            stream_room: 65_535,
            frame_bytes_max: 16 << 10,
            taken: 0,
            body_bytes: 0,
        })
    }

    /// The whole message that a call is answered with.
    async fn whole(&mut self, call: &Call) -> anyhow::Result<Vec<u8>> {
        let answer = self.call(call, Some(Vec::new())).await?;
        Ok(answer.body.unwrap_or_default())
    }

    async fn call(&mut self, call: &Call, body: Option<Vec<u8>>) -> anyhow::Result<Answer> {
        let mut answer = Answer {
            stream: self.next_stream,
            room: self.stream_room,
            body_bytes: 0,
            body,
            is_over: false,
        };
        self.next_stream += 2;
        let head = (HEADERS, END_HEADERS, answer.stream);
        frame(&mut self.outgoing, head, &call.headers);
        let mut left = &call.message[..];
        while !left.is_empty() {
            let room = usize::try_from(self.room.min(answer.room)).unwrap_or(0);
            let (now, later) = left.split_at(left.len().min(room).min(self.frame_bytes_max));
            if now.is_empty() {
                self.flush().await?;
                self.read(&mut answer).await?;
                ensure!(!answer.is_over, "answered before the whole call was sent");
                continue;
            }
            let flags = if later.is_empty() { END_STREAM } else { 0 };
            frame(&mut self.outgoing, (DATA, flags, answer.stream), now);
            self.room -= now.len() as i64;
            answer.room -= now.len() as i64;
            left = later;
            if self.outgoing.len() >= WRITE_BYTES {
                self.flush().await?;
            }
        }
        self.flush().await?;
        while !answer.is_over {
            self.read(&mut answer).await?;
        }
        Ok(answer)
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        if !self.outgoing.is_empty() {
            self.stream.write_all(&self.outgoing).await?;
            self.outgoing.clear();
        }
        Ok(())
    }

    /// Reads once, and takes in every frame that is whole.
    async fn read(&mut self, answer: &mut Answer) -> anyhow::Result<()> {
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        let read = self
            .stream
            .read(&mut self.buffer[self.unread.end..])
            .await?;
        ensure!(read > 0, "the server closed a connection");
        self.unread.end += read;
        while let Some(frame) = self.next_frame()? {
            self.take(&frame, answer)?;
        }
        self.flush().await
    }

    fn next_frame(&mut self) -> anyhow::Result<Option<Frame>> {
        let unread = &self.buffer[self.unread.clone()];
        let Some((head, rest)) = unread.split_first_chunk::<9>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let agreed = FRAME_BYTES_MAX as usize;
        ensure!(length <= agreed, "a frame is longer than was agreed");
        if rest.len() < length {
            return Ok(None);
        }
        let start = self.unread.start + head.len();
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload: start..start + length,
        };
        self.unread.start = frame.payload.end;
        Ok(Some(frame))
    }

    fn take(&mut self, frame: &Frame, answer: &mut Answer) -> anyhow::Result<()> {
        let payload = &self.buffer[frame.payload.clone()];
        match frame.kind {
            DATA => {
                answer.body_bytes += payload.len();
                if let Some(body) = &mut answer.body {
                    body.extend_from_slice(payload);
                }
                self.taken += payload.len() as u32;
                if self.taken > WINDOW_BYTES / 2 {
                    let taken = std::mem::take(&mut self.taken).to_be_bytes();
                    self::frame(&mut self.outgoing, (WINDOW_UPDATE, 0, 0), &taken);
                }
            }
            SETTINGS if frame.flags & ACK == 0 => {
                for setting in payload.as_chunks::<6>().0 {
                    let value =
                        u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
                    match u16::from_be_bytes([setting[0], setting[1]]) {
                        INITIAL_WINDOW_SIZE => {
                            answer.room += i64::from(value) - self.stream_room;
                            self.stream_room = value.into();
                        }
                        MAX_FRAME_SIZE => self.frame_bytes_max = (value as usize).min(WRITE_BYTES),
                        _ => {}
                    }
                }
                self::frame(&mut self.outgoing, (SETTINGS, ACK, 0), &[]);
            }
            PING if frame.flags & ACK == 0 => {
                let payload = payload.to_vec();
                self::frame(&mut self.outgoing, (PING, ACK, 0), &payload);
            }
            WINDOW_UPDATE => {
                let more = payload
                    .first_chunk()
                    .context("a window update of no bytes")?;
                let more = i64::from(u32::from_be_bytes(*more));
                match frame.stream {
                    0 => self.room += more,
                    stream if stream == answer.stream => answer.room += more,
                    _ => {}
                }
            }
            RST_STREAM => bail!("the server reset a call: {payload:?}"),
            GOAWAY => bail!(
                "the server says goodbye: {}",
                String::from_utf8_lossy(payload)
            ),
            _ => {}
        }
        let ends = matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
        answer.is_over |= ends && frame.stream == answer.stream;
        Ok(())
    }
}

/// One connection to `address`, one call, and the message that it is answered with.
pub(crate) fn call_once(address: SocketAddr, call: &Call) -> anyhow::Result<Vec<u8>> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build()?.block_on(async {
        let asked = async { Http2::connect(address).await?.whole(call).await };
        let asked = tokio::time::timeout(PATIENCE, asked).await;
        let framed = asked.context("a call was not answered")??;
        ensure!(framed.len() >= 5, "a call was answered without a message");
        Ok(framed)
    })
}

/// Writes a frame of this kind, with these flags, on this stream.
fn frame(out: &mut Vec<u8>, (kind, flags, stream): (u8, u8, u32), payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a frame is short");
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
/// No answer waits for this client to make room.
const WINDOW_BYTES: u32 = 1 << 30;
/// What is taken in one frame. gRPC's own clients ask for more than the 16 KiB that there must be,
/// too, as soon as a connection brings much.
const FRAME_BYTES_MAX: u32 = 64 << 10;
/// Written at a time.
const WRITE_BYTES: usize = 256 << 10;
/// How long one answer may take while nothing is measured.
const PATIENCE: Duration = Duration::from_secs(10);
