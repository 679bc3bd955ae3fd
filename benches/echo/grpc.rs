//! The least that a gRPC server in Rust does: tonic's codec and statuses on hyper, messages by
//! prost, the tensors' bytes shared and not copied.

use std::convert::Infallible;
use std::future::{Ready, ready};

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::server::{Grpc, UnaryService};
use tonic_prost::ProstCodec;

use crate::messages::{InferRequest, InferResponse, Tensor};

pub(super) async fn connection(stream: TcpStream) {
    // A socket that refuses still works.
    let _ = stream.set_nodelay(true);
    let service = service_fn(async |request: hyper::Request<Incoming>| {
        let codec = ProstCodec::<InferResponse, InferRequest>::default();
        Ok::<_, Infallible>(Grpc::new(codec).unary(Echo, request).await)
    });
    let connection =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    // An error here is the client's: it went away.
    let _ = connection.await;
}

struct Echo;

impl UnaryService<InferRequest> for Echo {
    type Response = InferResponse;
    type Future = Ready<Result<tonic::Response<InferResponse>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<InferRequest>) -> Self::Future {
        let request = request.into_inner();
        let renamed = |input: Tensor| Tensor {
            name: "OUTPUT0".to_owned(),
            ..input
        };
        ready(Ok(tonic::Response::new(InferResponse {
            model_name: request.model_name,
            model_version: "1".to_owned(),
            outputs: request.inputs.into_iter().map(renamed).collect(),
            raw: request.raw,
        })))
    }
}
