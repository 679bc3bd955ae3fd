//! A node's SDK door over a real socket, with a double behind it that does as the model's name
//! says, and keeps what it was asked.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use paceline_client::{ClientOptions, Trust};
use paceline_node::Caller;
use paceline_node::gateway::Guests;
use paceline_node::gateway::quic::{
    self, ClientAnswer, ClientFailure, ClientRequest, Door, Moved, QuicDoors, QuicOptions,
    QuicParts, Taker, TensorAnswer, TensorPart,
};
use paceline_node::identity::authority::{Authority, request};
use paceline_node::identity::credentials::Credentials;
use paceline_node::identity::trust;
use paceline_node::telemetry::metrics::Metrics;
use paceline_node::transport::Boxed;
use paceline_protocol::Subject;
use paceline_protocol::client::{ClientDoor, Hello};
use paceline_protocol::frame::{ClientInfer, Execution};
use paceline_protocol::tenant::KeyId;
use paceline_protocol::{Epoch, ErrorCode, Failure, NodeId, Tensor, VersionNumber};
use rcgen::KeyPair;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// What the double accepts no key of.
pub(crate) const WRONG_KEY: KeyId = KeyId([6; 8]);
/// The cluster of every test.
pub(crate) const CLUSTER: u128 = 0xc0ffee;

/// A cluster's authority, and what clients are told of it.
pub(crate) struct Cluster {
    pub(crate) authority: Authority,
}

/// A running door.
pub(crate) struct Running {
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) double: Arc<Double>,
    pub(crate) metrics: Metrics,
    pub(crate) leaving: watch::Sender<bool>,
    pub(crate) stopping: watch::Sender<bool>,
    pub(crate) nodes: watch::Sender<Vec<ClientDoor>>,
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) accepting: JoinHandle<()>,
}

/// What stands behind a door.
#[derive(Default)]
pub(crate) struct Double {
    pub(crate) epoch: AtomicU64,
    asked: Mutex<Vec<ClientInfer>>,
    changed: Notify,
    cancelled: AtomicU64,
}

impl Cluster {
    pub(crate) fn found() -> Self {
        let authority = Authority::found(CLUSTER).unwrap();
        Self { authority }
    }

    /// PEM of the authority's certificate.
    pub(crate) fn pem(&self) -> String {
        let base64 = data_encoding::BASE64.encode(self.authority.certificate());
        let lines: Vec<&str> = base64
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        let begin = "-----BEGIN CERTIFICATE-----";
        let end = "-----END CERTIFICATE-----";
        format!("{begin}\n{}\n{end}\n", lines.join("\n"))
    }

    pub(crate) fn options(&self) -> ClientOptions {
        ClientOptions::new(Trust::Authority(self.pem()))
    }

    pub(crate) fn credentials(&self, node: u64) -> Credentials {
        let subject = Subject {
            node: NodeId(node),
            cluster: CLUSTER,
        };
        let key = KeyPair::generate().unwrap();
        let request = request(&key).unwrap();
        let signed = self.authority.sign(&request, subject, SystemTime::now());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = trust::Trust::new(self.authority.certificate(), CLUSTER, provider).unwrap();
        Credentials::new(subject, key, signed.unwrap(), trust).unwrap()
    }

    /// A door of node `node` with the limits that tests need.
    pub(crate) fn door(&self, node: u64) -> Running {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        self.door_on(node, socket, limits())
    }

    pub(crate) fn door_on(&self, node: u64, socket: UdpSocket, options: QuicOptions) -> Running {
        let tls = self.credentials(node).client_server(quic::protocols());
        open(node, socket, tls.unwrap(), options)
    }
}

/// Limits that a test reaches without waiting for long.
pub(crate) fn limits() -> QuicOptions {
    QuicOptions {
        hello_limit: Duration::from_millis(500),
        stall_limit: Duration::from_millis(500),
        ..QuicOptions::default()
    }
}

pub(crate) fn open(
    node: u64,
    socket: UdpSocket,
    tls: rustls::ServerConfig,
    options: QuicOptions,
) -> Running {
    let address = socket.local_addr().unwrap();
    let endpoint = quic::bind(socket, tls).unwrap();
    let double = Arc::new(Double::default());
    double.epoch.store(1, Ordering::SeqCst);
    let metrics = Metrics::new();
    let (leaving, stopping) = (watch::Sender::new(false), watch::Sender::new(false));
    let node = NodeId(node);
    let here = ClientDoor {
        node,
        address: address.to_string(),
    };
    let nodes = watch::Sender::new(vec![here]);
    let parts = QuicParts {
        door: double.clone(),
        join: None,
        identity: (CLUSTER, node),
        nodes: nodes.subscribe(),
        metrics: metrics.clone(),
        leaving: leaving.subscribe(),
        stopping: stopping.subscribe(),
        guests: Guests::default(),
    };
    let doors = Arc::new(QuicDoors::new(parts, options));
    let accepting = tokio::spawn(quic::accept(endpoint.clone(), doors));
    Running {
        node,
        address,
        double,
        metrics,
        leaving,
        stopping,
        nodes,
        endpoint,
        accepting,
    }
}

impl Running {
    /// The address as a seed.
    pub(crate) fn seed(&self) -> String {
        self.address.to_string()
    }

    /// Says where the cluster's nodes are reached.
    pub(crate) fn knows(&self, doors: &[(NodeId, SocketAddr)]) {
        let doors = doors.iter().map(|(node, address)| ClientDoor {
            node: *node,
            address: address.to_string(),
        });
        self.nodes.send_replace(doors.collect());
    }
}

impl Double {
    /// Every request so far.
    pub(crate) fn asked(&self) -> Vec<ClientInfer> {
        self.asked.lock().unwrap().clone()
    }

    /// Requests for a model so far.
    pub(crate) fn asked_for(&self, model: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|asked| asked.model.as_str() == model)
            .count()
    }

    /// Requests that were dropped before their end.
    pub(crate) fn cancelled(&self) -> u64 {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Waits until `true`, looking whenever something happens here.
    pub(crate) async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if is_so(self) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("it happens");
    }

    async fn answer(&self, request: ClientRequest) -> Result<Vec<(String, Tensor)>, ErrorCode> {
        let ClientRequest { head, inputs } = request;
        let echo = || {
            head.inputs
                .iter()
                .cloned()
                .zip(inputs.iter().cloned())
                .collect()
        };
        match head.model.as_str() {
            "echo" => Ok(echo()),
            "sleepy" => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok(echo())
            }
            "slow" => {
                tokio::time::sleep(Duration::from_secs(4)).await;
                Ok(echo())
            }
            // Answers a second attempt only.
            "stuck-once" if head.attempt == 2 => Ok(echo()),
            // Refuses a second attempt.
            "stuck-then-full" if head.attempt == 2 => Err(ErrorCode::QueueFull),
            "stuck" | "stuck-once" | "stuck-then-full" => std::future::pending().await,
            "large" => Ok(vec![(
                "large".to_owned(),
                Tensor::from_f32(1, &vec![7.0; 1 << 20]),
            )]),
            // As a node that is alone: what is behind the client is not shown to it.
            "fresh" if head.epoch_seen > self.epoch() => Err(ErrorCode::Stale),
            "fresh" => Ok(echo()),
            // As a stream it says nothing after its first part.
            "stuck-midway" => Ok(echo()),
            "gone" => Err(ErrorCode::VersionGone),
            _ => Err(ErrorCode::ModelNotFound),
        }
    }
}

impl Door for Double {
    fn admit(&self, hello: &Hello) -> Result<Caller, Failure> {
        let key = hello.api_key.as_ref();
        if key.is_some_and(|key| key.id == WRONG_KEY) {
            return Err(Failure::new(ErrorCode::HostRefused, "no such key"));
        }
        Ok(Caller::ANONYMOUS)
    }

    fn check(&self, _caller: Caller) -> Result<(), Failure> {
        Ok(())
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    fn infer(&self, request: ClientRequest) -> Boxed<'_, Result<ClientAnswer, ClientFailure>> {
        self.asked.lock().unwrap().push(request.head.clone());
        self.changed.notify_waiters();
        Box::pin(async move {
            let mut unless_ended = CountsCancellation {
                double: self,
                has_ended: false,
            };
            let answered = self.answer(request).await;
            unless_ended.has_ended = true;
            match answered {
                Ok(outputs) => Ok(ClientAnswer {
                    version: VersionNumber(3),
                    epoch: self.epoch(),
                    outputs,
                    stale_seconds: None,
                }),
                Err(code) => Err(ClientFailure {
                    failure: Failure::new(code, "as the test wants it").retry_after_ms(40),
                    execution: Execution::NotExecuted,
                }),
            }
        })
    }

    /// One row a part.
    fn stream<'a>(
        &'a self,
        request: ClientRequest,
        taker: &'a mut dyn Taker<TensorPart>,
    ) -> Boxed<'a, Result<u64, ClientFailure>> {
        Box::pin(async move {
            let is_stuck = request.head.model.as_str() == "stuck-midway";
            let answer = self.infer(request).await?;
            let rows = answer.outputs.first().map_or(0, |(_, first)| first.rows());
            for row in 0..rows {
                let outputs = answer.outputs.iter();
                let outputs =
                    outputs.map(|(name, tensor)| (name.clone(), tensor.slice_rows(row..row + 1)));
                let part = TensorPart {
                    first_row: row,
                    answer: TensorAnswer {
                        outputs: outputs.collect(),
                        version: answer.version,
                        epoch: answer.epoch,
                        stale_seconds: None,
                    },
                };
                taker.begin(part).unwrap();
                while taker.moved().await.unwrap() == Moved::Some {}
                if is_stuck {
                    std::future::pending::<()>().await;
                }
            }
            Ok(rows)
        })
    }
}

struct CountsCancellation<'a> {
    double: &'a Double,
    has_ended: bool,
}

impl Drop for CountsCancellation<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.double.cancelled.fetch_add(1, Ordering::SeqCst);
            self.double.changed.notify_waiters();
        }
    }
}

/// How long a test waits for what must happen, on a machine that is busy with others.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
