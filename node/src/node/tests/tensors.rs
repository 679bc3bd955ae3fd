//! Requests that arrive as tensors, by name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use paceline_models::CostCurve;
use paceline_protocol::frame::{ClientInfer, Execution, Frame, Message};
use paceline_protocol::registry::Change;
use paceline_protocol::report::NodeReport;
use paceline_protocol::{
    Criticality, Epoch, ErrorCode, NodeId, TenantId, Tensor, TokenId, VersionNumber,
};

use super::{FILES, World, model, serving};
use crate::directory::{Report, Reports};
use crate::dispatch;
use crate::gateway::infer::{Content, InferBody, Serving, TensorAnswer, TensorRequest};
use crate::gateway::quic::{ClientRequest, Door};
use crate::registry::fresh_op;
use crate::tenants::Caller;
use crate::transport::{Boxed, Transport};

fn request(input: &str) -> TensorRequest {
    TensorRequest {
        model: "m".to_owned(),
        version: None,
        inputs: vec![(input.to_owned(), Tensor::from_f32(2, &[1.0, 2.0]))],
        outputs: Vec::new(),
        budget_us: 10_000_000,
        is_idempotent: true,
        is_second: false,
        lost: None,
        criticality: Criticality::default(),
        tenant: TenantId::DEFAULT,
        unit: None,
        sequence: None,
    }
}

fn client_request(epoch_seen: Epoch) -> ClientRequest {
    let head = ClientInfer {
        model: model(),
        version: None,
        budget_us: 10_000_000,
        attempt: 1,
        epoch_seen,
        idempotent: true,
        inputs: vec!["INPUT0".to_owned()],
        outputs: Vec::new(),
        lost: None,
        criticality: Criticality::default(),
        tenant: TenantId::DEFAULT,
        unit: None,
        sequence: None,
        in_parts: false,
    };
    let inputs = vec![Tensor::from_f32(2, &[1.0, 2.0])];
    ClientRequest { head, inputs }
}

async fn ask(serving: &Serving, request: TensorRequest) -> Result<TensorAnswer, ErrorCode> {
    let answered = serving.infer_tensors(request).await;
    answered.map_err(|unanswered| unanswered.failure.code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tensors_by_name_take_the_same_way_as_json() {
    let world = World::new(CostCurve::default());
    let node = world.start().await.unwrap();
    node.install(&model(), FILES).await.unwrap();
    assert!(node.wait_ready(&model(), Duration::from_secs(10)).await);
    let serving = serving(&node);

    let answer = ask(&serving, request("INPUT0")).await.unwrap();
    assert_eq!(answer.version, VersionNumber(1));
    assert_eq!(answer.epoch, serving.router.routes().epoch);
    let names: Vec<&str> = answer
        .outputs
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["OUTPUT0"]);
    assert_eq!(answer.outputs[0].1.rows(), 1);

    assert_eq!(
        ask(&serving, request("other")).await,
        Err(ErrorCode::InputUnknown)
    );
    let other = |model: &str, outputs: &[&str]| TensorRequest {
        model: model.to_owned(),
        outputs: outputs.iter().map(|&name| name.to_owned()).collect(),
        ..request("INPUT0")
    };
    assert_eq!(
        ask(&serving, other("m", &["x"])).await,
        Err(ErrorCode::OutputUnknown)
    );
    assert_eq!(
        ask(&serving, other("x", &[])).await,
        Err(ErrorCode::ModelNotFound)
    );
    let text = serving.metrics.render();
    let refused = "protocol=\"quic\",code=\"MODEL_NOT_FOUND\"} 1";
    assert!(text.contains(refused), "{text}");

    node.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_seen_more_waits_a_moment_and_is_never_shown_less() {
    let world = World::new(CostCurve::default());
    let node = world.start().await.unwrap();
    node.install(&model(), FILES).await.unwrap();
    assert!(node.wait_ready(&model(), Duration::from_secs(10)).await);
    let serving = serving(&node);
    let now = serving.epoch();
    let answer = Door::infer(&serving, client_request(now)).await.unwrap();
    assert!(answer.epoch >= now && answer.stale_seconds.is_none());

    // An entry that the client has seen elsewhere arrives while it is waited for.
    let next = Epoch(serving.epoch().0 + 1);
    let waiting = {
        let serving = serving.clone();
        tokio::spawn(async move { Door::infer(&serving, client_request(next)).await })
    };
    let token = Change::RevokeToken {
        token: TokenId([7; 8]),
    };
    // Refused, but an entry like any other.
    let op = fresh_op().unwrap();
    node.registry.write(op, token).await.unwrap_err();
    assert!(waiting.await.unwrap().unwrap().epoch >= next);

    // There is no other node that could know more yet.
    let before = tokio::time::Instant::now();
    let never = Door::infer(&serving, client_request(Epoch(u64::MAX))).await;
    let refused = never.unwrap_err();
    assert!(before.elapsed() >= Duration::from_millis(50));
    assert_eq!(refused.failure.code, ErrorCode::Stale);
    assert_eq!(refused.execution, Execution::NotExecuted);

    // Now there is one, and it answers in this node's place.
    let peer = world.network.join(PEER);
    node.transport.set_peers([(PEER, NOWHERE)].into());
    peer.set_peers([(NodeId::FOUNDER, NOWHERE)].into());
    tokio::spawn(dispatch::serve(peer, Arc::new(Ahead), 1 << 20));
    let report = NodeReport {
        node: PEER,
        epoch: AHEAD,
        ready: true,
        draining: None,
        pid: 1,
        replicas: Vec::new(),
        demands: Vec::new(),
        canaries: Vec::new(),
    };
    let report = Report {
        report: Arc::new(report),
        heard_at: tokio::time::Instant::now(),
    };
    let reports = [(PEER, report)].into();
    let asked = async {
        loop {
            // The node's own directory knows nothing of this peer, and says so now and then.
            serving.observed.hear(&reports, |_| None);
            if let Ok(answer) = Door::infer(&serving, client_request(AHEAD)).await {
                return answer;
            }
        }
    };
    let answered = tokio::time::timeout(Duration::from_secs(20), asked).await;
    let answer = answered.expect("the peer answers");
    assert_eq!((answer.epoch, answer.version), (AHEAD, VersionNumber(9)));
    assert_eq!(answer.outputs.len(), 1, "the tensors travelled both ways");
    let more = Door::infer(&serving, client_request(Epoch(AHEAD.0 + 1))).await;
    assert_eq!(more.unwrap_err().failure.code, ErrorCode::Stale);

    an_http_client_likewise(&serving, &reports).await;
    node.shutdown(Duration::from_secs(5)).await;
}

/// What does not fit what is known here may fit what is known there.
async fn an_http_client_likewise(serving: &Serving, reports: &Reports) {
    let over_http = async |input: &str| loop {
        serving.observed.hear(reports, |_| None);
        match serving.infer(body(input)).await {
            Err(failure) if failure.message.contains("reaches no node") && input == INPUT => {}
            ended => return ended,
        }
    };
    let limit = Duration::from_secs(20);
    let answered = tokio::time::timeout(limit, over_http(INPUT)).await;
    let answered = answered.expect("the peer answers").ok().unwrap();
    assert_eq!(
        (answered.epoch, answered.version),
        (AHEAD, VersionNumber(9))
    );
    assert_eq!(answered.stale_seconds, Some(3), "the peer's word");
    let text = std::str::from_utf8(&answered.rendered.head).unwrap();
    let data = r#""data":[1.0,2.0]"#;
    assert!(
        text.contains(r#""model_version":"9""#) && text.contains(data),
        "{text}"
    );
    let unfit = over_http("ELSE").await.err().unwrap();
    assert_eq!(unfit.code, ErrorCode::Stale);
}

fn body(input: &str) -> InferBody<'static> {
    let json = format!(
        r#"{{"inputs":[{{"name":"{input}","shape":[1,2],"datatype":"FP32","data":[1,2]}}]}}"#
    );
    InferBody {
        model: "m",
        version: None,
        content: Content::json(json),
        epoch_seen: Some(AHEAD),
        caller: Caller::ANONYMOUS,
        unit: None,
        sequence: None,
    }
}

const INPUT: &str = "INPUT0";
const PEER: NodeId = NodeId(2);
const AHEAD: Epoch = Epoch(1 << 40);
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// A peer that knows more, and echoes.
struct Ahead;

impl dispatch::Handler for Ahead {
    fn serve(&self, peer: NodeId, frame: Frame) -> Boxed<'_, Frame> {
        assert_eq!(peer, NodeId::FOUNDER);
        Box::pin(async move {
            let Message::ClientInfer(head) = frame.message else {
                panic!("{:?}", frame.message);
            };
            assert!(head.epoch_seen <= AHEAD && head.budget_us < 10_000_000);
            let message = Message::ClientAnswer {
                version: VersionNumber(9),
                epoch: AHEAD,
                outputs: vec!["OUTPUT0".to_owned()],
                stale_seconds: Some(3),
            };
            Frame { message, ..frame }
        })
    }
}
