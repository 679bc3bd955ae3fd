//! The node's commands: `serve`, `config check`, `config print`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::config::{Config, Sources};
use crate::demo::install_demo;
use crate::node::{Node, NodeHandle, Ports};
use crate::telemetry::logging;

/// What a node can be told to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one node in the foreground.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Serve),
    /// Look at a node's configuration without starting it.
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// `paceline config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether the configuration is good; exit 1 if not.
    #[command(after_help = "Examples:\n  paceline config check --config node.toml")]
    Check(ConfigArgs),
    /// Print the effective configuration, with every default.
    #[command(
        after_help = "Examples:\n  paceline config print > node.toml\n  paceline config print --config node.toml --set http.listen=127.0.0.1:9000 -o json"
    )]
    Print {
        /// Where it comes from.
        #[command(flatten)]
        config: ConfigArgs,
        /// How it is written.
        #[arg(short, long, value_enum, default_value_t = ConfigFormat::Toml)]
        output: ConfigFormat,
    },
}

/// How a configuration is written.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum ConfigFormat {
    /// As the file that can be read back.
    Toml,
    /// As JSON.
    Json,
}

/// Where a configuration comes from: defaults, then a file, then `PACELINE__SECTION__KEY`
/// variables, then flags.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Configuration file (TOML); `paceline config print` shows every key.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the node keeps its log, snapshots and artifacts [default: paceline-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// First port of the node's block: HTTP here, metrics two above [default: 8000].
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Allow addresses other than loopback without encryption and keys.
    #[arg(long)]
    insecure: bool,
    /// Set one option, e.g. admission.permits=100; may be repeated.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

/// `paceline serve`
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    config: ConfigArgs,
    /// Bring the models digits, machine-failure and identity along.
    #[arg(long)]
    demo: bool,
}

const SERVE_EXAMPLES: &str = "\
Examples:
  paceline serve --demo
  paceline serve --data-dir /var/lib/paceline --http-port 9000
  paceline serve --config node.toml --set log.format=json

A node stops at the first Ctrl-C or SIGTERM: what is in flight finishes within 5 s.
A second Ctrl-C ends it at once; nothing that was acknowledged is lost.";

impl Command {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// What is in the way, in a sentence.
    pub fn run(self) -> Result<ExitCode, String> {
        match self {
            Self::Serve(serve) => serve.run(),
            Self::Config(ConfigCommand::Check(config)) => {
                config.load()?;
                eprintln!("the configuration is good");
                Ok(ExitCode::SUCCESS)
            }
            Self::Config(ConfigCommand::Print { config, output }) => {
                let config = config.load()?;
                let text = match output {
                    ConfigFormat::Toml => config.print(),
                    ConfigFormat::Json => {
                        serde_json::to_string_pretty(&config).map_err(|error| error.to_string())?
                    }
                };
                println!("{}", text.trim_end());
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

impl ConfigArgs {
    fn load(self) -> Result<Config, String> {
        let mut flags = Vec::new();
        let mut flag = |key: &str, value: String| flags.push((key.to_owned(), value));
        if let Some(directory) = self.data_dir {
            flag(
                "node.data_dir",
                toml::Value::String(directory.display().to_string()).to_string(),
            );
        }
        if let Some(port) = self.http_port {
            let metrics = match port {
                0 => 0,
                port => port
                    .checked_add(2)
                    .ok_or("--http-port must leave room for two more")?,
            };
            flag("http.listen", format!("127.0.0.1:{port}"));
            flag("metrics.listen", format!("127.0.0.1:{metrics}"));
        }
        if self.insecure {
            flag("node.insecure", "true".to_owned());
        }
        for pair in self.set {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("--set {pair}: expected SECTION.KEY=VALUE"))?;
            flag(key, value.to_owned());
        }
        let environment = std::env::vars().collect();
        Config::load(&Sources {
            file: self.config,
            environment,
            flags,
        })
        .map_err(|error| error.to_string())
    }
}

impl Serve {
    fn run(self) -> Result<ExitCode, String> {
        let demo = self.demo;
        let config = self.config.load()?;
        logging::install(&config.log).map_err(|error| error.to_string())?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // Device threads need the rest; on few cores a second one only adds tail latency.
            .worker_threads((cores / 2).max(1))
            .thread_name("io")
            .enable_all()
            .build()
            .map_err(|error| format!("the runtime does not start: {error}"))?;
        let code = runtime.block_on(serve(config, demo));
        runtime.shutdown_timeout(Duration::from_secs(1));
        code
    }
}

async fn serve(config: Config, demo: bool) -> Result<ExitCode, String> {
    let ports = Ports::production(&config).map_err(|error| error.to_string())?;
    let data = config.node.data_dir.clone();
    let starting = Node::start(config, ports);
    let node = tokio::select! {
        started = starting => started.map_err(|error| error.to_string())?,
        () = asked_to_stop() => return Ok(ExitCode::SUCCESS),
    };
    if demo {
        tokio::select! {
            installed = install_demo(&node) => drop(installed.map_err(|error| error.to_string())?),
            () = asked_to_stop() => {
                node.shutdown(SHUTDOWN_LIMIT).await;
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    announce(&node, &data, demo);
    tokio::select! {
        () = asked_to_stop() => {
            eprintln!("stopping; what is in flight has 5 s (Ctrl-C again to end at once)");
            tokio::select! {
                () = node.shutdown(SHUTDOWN_LIMIT) => Ok(ExitCode::SUCCESS),
                () = asked_to_stop() => Ok(ExitCode::FAILURE),
            }
        }
        reason = fatal(&node) => Err(reason),
    }
}

/// Resolves when consensus ended in a way that leaves the disk's content unknown.
async fn fatal(node: &NodeHandle) -> String {
    let reason = node.stopped().await;
    if !reason.is_fatal() {
        tracing::error!(%reason, "the registry can no longer be written; inference goes on");
        std::future::pending::<()>().await;
    }
    reason.to_string()
}

async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        // Without it, Ctrl-C still works.
        Err(_) => return drop(tokio::signal::ctrl_c().await),
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

fn announce(node: &NodeHandle, data: &std::path::Path, demo: bool) {
    let addresses = node.addresses();
    let http = addresses.http;
    println!(
        "ready   http://{http}   metrics http://{}/metrics   data {}",
        addresses.metrics,
        data.display()
    );
    if demo {
        println!("
Try:
  curl -s http://{http}/v2/models/machine-failure/infer -d '{{\"inputs\":[{{\"name\":\"features\",\"shape\":[1,8],\"datatype\":\"FP32\",\"data\":[1,0,0,302.3,311.5,1282,60.7,216]}}]}}'
  paceline infer machine-failure --row 1,0,0,302.3,311.5,1282,60.7,216
  paceline model list
  paceline status");
    }
}

/// How long requests in flight may take when the node stops.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
