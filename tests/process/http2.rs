//! HTTP/2 on the HTTP port: the same answers, many at a time, and an end that loses none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{Method, Request, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::{self, Runtime};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::cluster::ROW;
use crate::counting::{Counting, WIDE};
use crate::http::{self, PATIENCE};
use crate::node::Node;

const PATH: &str = "/v2/models/machine-failure/infer";

/// A connection over HTTP/2.
pub(crate) struct Http2 {
    pub(crate) sender: SendRequest<Full<Bytes>>,
    /// Ends when the connection does.
    pub(crate) running: JoinHandle<hyper::Result<()>>,
    address: SocketAddr,
}

/// An answer, read whole.
pub(crate) struct Answer {
    pub(crate) head: hyper::http::response::Parts,
    pub(crate) body: Bytes,
}

pub(crate) fn small_runtime() -> Runtime {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.expect("a thread can be started")
}

impl Http2 {
    /// Connects with prior knowledge.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the node listens");
        Self::over(stream, address).await
    }

    /// The same on a stream that is there.
    pub(crate) async fn over<S>(stream: S, address: SocketAddr) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let handshake = Builder::new(TokioExecutor::new())
            .initial_stream_window_size(64 << 10)
            .initial_connection_window_size(64 << 20)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.expect("the node speaks HTTP/2");
        Self {
            sender,
            running: tokio::spawn(connection),
            address,
        }
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Request<Full<Bytes>> {
        let uri = format!("http://{}{path}", self.address);
        let body = Full::new(Bytes::from(body.to_owned()));
        Request::post(uri).body(body).expect("a request")
    }

    pub(crate) async fn ask(&self, request: Request<Full<Bytes>>) -> Answer {
        let mut sender = self.sender.clone();
        let asking = async {
            sender.ready().await?;
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, hyper::Error>(Answer { head, body })
        };
        let answer = timeout(PATIENCE, asking).await;
        answer
            .expect("it takes no longer")
            .expect("the node answers")
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

#[test]
fn many_requests_share_a_connection_and_are_answered_as_over_http_1() {
    let node = Node::shared();
    let known = node.post(PATH, ROW).ok();
    small_runtime().block_on(async {
        let client = Arc::new(Http2::connect(node.http).await);
        let asking = (0..600).map(|_| {
            let client = client.clone();
            async move { client.ask(client.post(PATH, ROW)).await }
        });
        for answer in asking.collect::<JoinSet<_>>().join_all().await {
            assert_eq!(answer.head.status, StatusCode::OK);
            assert_eq!(answer.head.version, Version::HTTP_2);
            assert_eq!(answer.json(), known);
            assert!(answer.header("paceline-epoch").is_some());
            assert_eq!(answer.header("connection"), None);
        }
        let absent = client.ask(client.post("/v2/models/nope/infer", ROW)).await;
        assert_eq!(absent.head.status, StatusCode::NOT_FOUND);
        assert_eq!(absent.json()["code"], "MODEL_NOT_FOUND");
        // A host is named by :authority, and HTTP/1.1 may name one before the path.
        let mut foreign = client.post(PATH, ROW);
        *foreign.uri_mut() = format!("http://example.com{PATH}").parse().expect("a URI");
        let refused = client.ask(foreign).await;
        assert_eq!(refused.json()["code"], "HOST_REFUSED");
        assert!(!client.running.is_finished());
    });
    let mut foreign = http::Request::get("http://example.com/v2");
    foreign = foreign.header("Host", "localhost");
    assert_eq!(node.ask(&foreign).failure().0, "HOST_REFUSED");
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let node = Node::shared();
    small_runtime().block_on(async {
        let client = Http2::connect(node.http).await;
        for path in [
            "/v2",
            "/v2/models/digits",
            "/openapi.json",
            "/v2/models/nope",
        ] {
            let [get, head] = [Method::GET, Method::HEAD].map(|method| {
                let mut request = client.post(path, "");
                *request.method_mut() = method;
                client.ask(request)
            });
            let (get, head) = (get.await, head.await);
            assert!(!get.body.is_empty() && head.body.is_empty(), "{path}");
            assert_eq!(head.head.status, get.head.status, "{path}");
            let length = get.body.len().to_string();
            assert_eq!(head.header("content-length"), Some(&*length), "{path}");
            assert_eq!(head.header("content-type"), get.header("content-type"));
        }
        let still = client.ask(client.post(PATH, ROW)).await;
        assert_eq!(still.head.status, StatusCode::OK, "no stream was broken");
        assert!(!client.running.is_finished());
    });
}

fn one_row() -> String {
    json!({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]})
        .to_string()
}

#[test]
fn a_node_that_stops_says_goaway_and_finishes_what_is_under_way() {
    let mut node = Counting::start(Duration::from_millis(1));
    let address = node.http;
    node.allow(0);
    small_runtime().block_on(async {
        let client = Http2::connect(address).await;
        let mut sender = client.sender.clone();
        let waiting =
            tokio::spawn(sender.send_request(client.post("/v2/models/steps/infer", &one_row())));
        node.until_rows(1);
        let stopping = node.stop();
        // Nobody new is let in, and this connection takes nothing new.
        let goaway = async {
            while client.sender.clone().ready().await.is_ok() && !client.sender.is_closed() {
                let mut sender = client.sender.clone();
                let probe = sender.send_request(client.post("/v2/models/steps/ready", ""));
                if timeout(Duration::from_millis(200), probe)
                    .await
                    .is_ok_and(|sent| sent.is_err())
                {
                    return;
                }
            }
        };
        timeout(PATIENCE, goaway).await.expect("it says goaway");
        assert!(!waiting.is_finished(), "its batch is held");
        node.open();
        let answer = timeout(PATIENCE, waiting).await.expect("it ends");
        let answer = answer.expect("no panic").expect("it is answered");
        assert_eq!(answer.status(), StatusCode::OK);
        drop(answer);
        let ended = timeout(PATIENCE, client.running).await.expect("it closes");
        ended.expect("no panic").expect("and in order");
        stopping.await.expect("it stops");
    });
}

#[test]
fn a_stream_whose_client_takes_nothing_is_reset_and_others_go_on() {
    let node = Counting::start(Duration::from_millis(1));
    let data = vec![1.0; 2 * WIDE as usize];
    let wide = json!({"inputs":
        [{"name": "x", "shape": [WIDE, 2], "datatype": "FP32", "data": data}]});
    small_runtime().block_on(async {
        let client = Http2::connect(node.http).await;
        let request = client.post("/v2/models/wide/infer", &wide.to_string());
        let mut sender = client.sender.clone();
        let stalled = sender
            .send_request(request)
            .await
            .expect("an answer begins");
        let began = Instant::now();
        // Its window is 64 KiB, and nobody reads. The others have windows of their own.
        while began.elapsed() < Duration::from_secs(13) {
            let other = client.ask(client.post("/v2/models/steps/infer", &one_row()));
            assert_eq!(other.await.head.status, StatusCode::OK);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let whole = stalled.headers()["content-length"]
            .to_str()
            .expect("text")
            .to_owned();
        assert!(whole.parse::<u64>().expect("a number") > 1 << 20);
        let body = stalled.into_body().collect().await;
        assert!(body.is_err(), "it was reset");
    });
}
