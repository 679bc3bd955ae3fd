//! Calls besides inference: what the server and its models are, and whether they are ready.

use paceline_protocol::{ErrorCode, Failure, TensorSpec};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tracing::level_filters::LevelFilter;

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
    LogSettingsResponse, ModelConfigRequest, ModelConfigResponse, ModelMetadataRequest,
    ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest,
    ModelStatisticsResponse, RepositoryIndexRequest, RepositoryIndexResponse,
    RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryRegisterResponse,
    SystemSharedMemoryStatusRequest, SystemSharedMemoryStatusResponse,
    SystemSharedMemoryUnregisterRequest, SystemSharedMemoryUnregisterResponse, TraceSettingRequest,
    TraceSettingResponse,
};
use super::settings;
use super::status::status;
use crate::gateway::models::{Models, check_load_parameter, check_unload_parameter};
use crate::gateway::settings::{no_logging, no_traces};
use crate::gateway::{Readiness, oip, server};
use crate::tenants::Caller;

/// What only gRPC needs of a node. Cheap to clone.
#[derive(Clone)]
pub struct Calls {
    routes: Routes,
}

/// What that is made of.
pub struct CallParts {
    /// The models.
    pub models: Models,
    /// Whether the node is ready.
    pub readiness: Readiness,
    /// Turns true when streams shall end.
    pub stopping: watch::Receiver<bool>,
    /// Largest message, in bytes.
    pub bytes_max: usize,
}

/// Answers what is asked about the server and its models.
struct Inference {
    models: Models,
    readiness: Readiness,
}

impl Calls {
    /// Puts the services together.
    pub fn new(parts: CallParts) -> Self {
        let CallParts {
            models,
            readiness,
            stopping,
            bytes_max,
        } = parts;
        let health = Health {
            readiness: readiness.clone(),
            stopping,
        };
        let inference = GrpcInferenceServiceServer::new(Inference { models, readiness })
            .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
            .accept_compressed(tonic::codec::CompressionEncoding::Deflate)
            .max_decoding_message_size(CALL_BYTES_MAX)
            .max_encoding_message_size(bytes_max);
        let health = HealthServer::new(health).max_decoding_message_size(CALL_BYTES_MAX);
        Self {
            routes: Routes::new(inference).add_service(health).prepare(),
        }
    }

    pub(super) fn routes(&self) -> Routes {
        self.routes.clone()
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
        let ready = server::is_ready(&self.models.router.routes(), &name, named(&version));
        let ready = ready.or_else(|failure| match failure.code {
            // Triton's clients ask so for what they load afterwards, and take an error for one.
            ErrorCode::ModelNotFound | ErrorCode::VersionNotFound => Ok(false),
            _ => Err(told(failure)),
        });
        Ok(Response::new(ModelReadyResponse { ready: ready? }))
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
        let routes = self.models.router.routes();
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

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let ModelConfigRequest { name, version } = request.into_inner();
        let configuration = self.models.configuration(&name, named(&version));
        let config = Some(configuration.map_err(told)?.into());
        Ok(Response::new(ModelConfigResponse { config }))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let ModelStatisticsRequest { name, version } = request.into_inner();
        let all = self.models.statistics(named(&name), named(&version));
        let model_stats = all.map_err(told)?.into_iter().map(Into::into).collect();
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let all = self.models.index(request.get_ref().ready);
        let models = all.into_iter().map(Into::into).collect();
        Ok(Response::new(RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let model_name = addressed(request.repository_name, request.model_name);
        for name in request.parameters.keys() {
            check_load_parameter(name).map_err(told)?;
        }
        self.models.load(caller, &model_name).await.map_err(told)?;
        Ok(Response::new(RepositoryModelLoadResponse {
            model_name,
            is_loaded: true,
        }))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let model_name = addressed(request.repository_name, request.model_name);
        for name in request.parameters.keys() {
            check_unload_parameter(name).map_err(told)?;
        }
        self.models
            .unload(caller, &model_name)
            .await
            .map_err(told)?;
        Ok(Response::new(RepositoryModelUnloadResponse {
            model_name,
            is_unloaded: true,
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
        Err(no_regions())
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
        Err(no_regions())
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _request: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<CudaSharedMemoryUnregisterResponse>, Status> {
        Ok(Response::new(CudaSharedMemoryUnregisterResponse {}))
    }

    async fn trace_setting(
        &self,
        request: Request<TraceSettingRequest>,
    ) -> Result<Response<TraceSettingResponse>, Status> {
        let TraceSettingRequest {
            settings: set,
            model_name,
        } = request.into_inner();
        if let Some(model) = named(&model_name) {
            self.models.router.routes().model(model).map_err(told)?;
        }
        match set.is_empty() {
            true => Ok(Response::new(settings::trace())),
            false => Err(told(no_traces())),
        }
    }

    async fn log_settings(
        &self,
        request: Request<LogSettingsRequest>,
    ) -> Result<Response<LogSettingsResponse>, Status> {
        match request.get_ref().settings.is_empty() {
            true => Ok(Response::new(settings::log(LevelFilter::current()))),
            false => Err(told(no_logging())),
        }
    }
}

/// Who calls, as the door has found.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().copied();
    // The door lets nobody in without one; a fault there shall not open another.
    caller.ok_or_else(|| {
        let message = "the call does not say whose it is";
        told(Failure::new(ErrorCode::Internal, message))
    })
}

/// The model that a command of the repository is for: KServe's clients name it where Triton's name
/// the repository.
fn addressed(repository: String, model: String) -> String {
    if model.is_empty() { repository } else { model }
}

fn no_regions() -> Status {
    let message = "shared memory regions are not offered: send the values in the request";
    told(Failure::new(ErrorCode::Unsupported, message))
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

/// Largest message of a call that carries no tensors.
const CALL_BYTES_MAX: usize = 1 << 20;
