//! A node in this process, with its doors open to all on this machine, whose engine counts the rows
//! that it runs and can be held at its next batch.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use paceline_client::{ClientOptions, Trust};
use paceline_models::{
    Batch, CostCurve, DeviceSpec, Engine, LoadError, LoadedModel, MemoryUse, ModelDescription,
    ModelSource, RunError, StubEngine,
};
use paceline_node::engine::DeviceChoice;
use paceline_node::{Config, Node, NodeHandle, Ports};
use paceline_protocol::{ModelName, Tensor};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::http::{Connection, Request};
use crate::metrics::{Sample, samples};
use crate::node::{directory, until};

/// Rows of a batch of `steps`.
pub(crate) const STEP: u64 = 4;
/// Rows of a batch of `wide`, whose answer takes 1 MiB.
pub(crate) const WIDE: u64 = 8;
const STEPS: &str = r#"
name = "steps"
family = "mlp"
[[inputs]]
name = "x"
dtype = "FP32"
shape = [-1, 2]
[[outputs]]
name = "y"
dtype = "FP32"
shape = [-1, 2]
[batching]
rows_max = 4
[mlp]
weights = "model.safetensors"
activation = "relu"
head = "softmax"
labels = ["no", "yes"]
"#;
const WIDE_ONE: &str = r#"
name = "wide"
family = "mlp"
[[inputs]]
name = "x"
dtype = "FP32"
shape = [-1, 2]
[[outputs]]
name = "y"
dtype = "FP32"
shape = [-1, 32768]
[batching]
rows_max = 8
[mlp]
weights = "model.safetensors"
activation = "relu"
head = "softmax"
labels = ["no", "yes"]
"#;
const FILES: [(&str, Files); 2] = [
    ("steps", &[("model.toml", STEPS.as_bytes())]),
    ("wide", &[("model.toml", WIDE_ONE.as_bytes())]),
];
/// Files of a model by their names.
type Files = &'static [(&'static str, &'static [u8])];
/// How long something may take that must happen, on a machine that is busy with others.
const LIMIT: Duration = Duration::from_secs(60);

/// The node.
pub(crate) struct Counting {
    pub(crate) runtime: Runtime,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    /// Scripts its failures.
    pub(crate) stub: StubEngine,
    metrics: SocketAddr,
    sdk: SocketAddr,
    ledger: Arc<Ledger>,
    node: Option<NodeHandle>,
    home: TempDir,
}

/// What was run, and what may be.
struct Ledger {
    rows: AtomicU64,
    /// Batches that may be begun.
    allowed: Mutex<u64>,
    changed: Condvar,
}

struct CountingEngine {
    stub: StubEngine,
    ledger: Arc<Ledger>,
}

struct CountingModel {
    stub: Arc<dyn LoadedModel>,
    ledger: Arc<Ledger>,
}

impl Counting {
    /// A node with `steps` and `wide`, whose batches take so long.
    pub(crate) fn start(batch: Duration) -> Self {
        Self::with(batch, |_config| {})
    }

    /// The same with a configuration of its own.
    pub(crate) fn with(batch: Duration, configure: impl FnOnce(&mut Config)) -> Self {
        let home = directory();
        let fixed_us = u64::try_from(batch.as_micros()).expect("it is short");
        let stub = StubEngine::new(CostCurve {
            fixed_us,
            per_row_us: 0,
        });
        let ledger = Arc::new(Ledger {
            rows: AtomicU64::new(0),
            allowed: Mutex::new(u64::MAX),
            changed: Condvar::new(),
        });
        let mut config = Config::default();
        config.node.data_dir = home.path().to_owned();
        for listen in [
            &mut config.http.listen,
            &mut config.grpc.listen,
            &mut config.metrics.listen,
            &mut config.sdk.listen,
            &mut config.peer.listen,
        ] {
            listen.set_port(0);
        }
        config.device.kind = DeviceChoice::Cpu;
        configure(&mut config);
        let mut ports = Ports::production(&config).expect("the directory is writable");
        ports.engine = Arc::new(CountingEngine {
            stub: stub.clone(),
            ledger: ledger.clone(),
        });
        let runtime = Runtime::new().expect("threads can be started");
        let node = runtime.block_on(Box::pin(Node::start(config, ports)));
        let node = node.expect("the node starts");
        for (model, files) in FILES {
            let model = ModelName::new(model).expect("a name");
            let installed = runtime.block_on(node.install(&model, files));
            installed.expect("the model is taken");
            assert!(runtime.block_on(node.wait_ready(&model, LIMIT)));
        }
        let addresses = node.addresses();
        Self {
            runtime,
            http: addresses.http,
            grpc: addresses.grpc.expect("its door for gRPC is open"),
            stub,
            metrics: addresses.metrics,
            sdk: addresses.sdk.expect("its door for SDKs is open"),
            ledger,
            node: Some(node),
            home,
        }
    }

    /// How an SDK finds it.
    pub(crate) fn seed(&self) -> ([String; 1], ClientOptions) {
        let pem = std::fs::read_to_string(self.home.path().join("ca.crt")).expect("it is there");
        let options = ClientOptions::new(Trust::Authority(pem));
        ([self.sdk.to_string()], options)
    }

    /// Rows whose batches were begun, by the engine's own count.
    pub(crate) fn rows(&self) -> u64 {
        self.ledger.rows.load(Ordering::SeqCst)
    }

    /// Lets so many batches run from now on; others begin and wait.
    pub(crate) fn allow(&self, batches: u64) {
        self.ledger.allow(batches);
    }

    /// Begins to stop the node, and tells when it has stopped.
    pub(crate) fn stop(&mut self) -> tokio::task::JoinHandle<()> {
        let node = self.node.take().expect("it runs");
        let stopping = async move { node.shutdown(LIMIT).await };
        self.runtime.spawn(stopping)
    }

    /// Lets all run.
    pub(crate) fn open(&self) {
        self.ledger.allow(u64::MAX);
    }

    /// Waits until the engine has begun so many rows.
    pub(crate) fn until_rows(&self, rows: u64) {
        until(LIMIT, "the engine begins them", || self.rows() >= rows);
    }

    /// Waits until the engine has nothing to do for a while, and says how many rows it has begun.
    pub(crate) fn settled(&self) -> u64 {
        let mut rows = self.rows();
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = self.rows();
            if now == rows {
                return rows;
            }
            rows = now;
        }
    }

    /// What a metric says of the series with these labels; 0 if there is none.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let answer = Connection::open(self.metrics).ask(&Request::get("/metrics"));
        let has = |sample: &Sample| {
            let mut labels = labels.iter();
            sample.name == name && labels.all(|(key, value)| sample.label(key) == Some(*value))
        };
        let found = samples(answer.text());
        let found = found.iter().find(|sample| has(sample));
        found.map_or(0.0, |sample| sample.value)
    }

    /// Connections over HTTP that are open.
    pub(crate) fn connections(&self) -> usize {
        self.metric("paceline_gateway_http_connections", &[]) as usize
    }

    /// Waits until something holds of a metric.
    pub(crate) fn until_metric(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        is_so: impl Fn(f64) -> bool,
    ) {
        let what = format!("{name} {labels:?} is as it should be");
        until(LIMIT, &what, || is_so(self.metric(name, labels)));
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.open();
        if let Some(node) = self.node.take() {
            self.runtime.block_on(node.shutdown(Duration::from_secs(5)));
        }
    }
}

impl Ledger {
    fn allow(&self, batches: u64) {
        *self.allowed.lock().unwrap_or_else(PoisonError::into_inner) = batches;
        self.changed.notify_all();
    }

    /// Counts rows, and waits until their batch may run.
    fn begin(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::SeqCst);
        let allowed = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(allowed, LIMIT, |left| *left == 0);
        let (mut allowed, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *allowed < u64::MAX {
            *allowed = allowed.saturating_sub(1);
        }
    }
}

impl Engine for CountingEngine {
    fn device(&self) -> DeviceSpec {
        self.stub.device()
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn LoadedModel>, LoadError> {
        let stub = self.stub.load(source)?;
        let ledger = self.ledger.clone();
        Ok(Arc::new(CountingModel { stub, ledger }))
    }
}

impl LoadedModel for CountingModel {
    fn description(&self) -> &ModelDescription {
        self.stub.description()
    }

    fn run(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Tensor>>, RunError> {
        let mut first = Vec::new();
        batch.requests()[0][0].extend_f32(&mut first);
        // Warm-ups run zeros.
        if first[0] > 0.0 {
            self.ledger.begin(batch.rows());
        }
        self.stub.run(batch)
    }

    fn bytes(&self) -> MemoryUse {
        self.stub.bytes()
    }
}
