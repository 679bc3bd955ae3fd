//! A client of gRPC that shares nothing with the node: its own messages, its own frames, HTTP/2 by
//! hand, so that it can also do what a good client does not.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use hyper::header::HeaderMap;
use hyper::{Method, Request};
use prost::Message;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
pub(crate) const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// A connection.
pub(crate) struct Client {
    pub(crate) runtime: Runtime,
    requests: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
    address: SocketAddr,
}

/// A call that was sent.
pub(crate) struct Call {
    response: ResponseFuture,
    pub(crate) sending: SendStream<Bytes>,
}

/// A call whose messages are read one by one.
pub(crate) struct Stream {
    body: RecvStream,
    pending: Vec<u8>,
}

/// A call that has ended.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) http_status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) trailers: HeaderMap,
    messages: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct InferRequest {
    #[prost(string, tag = "1")]
    pub(crate) model_name: String,
    #[prost(string, tag = "2")]
    pub(crate) model_version: String,
    #[prost(string, tag = "3")]
    pub(crate) id: String,
    #[prost(message, repeated, tag = "4")]
    pub(crate) parameters: Vec<Entry>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) inputs: Vec<Tensor>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) outputs: Vec<Wanted>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    pub(crate) raw: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct InferResponse {
    #[prost(string, tag = "1")]
    pub(crate) model_name: String,
    #[prost(string, tag = "2")]
    pub(crate) model_version: String,
    #[prost(string, tag = "3")]
    pub(crate) id: String,
    #[prost(message, repeated, tag = "4")]
    pub(crate) parameters: Vec<Entry>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) outputs: Vec<Tensor>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub(crate) raw: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Tensor {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub(crate) shape: Vec<i64>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) parameters: Vec<Entry>,
    #[prost(message, optional, tag = "5")]
    pub(crate) contents: Option<Contents>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Wanted {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) parameters: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Contents {
    #[prost(int64, repeated, tag = "3")]
    pub(crate) int64: Vec<i64>,
    #[prost(float, repeated, tag = "6")]
    pub(crate) fp32: Vec<f32>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StreamResponse {
    #[prost(string, tag = "1")]
    pub(crate) error: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) answer: Option<InferResponse>,
}

/// An entry of a map of parameters.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Entry {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Value {
    #[prost(bool, optional, tag = "1")]
    pub(crate) switch: Option<bool>,
    #[prost(int64, optional, tag = "2")]
    pub(crate) integer: Option<i64>,
    #[prost(string, optional, tag = "3")]
    pub(crate) text: Option<String>,
    #[prost(uint64, optional, tag = "5")]
    pub(crate) unsigned: Option<u64>,
}

/// A message with nothing in it, a number, or a text: as most calls have it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Simple {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
    #[prost(string, tag = "2")]
    pub(crate) second: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Number {
    #[prost(uint64, tag = "1")]
    pub(crate) value: u64,
}

impl Client {
    /// Connects.
    pub(crate) fn open(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads can be started");
        let (requests, connection) = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.expect("it listens");
            let mut builder = h2::client::Builder::new();
            builder
                .initial_window_size(16 << 20)
                .initial_connection_window_size(64 << 20);
            let (requests, connection) = builder.handshake(stream).await.expect("HTTP/2");
            (requests, tokio::spawn(connection))
        });
        Self {
            runtime,
            requests,
            connection,
            address,
        }
    }

    /// Sends the headers of a call; its messages follow.
    pub(crate) fn begin(&self, path: &str, headers: &[(&str, &str)]) -> Call {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}{path}", self.address))
            .header("te", "trailers");
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        self.runtime.block_on(async {
            let mut ready = self.requests.clone().ready().await.expect("there is room");
            let (response, sending) = ready.send_request(request, false).expect("it is sent");
            Call { response, sending }
        })
    }

    /// Sends a call with its one message.
    pub(crate) fn send(&self, path: &str, headers: &[(&str, &str)], message: &[u8]) -> Call {
        let mut call = self.begin(path, headers);
        // It may have been refused by its headers alone.
        let _refused = call.sending.send_data(frame(message), true);
        call
    }

    /// Sends a call and waits for its end.
    pub(crate) fn call(&self, path: &str, headers: &[(&str, &str)], message: &[u8]) -> Called {
        self.finish(self.send(path, headers, message))
    }

    /// Asks a model.
    pub(crate) fn infer(&self, request: &InferRequest) -> Called {
        self.call(INFER, &[], &request.encode_to_vec())
    }

    /// Waits for a call's end.
    pub(crate) fn finish(&self, call: Call) -> Called {
        self.runtime.block_on(async {
            let ended = timeout(LIMIT, call.ended());
            ended.await.expect("the call ends")
        })
    }

    /// Waits for a call's first headers.
    pub(crate) fn stream(&self, call: Call) -> Stream {
        self.answered(call.response)
    }

    /// The same for one that goes on sending.
    pub(crate) fn answered(&self, response: ResponseFuture) -> Stream {
        let response = self.runtime.block_on(response).expect("headers");
        assert!(!response.headers().contains_key("grpc-status"));
        Stream {
            body: response.into_body(),
            pending: Vec::new(),
        }
    }

    /// The next message of a stream; its status at the end.
    pub(crate) fn next<M: Message + Default>(&self, stream: &mut Stream) -> Result<M, HeaderMap> {
        let next = self.runtime.block_on(async {
            let next = timeout(LIMIT, stream.next());
            next.await.expect("something comes")
        });
        next.map(|message| M::decode(&message[..]).expect("a message"))
    }

    /// Reads the bytes that are left of a stream, and tells whether it was reset.
    pub(crate) fn drain(&self, mut stream: Stream) -> (usize, bool) {
        self.runtime.block_on(async {
            let mut bytes = 0;
            while let Some(data) = stream.body.data().await {
                let Ok(data) = data else {
                    return (bytes, true);
                };
                let _ = stream.body.flow_control().release_capacity(data.len());
                bytes += data.len();
            }
            (bytes, stream.body.trailers().await.is_err())
        })
    }

    /// Waits for the end of the connection.
    pub(crate) fn closed(self) -> Result<(), h2::Error> {
        drop(self.requests);
        let closed = self.runtime.block_on(async {
            let closed = timeout(LIMIT, self.connection);
            closed.await.expect("it ends")
        });
        closed.expect("nothing panics")
    }

    /// Whether the node takes another call on this connection.
    pub(crate) fn takes_more(&self) -> bool {
        let ready = self.requests.clone().ready();
        self.runtime.block_on(ready).is_ok()
    }
}

impl InferResponse {
    /// A parameter of the answer.
    pub(crate) fn parameter(&self, name: &str) -> Value {
        let entry = self.parameters.iter().find(|entry| entry.name == name);
        entry.and_then(|entry| entry.value.clone()).expect(name)
    }
}

impl Call {
    /// What is sent, and what will be answered.
    pub(crate) fn split(self) -> (SendStream<Bytes>, ResponseFuture) {
        (self.sending, self.response)
    }

    /// Takes the call back.
    pub(crate) fn reset(mut self) {
        self.sending.send_reset(h2::Reason::CANCEL);
    }

    async fn ended(self) -> Called {
        let response = self.response.await.expect("the node answers");
        let (parts, body) = response.into_parts();
        let mut stream = Stream {
            body,
            pending: Vec::new(),
        };
        let mut messages = Vec::new();
        let trailers = loop {
            match stream.next().await {
                Ok(message) => messages.push(message),
                Err(trailers) => break trailers,
            }
        };
        Called {
            http_status: parts.status.as_u16(),
            headers: parts.headers,
            trailers,
            messages,
        }
    }
}

impl Stream {
    async fn next(&mut self) -> Result<Vec<u8>, HeaderMap> {
        loop {
            if let Some((head, rest)) = self.pending.split_first_chunk::<5>() {
                let mut length = &head[1..];
                let length = length.get_u32() as usize;
                if rest.len() >= length {
                    assert_eq!(head[0], 0, "answers are not compressed");
                    let message = rest[..length].to_vec();
                    self.pending.drain(..5 + length);
                    return Ok(message);
                }
            }
            let Some(data) = self.body.data().await else {
                let trailers = self.body.trailers().await.expect("a whole answer");
                let trailers = trailers.unwrap_or_default();
                let is_whole = self.pending.is_empty();
                assert!(is_whole || trailers["grpc-status"] != "0", "a part");
                return Err(trailers);
            };
            let data = data.expect("a whole answer");
            let _ = self.body.flow_control().release_capacity(data.len());
            self.pending.extend_from_slice(&data);
        }
    }
}

impl Called {
    /// A header or trailer.
    pub(crate) fn said(&self, name: &str) -> &str {
        let value = self.trailers.get(name).or_else(|| self.headers.get(name));
        value.map_or("", |value| value.to_str().expect("text"))
    }

    /// The sentence of a failure, spaces as they were.
    pub(crate) fn sentence(&self) -> String {
        self.said("grpc-message").replace("%20", " ")
    }

    /// Status, by number, and the name of the code.
    pub(crate) fn ended(&self) -> (u8, &str) {
        let status = self.said("grpc-status").parse();
        (status.expect("a status"), self.said("paceline-code"))
    }

    /// Its one message; it must have succeeded.
    pub(crate) fn ok<M: Message + Default>(&self) -> M {
        assert_eq!(self.ended(), (0, ""), "{self:?}");
        assert_eq!(self.messages.len(), 1, "{self:?}");
        M::decode(&self.messages[0][..]).expect("a message")
    }
}

impl InferRequest {
    /// Rows for a model with one FP32 input of two dimensions, raw.
    pub(crate) fn of(model: &str, input: &str, values: &[Vec<f32>]) -> Self {
        let shape = [values.len(), values[0].len()].map(|dim| dim as i64);
        let bytes = values.concat().into_iter().flat_map(f32::to_le_bytes);
        Self {
            model_name: model.to_owned(),
            inputs: vec![Tensor {
                name: input.to_owned(),
                datatype: "FP32".to_owned(),
                shape: shape.into(),
                ..Tensor::default()
            }],
            raw: vec![bytes.collect()],
            ..Self::default()
        }
    }

    /// The same with its values in a typed field.
    pub(crate) fn typed(mut self) -> Self {
        let fp32 = floats(&self.raw.remove(0));
        self.inputs[0].contents = Some(Contents {
            fp32,
            ..Contents::default()
        });
        self
    }

    /// The same with a parameter.
    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        self.parameters.push(entry(name, value));
        self
    }
}

pub(crate) fn entry(name: &str, value: Value) -> Entry {
    Entry {
        name: name.to_owned(),
        value: Some(value),
    }
}

pub(crate) fn integer(value: i64) -> Value {
    Value {
        integer: Some(value),
        ..Value::default()
    }
}

pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    let chunks = bytes.as_chunks::<4>().0.iter();
    chunks.map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

/// A message behind its frame.
pub(crate) fn frame(message: &[u8]) -> Bytes {
    framed(0, message)
}

/// The same with a flag of its own.
pub(crate) fn framed(flag: u8, message: &[u8]) -> Bytes {
    let length = (message.len() as u32).to_be_bytes();
    [&[flag], &length[..], message].concat().into()
}

/// How long a call may take on a machine that is busy with others.
const LIMIT: Duration = Duration::from_secs(60);
