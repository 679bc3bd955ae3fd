//! Clients that flood: frames of HTTP/2 and chunks of HTTP/1.1, written by hand.
//!
//! Each flood ends its own connection or its own request, and the node answers others meanwhile.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::cluster::ROW;
use crate::http::{Connection, PATIENCE, Request};
use crate::node::{Node, directory};

const PATH: &str = "/v2/models/machine-failure/infer";
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const LIVE: &str = "/inference.GRPCInferenceService/ServerLive";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Kinds of frames (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// Flags.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Errors.
const ENHANCE_YOUR_CALM: u32 = 11;

/// A connection over HTTP/2 by hand.
pub(crate) struct Frames {
    pub(crate) stream: TcpStream,
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("it is short");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The header of a request, as literals of the static table (RFC 7541, appendix A).
pub(crate) fn header(path: &str) -> Vec<u8> {
    // :method POST, :scheme http, then :authority and :path with their values.
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(0x01, "127.0.0.1"), (0x04, path)] {
        block.extend([name, u8::try_from(value.len()).expect("it is short")]);
        block.extend(value.as_bytes());
    }
    block
}

/// The header of a call, with more of them as literals with names of their own.
fn call(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = header(path);
    let kind = ("content-type", "application/grpc");
    for (name, value) in [kind, ("te", "trailers")].iter().chain(more) {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("it is short"));
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A stream that is opened with this header and taken back at once.
fn taken_back(stream: u32, header: &[u8]) -> Vec<u8> {
    let open = frame(HEADERS, END_HEADERS, stream, header);
    let reset = frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
    [open, reset].concat()
}

impl Frames {
    fn open(node: &Node) -> Self {
        Self::to(node.http)
    }

    pub(crate) fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the node listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream.set_write_timeout(Some(PATIENCE)).expect("a limit");
        stream.set_nodelay(true).expect("a socket has it");
        let mut frames = Self { stream };
        let settings = frame(SETTINGS, 0, 0, &[]);
        let greeting = [PREFACE, &settings].concat();
        frames.send(&greeting).expect("it is taken");
        frames
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends what `next` makes until the connection ends, or so many times, from a thread; reads
    /// what the node says, and returns its last GOAWAY.
    fn flood(mut self, times: u32, next: impl Fn(u32) -> Vec<u8> + Sync) -> Option<u32> {
        let mut writer = self.stream.try_clone().expect("a socket can be shared");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..times {
                    if writer.write_all(&next(number)).is_err() {
                        return;
                    }
                }
            });
            self.goaway()
        })
    }

    /// Reads to the end, and returns the error of the last GOAWAY.
    pub(crate) fn goaway(&mut self) -> Option<u32> {
        let since = Instant::now();
        let mut error = None;
        while let Ok((kind, _, payload)) = self.read() {
            if kind == GOAWAY {
                let code = payload[4..8].try_into().expect("four bytes");
                error = Some(u32::from_be_bytes(code));
            }
            assert!(since.elapsed() < PATIENCE, "the connection stays");
        }
        error
    }

    /// Whether this stream is reset, and the connection goes on.
    fn is_reset(&mut self, stream: u32) -> bool {
        loop {
            match self.read() {
                Ok((RST_STREAM, at, _)) if at == stream => return true,
                Ok((GOAWAY, ..)) | Err(_) => return false,
                Ok(_) => {}
            }
        }
    }

    /// Reads until the node has refused this stream or ended the connection.
    fn until_refused(&mut self, stream: u32) {
        loop {
            match self.read() {
                Ok((HEADERS | RST_STREAM, at, _)) if at == stream => return,
                Ok((GOAWAY, ..)) => return,
                Ok(_) => {}
                Err(error) => {
                    assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "nothing is said");
                    return;
                }
            }
        }
    }

    /// Whether a call on this stream is answered, and the connection goes on.
    fn lives(&mut self, stream: u32) -> bool {
        let asked = [
            frame(HEADERS, END_HEADERS, stream, &call(LIVE, &[])),
            frame(DATA, END_STREAM, stream, &[0; 5]),
        ];
        if self.send(&asked.concat()).is_err() {
            return false;
        }
        loop {
            match self.read() {
                Ok((HEADERS, at, _)) if at == stream => return true,
                Ok((GOAWAY, ..)) => return false,
                Ok(_) => {}
                Err(error) => {
                    assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "nothing is said");
                    return false;
                }
            }
        }
    }

    pub(crate) fn read(&mut self) -> io::Result<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload)?;
        Ok((head[3], stream, payload))
    }
}

/// Whether others are answered.
fn answers(node: &Node) {
    let since = Instant::now();
    assert_eq!(node.post(PATH, ROW).status, 200);
    let took = since.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn streams_that_are_reset_as_fast_as_they_open_end_their_connection() {
    let node = Node::shared();
    // In one burst, which HTTP/2 itself notices.
    let pair = |number: u32| taken_back(2 * number + 1, &header(PATH));
    let burst = |number: u32| (0..100).flat_map(|at| pair(100 * number + at)).collect();
    let error = Frames::open(node).flood(1_000, burst);
    assert_eq!(error, Some(ENHANCE_YOUR_CALM));
    answers(node);
    // One after another, each answered by nothing but a reset.
    let began = Instant::now();
    let paced = |number: u32| {
        std::thread::sleep(Duration::from_micros(50));
        pair(number)
    };
    let _ = Frames::open(node).flood(1_000_000, paced);
    assert!(began.elapsed() < PATIENCE, "it was ended");
    answers(node);
}

/// A client of gRPC has one connection for all that it does: what would be a flood of another may be
/// its deadlines.
#[test]
fn a_client_of_grpc_may_give_up_more_at_once_and_err_more_often() {
    let node = Node::shared();
    // Three hundred in one burst.
    let burst = |header: &[u8]| -> Vec<u8> {
        (0..300)
            .flat_map(|at| taken_back(2 * at + 1, header))
            .collect()
    };
    let mut calls = Frames::to(node.grpc);
    calls.send(&burst(&call(INFER, &[]))).expect("it is taken");
    assert!(calls.lives(1_001));
    let mut requests = Frames::open(node);
    let _ = requests.send(&burst(&header(PATH)));
    assert_eq!(requests.goaway(), Some(ENHANCE_YOUR_CALM));
    // As many streams whose window is given more than a window holds (RFC 9113, section 6.9.1).
    let too_much = 0x7fff_ffff_u32.to_be_bytes();
    let err = |frames: &mut Frames, header: &[u8]| {
        (0..300).all(|at| {
            let stream = 2 * at + 1;
            let open = frame(HEADERS, END_HEADERS, stream, header);
            let overflow = frame(WINDOW_UPDATE, 0, stream, &too_much);
            let sent = frames.send(&[open, overflow].concat());
            sent.is_ok() && frames.is_reset(stream)
        })
    };
    let mut calls = Frames::to(node.grpc);
    assert!(err(&mut calls, &call(INFER, &[])) && calls.lives(1_001));
    let mut requests = Frames::open(node);
    assert!(!err(&mut requests, &header(PATH)), "it is told to be calm");
    answers(node);
}

/// Calls that are taken back when their own time has come are no flood, however many.
#[test]
fn calls_that_end_with_their_own_deadline_are_given_up_by_nobody() {
    // Of its own: a flood of another test beside it takes what this one needs.
    let home = directory();
    let node = Node::demo(home.path());
    // As many rounds of a thousand calls as there are, or until the connection ends.
    let rounds = |header: &[u8], most: u32| {
        let mut frames = Frames::to(node.grpc);
        let lives = |round: &u32| {
            let first = round * 2_002 + 1;
            let calls = (0..1_000).flat_map(|at| taken_back(first + 2 * at, header));
            let calls: Vec<u8> = calls.collect();
            frames.send(&calls).is_ok() && frames.lives(first + 2_000)
        };
        (0..most).take_while(lives).count() as u32
    };
    // Those without a deadline are given up by their client.
    let flood = rounds(&call(INFER, &[]), 60);
    assert!(flood < 60, "60,000 calls that were given up are no flood");
    // With what a clock may be late by, this deadline has come.
    let due = call(INFER, &[("grpc-timeout", "40m")]);
    let most = 2 * flood + 4;
    assert_eq!(rounds(&due, most), most);
}

#[test]
fn headers_that_never_end_and_frames_that_hold_nothing_are_refused() {
    let node = Node::shared();
    let begun = frame(HEADERS, 0, 1, &header(PATH));
    let more = frame(CONTINUATION, 0, 1, &[]);
    let flood = |number: u32| {
        if number == 0 {
            begun.clone()
        } else {
            more.repeat(100)
        }
    };
    let error = Frames::open(node).flood(1_000_000, flood);
    assert!(error.is_none_or(|error| error > 0), "{error:?}");
    answers(node);

    // A header that is longer than is taken.
    let field = [&[0, 1, b'x', 0x7f, 0xe1, 0x7e][..], &[b'y'; 16_352]].concat();
    let mut many = vec![frame(HEADERS, END_STREAM, 1, &header(PATH))];
    many.extend((0..8).map(|_| frame(CONTINUATION, 0, 1, &field)));
    many.push(frame(CONTINUATION, END_HEADERS, 1, &[]));
    let mut frames = Frames::open(node);
    // Who is refused in the middle may not get all of it away.
    let _ = frames.send(&many.concat());
    frames.until_refused(1);
    answers(node);

    // A body of nothing, for ever: its stream is refused with a status.
    let mut frames = Frames::open(node);
    let begun = frame(HEADERS, END_HEADERS, 1, &header(PATH));
    frames.send(&begun).expect("it is taken");
    let nothing = frame(DATA, 0, 1, &[]).repeat(10);
    let mut writer = frames.stream.try_clone().expect("a socket can be shared");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let since = Instant::now();
            while since.elapsed() < PATIENCE && writer.write_all(&nothing).is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        frames.until_refused(1);
        let _ = frames.stream.shutdown(std::net::Shutdown::Both);
    });
    answers(node);

    // Pings are answered, and cost no memory when nobody reads the answers.
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(1_000);
    let mut frames = Frames::open(node);
    let limit = Some(Duration::from_millis(500));
    frames.stream.set_write_timeout(limit).expect("a limit");
    let stopped = (0..10_000).find(|_| frames.send(&pings).is_err());
    assert!(stopped.is_some(), "it takes no more than it can answer");
    answers(node);
}

#[test]
fn a_body_in_chunks_of_one_byte_is_read_like_any_other() {
    let node = Node::shared();
    // Three megabytes, and nine times as much in chunks: what has crashed others.
    let mut body = ROW.as_bytes().to_vec();
    body.resize(3 << 20, b' ');
    let mut chunked = Vec::with_capacity(body.len() * 6);
    for byte in body {
        chunked.extend([b'1', b'\r', b'\n', byte, b'\r', b'\n']);
    }
    chunked.extend(b"0\r\n\r\n");
    let head = Request::post(PATH, "").header("Transfer-Encoding", "chunked");
    let mut connection = Connection::open(node.http);
    connection.write(&head.bytes()).expect("it is taken");
    connection.write(&chunked).expect("it is taken");
    assert_eq!(connection.read("POST").expect("an answer").status, 200);
    // Extensions of chunks without end are not.
    let mut connection = Connection::open(node.http);
    connection.write(&head.bytes()).expect("it is taken");
    let extension = format!("1;{}", "x".repeat(1 << 20));
    let _ = connection.write(extension.as_bytes());
    let answer = connection.read("POST");
    assert!(answer.map_or(true, |answer| answer.status >= 400));
    answers(node);
}
