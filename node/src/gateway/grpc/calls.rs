//! Calls besides inference: what the server and its models are, and whether they are ready.

use paceline_protocol::{ErrorCode, Failure, TensorSpec};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::health::Health;
use super::proto::health::health_server::HealthServer;
use super::proto::inference::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use super::proto::inference::model_metadata_response::TensorMetadata;
use super::proto::inference::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryRegisterResponse,
    CudaSharedMemoryStatusRequest, CudaSharedMemoryStatusResponse,
    CudaSharedMemoryUnregisterRequest, CudaSharedMemoryUnregisterResponse, LogSettingsRequest,
    LogSettingsResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
    ModelReadyResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryRegisterResponse,
    SystemSharedMemoryStatusRequest, SystemSharedMemoryStatusResponse,
    SystemSharedMemoryUnregisterRequest, SystemSharedMemoryUnregisterResponse, TraceSettingRequest,
    TraceSettingResponse,
};
use super::room::Room;
use super::status::status;
use crate::gateway::{Readiness, oip, server};
use crate::router;

/// What only gRPC needs of a node. Cheap to clone.
#[derive(Clone)]
pub struct Calls {
    routes: Routes,
    room: Room,
}

/// What that is made of.
pub struct CallParts {
    /// The models.
    pub router: router::Handle,
    /// Whether the node is ready.
    pub readiness: Readiness,
    /// Turns true when streams shall end.
    pub stopping: watch::Receiver<bool>,
    /// Largest message, in bytes.
    pub bytes_max: usize,
}

/// Answers what is asked about the server and its models.
struct Inference {
    router: router::Handle,
    readiness: Readiness,
}

impl Calls {
    /// Puts the services together.
    pub fn new(parts: CallParts) -> Self {
        let CallParts {
            router,
            readiness,
            stopping,
            bytes_max,
        } = parts;
        let health = Health {
            readiness: readiness.clone(),
            stopping,
        };
        let inference = GrpcInferenceServiceServer::new(Inference { router, readiness })
            .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
            .accept_compressed(tonic::codec::CompressionEncoding::Deflate)
            .max_decoding_message_size(CALL_BYTES_MAX)
            .max_encoding_message_size(bytes_max);
        let health = HealthServer::new(health).max_decoding_message_size(CALL_BYTES_MAX);
        Self {
            routes: Routes::new(inference).add_service(health).prepare(),
            room: Room::of(bytes_max * BODIES_MAX),
        }
    }

    pub(super) fn routes(&self) -> Routes {
        self.routes.clone()
    }

    /// Memory for messages that arrive.
    pub(super) fn room(&self) -> Room {
        self.room.clone()
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(
        &self,
        _request: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _request: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        let ready = self.readiness.is_ready();
        Ok(Response::new(ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version } = request.into_inner();
        let ready = server::is_ready(&self.router.routes(), &name, named(&version));
        let ready = ready.map_err(told)?;
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _request: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: oip::PRODUCT.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: oip::EXTENSIONS.map(str::to_owned).into(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        let routes = self.router.routes();
        let found = server::versions(&routes, &name, named(&version));
        let (versions, chosen) = found.map_err(told)?;
        let metadata = |specs: &[TensorSpec]| specs.iter().map(tensor).collect();
        Ok(Response::new(ModelMetadataResponse {
            versions: versions.iter().map(ToString::to_string).collect(),
            platform: oip::platform(&chosen.family),
            inputs: metadata(&chosen.signature.inputs),
            outputs: metadata(&chosen.signature.outputs),
            properties: Default::default(),
            name,
        }))
    }

    async fn system_shared_memory_status(
        &self,
        _request: Request<SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<SystemSharedMemoryStatusResponse>, Status> {
        Ok(Response::new(SystemSharedMemoryStatusResponse {}))
    }

    async fn system_shared_memory_register(
        &self,
        _request: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<SystemSharedMemoryRegisterResponse>, Status> {
        Err(not_offered(NO_REGIONS))
    }

    async fn system_shared_memory_unregister(
        &self,
        _request: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<SystemSharedMemoryUnregisterResponse>, Status> {
        Ok(Response::new(SystemSharedMemoryUnregisterResponse {}))
    }

    async fn cuda_shared_memory_status(
        &self,
        _request: Request<CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<CudaSharedMemoryStatusResponse>, Status> {
        Ok(Response::new(CudaSharedMemoryStatusResponse {}))
    }

    async fn cuda_shared_memory_register(
        &self,
        _request: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<CudaSharedMemoryRegisterResponse>, Status> {
        Err(not_offered(NO_REGIONS))
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _request: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<CudaSharedMemoryUnregisterResponse>, Status> {
        Ok(Response::new(CudaSharedMemoryUnregisterResponse {}))
    }

    async fn trace_setting(
        &self,
        _request: Request<TraceSettingRequest>,
    ) -> Result<Response<TraceSettingResponse>, Status> {
        Err(not_offered("traces are not set by clients"))
    }

    async fn log_settings(
        &self,
        _request: Request<LogSettingsRequest>,
    ) -> Result<Response<LogSettingsResponse>, Status> {
        Err(not_offered(
            "logs are not set by clients; see log.filter in the node's configuration",
        ))
    }
}

fn not_offered(what: &'static str) -> Status {
    told(Failure::new(ErrorCode::Unsupported, what))
}

fn tensor(spec: &TensorSpec) -> TensorMetadata {
    TensorMetadata {
        name: spec.name.clone(),
        datatype: spec.dtype.name().to_owned(),
        shape: spec.shape.0.iter().map(|dim| i64::from(*dim)).collect(),
    }
}

/// The version that a call names, if it does.
fn named(version: &str) -> Option<&str> {
    Some(version).filter(|version| !version.is_empty())
}

fn told(failure: Failure) -> Status {
    tracing::debug!(code = failure.code.name(), message = %failure, "call refused");
    status(&failure)
}

const NO_REGIONS: &str = "shared memory regions are not offered: send the values in the request";
/// Largest message of a call that carries no tensors.
const CALL_BYTES_MAX: usize = 1 << 20;
/// Largest messages that arrive in several pieces at a time, all connections together.
const BODIES_MAX: usize = 8;
