//! One node of the real cluster: this program once more, with an engine that sleeps its cost.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use paceline_models::{
    Batch, CostCurve, DeviceSpec, Engine, LoadError, LoadedModel, MemoryUse, ModelDescription,
    ModelSource, RunError, StubEngine,
};
use paceline_node::engine::DeviceChoice;
use paceline_node::join::join;
use paceline_node::{Config, Node, Ports};
use paceline_protocol::{JoinToken, ModelName, Tensor};
use paceline_sim::Scenario;

/// What a node's process is given.
#[derive(Debug, Args)]
pub(crate) struct NodeArguments {
    /// Be a node with this directory, until standard input ends.
    #[arg(long, hide = true, value_name = "DIR")]
    node: Option<std::path::PathBuf>,
    /// Join by the member at this address.
    #[arg(long, hide = true, requires = "token", value_name = "ADDRESS")]
    seed: Option<String>,
    #[arg(long, hide = true, value_name = "TOKEN")]
    token: Option<JoinToken>,
}

/// A node's process. It ends when this is dropped.
pub(crate) struct Process {
    pub(crate) http: SocketAddr,
    sdk: SocketAddr,
    child: Child,
    /// Its input: a byte [`SLOW`] makes its engine ten times slower, any other one as fast as before.
    pub(crate) keeper: Option<ChildStdin>,
}

/// An engine that can be told to be ten times slower.
struct Slowable {
    engine: StubEngine,
    slow: Arc<AtomicBool>,
}

/// A version on it.
struct SlowableModel {
    model: Arc<dyn LoadedModel>,
    cost: CostCurve,
    slow: Arc<AtomicBool>,
}

impl Engine for Slowable {
    fn device(&self) -> DeviceSpec {
        self.engine.device()
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn LoadedModel>, LoadError> {
        Ok(Arc::new(SlowableModel {
            model: self.engine.load(source)?,
            cost: self.engine.cost,
            slow: self.slow.clone(),
        }))
    }
}

impl LoadedModel for SlowableModel {
    fn description(&self) -> &ModelDescription {
        self.model.description()
    }

    fn run(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Tensor>>, RunError> {
        let answers = self.model.run(batch)?;
        if self.slow.load(Ordering::Relaxed) {
            std::thread::sleep(self.cost.of(batch.rows()) * 9);
        }
        Ok(answers)
    }

    fn bytes(&self) -> MemoryUse {
        self.model.bytes()
    }
}

impl NodeArguments {
    /// Runs the node, if this process shall be one; says whether it was.
    pub(crate) fn run(&self, scenario: &Scenario) -> anyhow::Result<bool> {
        let Some(data) = &self.node else {
            return Ok(false);
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        runtime.block_on(self.serve(data, scenario))?;
        Ok(true)
    }

    async fn serve(&self, data: &Path, scenario: &Scenario) -> anyhow::Result<()> {
        let mut config = Config::default();
        config.node.data_dir = data.to_owned();
        config.http.listen.set_port(0);
        config.grpc.listen.set_port(0);
        config.metrics.listen.set_port(0);
        config.sdk.listen.set_port(0);
        config.peer.listen.set_port(0);
        config.device.kind = DeviceChoice::Cpu;
        let mut ports = Ports::production(&config)?;
        let cost = scenario.models[0].versions[0].cost;
        let slow = Arc::new(AtomicBool::new(false));
        ports.engine = Arc::new(Slowable {
            engine: StubEngine::new(CostCurve {
                fixed_us: cost.fixed_ns / 1_000,
                per_row_us: cost.row_ns / 1_000,
            }),
            slow: slow.clone(),
        });
        if let (Some(seed), Some(token)) = (&self.seed, &self.token) {
            config.node.name = join(&ports.root, seed, token, &config).await?.name;
        }
        let node = Box::pin(Node::start(config, ports)).await?;
        if self.seed.is_none() {
            let model = ModelName::new(&scenario.models[0].name)?;
            node.install(&model, MODEL).await?;
        }
        let addresses = node.addresses();
        println!(
            "{} {}",
            addresses.http,
            addresses.sdk.context("no SDK door")?
        );
        // Whoever started this node holds the other end, and says how fast it shall be.
        let ended = tokio::task::spawn_blocking(move || {
            std::io::stdin().lock().bytes().try_for_each(|byte| {
                slow.store(byte? == SLOW, Ordering::Relaxed);
                anyhow::Ok(())
            })
        });
        ended.await??;
        node.shutdown(Duration::from_secs(1)).await;
        Ok(())
    }
}

impl Process {
    /// The scenario's nodes, on each of which the model answers.
    pub(crate) fn cluster(folder: &Path, scenario: &Scenario) -> anyhow::Result<Vec<Self>> {
        let mut nodes = vec![Self::start(&folder.join("n0"), &[])?];
        for number in 1..scenario.nodes() {
            let seed = nodes[0].sdk.to_string();
            let created = ask(nodes[0].http, "POST", "/v2/paceline/tokens")?;
            let token = created["token"].as_str().context("no token")?;
            let joining = ["--seed", &seed, "--token", token];
            nodes.push(Self::start(&folder.join(format!("n{number}")), &joining)?);
        }
        let until = Instant::now() + START_LIMIT;
        let is_ready = |node: &Self| -> anyhow::Result<bool> {
            let models = ask(node.http, "GET", "/v2/paceline/models")?;
            let replicas = models[0]["replicas"].as_array().context("no model")?;
            let ready = replicas
                .iter()
                .filter(|replica| replica["state"] == "ready");
            Ok(ready.count() == nodes.len())
        };
        for node in &nodes {
            while !is_ready(node)? {
                if Instant::now() > until {
                    bail!("the model is not ready on every node");
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(nodes)
    }

    fn start(data: &Path, more: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--node")
            .arg(data)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("a node does not start")?;
        let keeper = child.stdin.take();
        let output = child.stdout.take().context("its output is piped")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let (http, sdk) = line
            .trim()
            .split_once(' ')
            .context("a node did not start")?;
        Ok(Self {
            http: http.parse()?,
            sdk: sdk.parse()?,
            child,
            keeper,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.keeper.take());
        // It may have ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(node: SocketAddr, method: &str, path: &str) -> anyhow::Result<serde_json::Value> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {node}\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n"
    );
    Ok(serde_json::from_slice(&crate::wire::ask_once(
        node,
        request.as_bytes(),
    )?)?)
}

/// Four floats that come back. What a batch costs, the engine knows.
const MODEL: &[(&str, &[u8])] = &[("model.toml", include_bytes!("model.toml"))];
/// What makes a node's engine slow.
pub(crate) const SLOW: u8 = b's';
const START_LIMIT: Duration = Duration::from_secs(60);
