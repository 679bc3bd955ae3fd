//! Health over gRPC: whether the node takes requests, now and from now on.

use std::collections::HashMap;
use std::pin::Pin;

use futures_util::Stream;
use futures_util::stream::unfold;
use paceline_protocol::{ErrorCode, Failure};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::proto::health::health_check_response::ServingStatus;
use super::proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse, health_server,
};
use super::status::status;
use crate::gateway::Readiness;
use crate::observer::OwnFacts;

/// The service.
pub(super) struct Health {
    pub(super) readiness: Readiness,
    /// Turns true when streams shall end.
    pub(super) stopping: watch::Receiver<bool>,
}

/// What one watcher has been told, and where news comes from.
struct Watcher {
    facts: watch::Receiver<OwnFacts>,
    stopping: watch::Receiver<bool>,
    is_known: bool,
    told: Option<ServingStatus>,
    is_over: bool,
}

type States = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            let allowed = SERVICES.map(|service| format!("'{service}'")).join(", ");
            let message = format!("there is no service of that name; allowed: {allowed}");
            return Err(status(&Failure::new(ErrorCode::NotFound, message)));
        }
        Ok(Response::new(response(state(self.readiness.is_ready()))))
    }

    async fn list(
        &self,
        _request: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let state = response(state(self.readiness.is_ready()));
        let statuses = SERVICES.map(|service| (service.to_owned(), state));
        Ok(Response::new(HealthListResponse {
            statuses: HashMap::from(statuses),
        }))
    }

    type WatchStream = States;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<States>, Status> {
        let watcher = Watcher {
            facts: self.readiness.facts(),
            stopping: self.stopping.clone(),
            is_known: SERVICES.contains(&request.get_ref().service.as_str()),
            told: None,
            is_over: false,
        };
        Ok(Response::new(Box::pin(unfold(watcher, next))))
    }
}

/// The next state that differs from what was told; the last word of a node that stops is that it
/// takes no more.
async fn next(mut watcher: Watcher) -> Option<(Result<HealthCheckResponse, Status>, Watcher)> {
    loop {
        let is_ready = watcher.facts.borrow_and_update().ready;
        let is_stopping = *watcher.stopping.borrow_and_update();
        let now = match watcher.is_known {
            true => state(is_ready && !is_stopping),
            false => ServingStatus::ServiceUnknown,
        };
        if watcher.told != Some(now) {
            watcher.told = Some(now);
            return Some((Ok(response(now)), watcher));
        }
        if watcher.is_over {
            return None;
        }
        if is_stopping {
            watcher.is_over = true;
            let failure = Failure::new(ErrorCode::ShuttingDown, "the node stops");
            return Some((Err(status(&failure)), watcher));
        }
        tokio::select! {
            // Without a sender there is no node, and nobody to be told.
            changed = watcher.facts.changed() => changed.ok()?,
            changed = watcher.stopping.changed() => changed.ok()?,
        }
    }
}

fn state(is_ready: bool) -> ServingStatus {
    match is_ready {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

/// What can be asked for: the node, and its one service.
const SERVICES: [&str; 2] = ["", "inference.GRPCInferenceService"];
