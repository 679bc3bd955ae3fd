//! The least that a server in Rust can do with an inference request: over HTTP hyper, the same
//! parsing, the same answer; over gRPC tonic and prost; and nothing else.
//!
//! No admission, no router, no queue, no deadline, no metrics, no limits, no routes. What the
//! node costs beyond this is the price of being a node.

mod grpc;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Read;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use paceline_node::gateway::oip::{self, AnswerView, ParseOptions, Rendered};
use paceline_protocol::{Dim, Dtype, Failure, ShapePattern, Signature, TensorSpec, VersionNumber};
use tokio::net::{TcpListener, TcpStream};

/// Serves until its standard input ends. Says its ports of HTTP and of gRPC on standard output.
///
/// # Errors
/// What the operating system says.
pub(crate) fn serve() -> anyhow::Result<()> {
    std::thread::spawn(|| {
        // Whoever started this process holds the other end, and lets go of it when it ends.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // As many as a node uses.
        .worker_threads((cores / 2).max(1))
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let calls = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!(
            "{} {}",
            http.local_addr()?.port(),
            calls.local_addr()?.port()
        );
        let signature = Arc::new(signature());
        loop {
            tokio::select! {
                accepted = http.accept() => {
                    tokio::spawn(connection(accepted?.0, signature.clone()));
                }
                accepted = calls.accept() => {
                    tokio::spawn(grpc::connection(accepted?.0));
                }
            }
        }
    })
}

async fn connection(stream: TcpStream, signature: Arc<Signature>) {
    // A socket that refuses still works.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(request, signature.clone()));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // An error here is the client's: it went away.
    let _ = connection.await;
}

async fn answer(
    request: Request<Incoming>,
    signature: Arc<Signature>,
) -> Result<Response<Parts>, Infallible> {
    let json_bytes = request.headers().get(JSON_BYTES);
    let json_bytes = json_bytes.and_then(|value| value.to_str().ok()?.parse().ok());
    let rendered = match request.into_body().collect().await {
        Ok(body) => echo(&body.to_bytes(), json_bytes, &signature),
        Err(_) => return Ok(Response::new(Parts(VecDeque::new()))),
    };
    Ok(match rendered {
        Ok(rendered) => respond(rendered),
        Err(failure) => {
            let mut response = Response::new(Parts([oip::render_failure(&failure)].into()));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response
        }
    })
}

fn echo(
    body: &Bytes,
    json_bytes: Option<usize>,
    signature: &Signature,
) -> Result<Rendered, Failure> {
    // The model `identity` does not ask for finite numbers.
    let options = ParseOptions {
        finite_inputs: false,
    };
    let parsed = oip::parse(body, json_bytes, signature, options)?;
    oip::render(&AnswerView {
        model_name: "identity",
        version: VersionNumber(1),
        id: parsed.id.as_deref(),
        parameters: &[],
        signature,
        outputs: &parsed.inputs,
        wanted: &parsed.outputs,
    })
}

fn respond(rendered: Rendered) -> Response<Parts> {
    let mut parts = VecDeque::with_capacity(1 + rendered.bodies.len());
    parts.push_back(rendered.head);
    parts.extend(rendered.bodies);
    let mut response = Response::new(Parts(parts));
    let headers = response.headers_mut();
    match rendered.json_bytes {
        Some(bytes) => {
            headers.insert(CONTENT_TYPE, OCTETS);
            headers.insert(JSON_BYTES, HeaderValue::from(bytes));
        }
        None => drop(headers.insert(CONTENT_TYPE, JSON)),
    }
    response
}

/// Slices that are sent one after another.
struct Parts(VecDeque<Bytes>);

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|part| part.len() as u64).sum())
    }
}

/// What the model `identity` takes and gives.
fn signature() -> Signature {
    let spec = |name: &str| TensorSpec {
        name: name.to_owned(),
        dtype: Dtype::Fp32,
        shape: ShapePattern(vec![Dim::Any, Dim::Any]),
    };
    Signature {
        inputs: vec![spec("INPUT0")],
        outputs: vec![spec("OUTPUT0")],
    }
}

const JSON_BYTES: HeaderName = HeaderName::from_static("inference-header-content-length");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
