//! When batches are formed, and of which requests: our way, and those of other servers, so that they
//! can be compared under the same load.
//!
//! The others are as their documentation describes them, with two kindnesses: what has expired is
//! not run, and a queue has a limit. None of them knows classes or tenants, and all take requests in
//! order of arrival.

use serde::{Deserialize, Serialize};

use crate::request::RequestMeta;
use crate::time::Instant;

/// A policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// By class, tenant and deadline; at once; what would be late is refused.
    #[default]
    Deadlines,
    /// In order of arrival, at once, as many as there are: Triton's dynamic batcher without a delay
    /// and, with a limit of tokens, text-embeddings-inference.
    Arrival,
    /// In order of arrival, once a batch is full or the oldest has waited for so long: TensorFlow
    /// Serving's `batch_timeout_micros`.
    Timeout {
        /// In nanoseconds.
        nanos: u64,
    },
    /// In order of arrival, once a batch is full or its oldest would, by the learnt cost, take longer
    /// than this: BentoML's `max_latency_ms`.
    Latency {
        /// In nanoseconds.
        nanos: u64,
    },
}

impl Policy {
    pub(super) fn is_in_order_of_arrival(self) -> bool {
        self != Self::Deadlines
    }

    pub(super) fn refuses_what_is_late(self) -> bool {
        self == Self::Deadlines
    }

    /// A request as far as the policy looks at it.
    pub(super) fn as_known(self, request: RequestMeta) -> RequestMeta {
        if !self.is_in_order_of_arrival() {
            return request;
        }
        RequestMeta {
            criticality: Default::default(),
            tenant: Default::default(),
            ..request
        }
    }

    /// Until when a batch waits whose oldest request came at `since`, if it does.
    pub(super) fn held_until(
        self,
        since: Instant,
        is_full: bool,
        batch_nanos: u64,
    ) -> Option<Instant> {
        match self {
            _ if is_full => None,
            Self::Deadlines | Self::Arrival => None,
            Self::Timeout { nanos } => Some(since.plus_nanos(nanos)),
            Self::Latency { nanos } => Some(since.plus_nanos(nanos.saturating_sub(batch_nanos))),
        }
    }
}
