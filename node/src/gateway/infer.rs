//! The life of one inference request on this node, from its body to its answer.
//!
//! Hot path: everything here runs in the request's own task; admission, router and device are
//! stepped through their handles. Every way out is one typed status.

mod admit;
mod ahead;
mod content;
mod events;
mod execute;
mod flight;
mod missed;
mod part;
mod remote;
mod shadow;
mod stream;
mod tensors;
mod times;

use std::sync::Arc;

use paceline_core::Instant;
use paceline_core::failover::Terms;
use paceline_core::router::InSequence;
use paceline_protocol::limits::{REQUEST_BUDGET_DEFAULT_MS, REQUEST_BUDGET_MAX_MS};
use paceline_protocol::traffic::{self, Sequence, Unit};
use paceline_protocol::{Epoch, Failure, Reading, Tensor, VersionNumber};

pub use self::content::Content;
pub use self::events::EventPart;
pub use self::missed::Unanswered;
pub use self::remote::PeerDoor;
pub use self::shadow::Copies;
pub use self::stream::{Disconnected, Moved, Taker};
pub use self::tensors::{TensorAnswer, TensorPart, TensorRequest};
use self::times::Times;
use super::oip::{AnswerView, ParseOptions, ParsedRequest, Rendered};
use crate::admission::Asker;
use crate::clock::Clock;
use crate::detector::Suspects;
use crate::observed::Observed;
use crate::router::{Arm, Chosen, Routes, ShadowRoute, VersionRoute};
use crate::telemetry::metrics::{Metrics, Stage, StageNanos, Took, VersionMetrics};
use crate::tenants::Caller;
use crate::{admission, budget, contact, device, dispatch, router, tenants};

/// The request path of a node. Cheap to clone.
#[derive(Clone)]
pub struct Serving {
    /// The node's clock.
    pub clock: Clock,
    /// Who callers are.
    pub tenants: tenants::Handle,
    /// Lets requests in.
    pub admission: admission::Handle,
    /// Lets requests that got no answer have another attempt.
    pub budget: budget::Handle,
    /// Picks replicas.
    pub router: router::Handle,
    /// Runs them, on this node.
    pub device: device::Handle,
    /// Runs them, on others.
    pub peers: dispatch::Peers,
    /// Nodes whose answers are not waited for alone.
    pub suspects: Suspects,
    /// Which replicas are here.
    pub observed: Observed,
    /// How old what is known may be.
    pub contact: contact::Handle,
    /// Places of copies for shadows.
    pub copies: Copies,
    /// Where requests are counted.
    pub metrics: Metrics,
}

/// What a request is addressed to.
#[derive(Clone, Copy)]
struct Target<'a> {
    model: &'a str,
    version: Option<&'a str>,
    /// What it belongs to that shall always get the same version.
    unit: Option<&'a Unit>,
    /// When it arrived, which is what it belongs to otherwise.
    arrived: Instant,
}

/// An inference request as the door has read it.
pub struct InferBody<'a> {
    /// The model in the path.
    pub model: &'a str,
    /// The version in the path.
    pub version: Option<&'a str>,
    /// What it says.
    pub content: Content<'a>,
    /// The highest epoch that the client has seen, if it says one.
    pub epoch_seen: Option<Epoch>,
    /// Who sends it.
    pub caller: Caller,
    /// What the request belongs to that shall always get the same version, if it says so.
    pub unit: Option<Unit>,
    /// The sequence that it belongs to, if a header says so.
    pub sequence: Option<Unit>,
}

/// An answer, ready to be sent.
pub struct Answered {
    /// The body.
    pub rendered: Rendered,
    /// The version that ran.
    pub version: VersionNumber,
    /// The epoch that the request was pinned at.
    pub epoch: Epoch,
    /// For how many seconds the node had been without contact to a quorum when it was pinned, if
    /// it had none.
    pub stale_seconds: Option<u64>,
}

/// The version that a request is pinned to.
struct Pinned {
    version: Arc<VersionRoute>,
    epoch: Epoch,
    stale_seconds: Option<u64>,
    /// Whether the request itself names the version.
    is_named: bool,
    /// Where it is counted, while a canary is under way.
    arm: Option<Arm>,
    /// What gets a copy of it.
    shadow: Option<Arc<ShadowRoute>>,
    /// How its texts are read, if it has any.
    reading: Reading,
    /// Where its time goes.
    times: Times,
}

/// What was done for a request that is answered.
#[derive(Clone, Copy)]
struct Served {
    rows: u32,
    /// Nothing of what another node has answered in this one's place.
    stages: StageNanos,
}

impl Pinned {
    /// Where what becomes of it is counted.
    fn counted(&self) -> (VersionMetrics, Option<Arm>) {
        (self.version.metrics.clone(), self.arm.clone())
    }

    /// The request, or a part of it, has been at a stage on this node.
    fn spent(&self, stage: Stage, nanos: u64) {
        self.version.metrics.stage(stage, nanos);
        self.times.note(stage, nanos);
    }

    /// The version as it is routed now, if a request like this would be pinned to it again.
    fn stays<'a>(&self, routes: &'a Routes) -> Option<&'a Arc<VersionRoute>> {
        let version = routes.same(&self.version)?;
        if self.is_named {
            return Some(version);
        }
        routes.may_choose(version)
    }
}

impl Serving {
    /// Answers a request.
    ///
    /// # Errors
    /// Exactly one [`Failure`], by the request's deadline.
    pub async fn infer(&self, request: InferBody<'_>) -> Result<Answered, Failure> {
        let arrived = self.clock.now();
        let protocol = request.content.protocol();
        let refused = |failure: &Failure| self.metrics.refused(protocol, failure.code);
        let ahead = match request.epoch_seen {
            Some(seen) => (!self.catch_up(seen).await).then_some(seen),
            None => None,
        };
        let pinned = self
            .pin(request.target(arrived))
            .map_err(|failure| match ahead {
                // The client knows of more than this node does.
                Some(seen) => self.behind(seen),
                None => failure,
            });
        let pinned = pinned.inspect_err(refused)?;
        let mut counted = pinned.counted();
        let answered = match ahead {
            None => {
                let reading = (request, &mut counted);
                self.infer_pinned(arrived, pinned, reading).await
            }
            Some(seen) => self.infer_ahead((arrived, seen), pinned, request).await,
        };
        let nanos = self.clock.now().nanos_since(arrived);
        let (metrics, arm) = counted;
        match &answered {
            Ok((Served { rows, stages }, _)) => {
                let stages = *stages;
                metrics.succeeded(protocol, *rows, Took { nanos, stages });
            }
            Err(failure) => metrics.failed(protocol, failure.code, nanos),
        }
        if let Some(arm) = arm {
            let failure = answered.as_ref().err().map(|failure| failure.code);
            failure.map_or_else(|| arm.answered(nanos), |code| arm.failed(code, nanos));
        }
        answered.map(|(_, answered)| answered)
    }

    async fn infer_pinned(
        &self,
        arrived: Instant,
        pinned: Pinned,
        (mut request, counted): (InferBody<'_>, &mut (VersionMetrics, Option<Arm>)),
    ) -> Result<(Served, Answered), Failure> {
        let (pinned, mut parsed) = self.read(arrived, &mut request, pinned)?;
        *counted = pinned.counted();
        let parsed_at = self.clock.now();
        pinned.spent(Stage::Parse, parsed_at.nanos_since(arrived));
        let deadline = arrived.plus_nanos(budget_nanos(parsed.parameters.timeout_us));
        let criticality = parsed.parameters.criticality();
        let tenant = request.caller.tenant;
        let asker = Asker {
            criticality,
            tenant,
            in_parts: false,
        };
        let permit = self.admit(parsed_at, deadline, asker)?;
        let rows = parsed.rows() as u32;
        let inputs = std::mem::take(&mut parsed.inputs);
        let terms = Terms {
            deadline,
            is_idempotent: request.may_run_twice(&parsed),
            is_second: false,
            lost: None,
            criticality,
            tenant,
            sequence: request.in_sequence(rows),
        };
        let ran = self
            .execute(pinned, inputs, terms, request.target(arrived))
            .await;
        let (outputs, pinned) = ran.map_err(|unanswered| unanswered.failure)?;
        let ran_at = self.clock.now();
        let view = view(&request, &pinned, &parsed, &outputs);
        let rendered = request.content.render(&view, pinned.epoch)?;
        permit.answered(pinned.times.waited_nanos());
        pinned.spent(Stage::Render, self.clock.now().nanos_since(ran_at));
        let stages = pinned.times.nanos();
        let answered = Answered {
            rendered,
            version: pinned.version.version,
            epoch: pinned.epoch,
            stale_seconds: pinned.stale_seconds,
        };
        Ok((Served { rows, stages }, answered))
    }

    /// What is in a request. One whose sequence only its body names is pinned to that one's version.
    fn read(
        &self,
        arrived: Instant,
        request: &mut InferBody<'_>,
        mut pinned: Pinned,
    ) -> Result<(Pinned, ParsedRequest), Failure> {
        // While there are two versions, which one reads it depends on what it says itself.
        if request.sequence.is_none() && pinned.arm.is_some() {
            request.sequence = request.content.sequence();
            if request.sequence.is_some() {
                pinned = self.pin(request.target(arrived))?;
            }
        }
        let parsed = request.parsed(&pinned.version)?;
        pinned.reading = request.content.reading();
        request.sequence = request.sequence_of(&parsed);
        Ok((pinned, parsed))
    }

    fn pin(&self, target: Target<'_>) -> Result<Pinned, Failure> {
        let stale_seconds = self.contact.check()?;
        let routes = self.router.routes();
        let chosen = match target.version {
            Some(_) => Chosen {
                version: routes.resolve(target.model, target.version)?,
                arm: None,
                shadow: None,
            },
            None => routes.choose(target.model, |salt| self.bucket(salt, target))?,
        };
        Ok(Pinned {
            version: chosen.version.clone(),
            arm: chosen.arm,
            shadow: chosen.shadow.cloned(),
            epoch: routes.epoch,
            stale_seconds,
            is_named: target.version.is_some(),
            reading: Reading::default(),
            times: Times::default(),
        })
    }
}

impl Serving {
    /// The bucket of a request: that of its unit, or of the node and the moment of its arrival.
    fn bucket(&self, salt: &str, target: Target<'_>) -> u16 {
        match target.unit {
            Some(unit) => traffic::bucket(salt, unit.as_bytes()),
            None => {
                let alone = [self.router.node().0, target.arrived.as_nanos()];
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&alone[0].to_le_bytes());
                bytes[8..].copy_from_slice(&alone[1].to_le_bytes());
                traffic::bucket(salt, &bytes)
            }
        }
    }
}

impl<'a> InferBody<'a> {
    fn target<'t>(&'t self, arrived: Instant) -> Target<'t>
    where
        'a: 't,
    {
        Target {
            model: self.model,
            version: self.version,
            unit: self.unit.as_ref().or(self.sequence.as_ref()),
            arrived,
        }
    }

    /// The sequence that it belongs to, by its header or its parameters.
    fn sequence_of(&self, parsed: &ParsedRequest) -> Option<Unit> {
        let in_body = parsed.parameters.sequence.as_ref();
        self.sequence.as_ref().or(in_body).cloned()
    }

    /// The same as the router minds it, for a request with so many rows.
    fn in_sequence(&self, rows: u32) -> Option<InSequence> {
        let sequence = Sequence::named(self.sequence.as_ref()?);
        Some(InSequence { sequence, rows })
    }

    fn may_run_twice(&self, parsed: &ParsedRequest) -> bool {
        self.sequence.is_none() && parsed.parameters.may_run_twice()
    }

    /// What is in it, read by a version's signature.
    fn parsed(&self, version: &VersionRoute) -> Result<ParsedRequest, Failure> {
        let options = ParseOptions {
            finite_inputs: version.finite_inputs,
        };
        self.content.parse(&version.signature, options)
    }
}

fn view<'a>(
    request: &InferBody<'a>,
    pinned: &'a Pinned,
    parsed: &'a ParsedRequest,
    outputs: &'a [Tensor],
) -> AnswerView<'a> {
    AnswerView {
        model_name: request.model,
        version: pinned.version.version,
        id: parsed.id.as_deref(),
        parameters: &[],
        signature: &pinned.version.signature,
        outputs,
        wanted: &parsed.outputs,
    }
}

/// What the client allows, within what is allowed to it.
pub(in crate::gateway) fn budget_nanos(timeout_us: Option<u64>) -> u64 {
    let longest = REQUEST_BUDGET_MAX_MS * 1_000_000;
    match timeout_us {
        None | Some(0) => REQUEST_BUDGET_DEFAULT_MS * 1_000_000,
        Some(micros) => micros.saturating_mul(1_000).min(longest),
    }
}
