//! `paceline serve`: one node in the foreground.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::arguments::ConfigArgs;
use super::join::{JoinOptions, is_member, join_cluster};
use super::stop::Stop;
use crate::config::Config;
use crate::demo::install_demo;
use crate::join::keep_configuration;
use crate::node::{Node, NodeHandle, Ports};
use crate::telemetry::logging;

/// `paceline serve`
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    config: ConfigArgs,
    /// Bring the models digits, machine-failure and identity along.
    #[arg(long)]
    demo: bool,
    #[command(flatten)]
    kept: Kept,
}

/// Who keeps the node.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Kept {
    /// Stop when standard input ends: whoever started this node and held the other end is gone.
    #[arg(long)]
    keeper: bool,
}

/// How a node comes into its cluster.
pub(super) enum Entry {
    /// It is a member, or founds a cluster; the demo's models are brought along if wanted.
    Serve { demo: bool },
    /// It joins first.
    Join(JoinOptions),
}

pub(super) const EXAMPLES: &str = "\
Examples:
  paceline serve --demo
  paceline serve --data-dir /var/lib/paceline --http-port 9000
  paceline serve --advertise 10.0.0.5 --zone rack-1
  paceline serve --tls-cert cert.pem --tls-key key.pem --set admission.keys_required=true \\
    --set http.listen=10.0.0.5:8000
  paceline serve --config node.toml --set log.format=json

The first start keeps what it was given in DIR/node.toml, so that later `serve --data-dir DIR`
suffices; a flag that differs wins for that start. A node stops at the first Ctrl-C or SIGTERM: what is in flight finishes within 5 s.
A second Ctrl-C ends it at once; nothing that was acknowledged is lost.";

impl Serve {
    pub(super) fn run(self) -> Result<ExitCode, String> {
        let entry = Entry::Serve { demo: self.demo };
        self.kept.run(self.config.load()?, entry)
    }
}

impl Kept {
    /// Runs a node until it is asked to stop.
    pub(super) fn run(self, config: Config, entry: Entry) -> Result<ExitCode, String> {
        logging::install(&config.log).map_err(|error| error.to_string())?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // Device threads need the rest; on few cores a second one only adds tail latency.
            .worker_threads((cores / 2).max(1))
            .thread_name("io")
            .enable_all()
            .build()
            .map_err(|error| format!("the runtime does not start: {error}"))?;
        let code = runtime.block_on(async {
            let mut stop = Stop::of_process(SHUTDOWN_LIMIT + KEEPER_GRACE);
            if self.keeper {
                stop.hold_to_stdin()
                    .map_err(|error| format!("the keeper's thread does not start: {error}"))?;
            }
            run(config, entry, stop).await
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
        code
    }
}

async fn run(mut config: Config, entry: Entry, mut stop: Stop) -> Result<ExitCode, String> {
    let demo = match entry {
        Entry::Serve { demo } => demo,
        Entry::Join(options) => {
            tokio::select! {
                joined = join_cluster(&config, options) => config.node.name = joined?,
                () = stop.asked() => return Ok(ExitCode::SUCCESS),
            }
            false
        }
    };
    // A GPU may take seconds to answer, or never do.
    let seen = config.clone();
    let opening = tokio::task::spawn_blocking(move || Ports::production(&seen));
    let ports = tokio::select! {
        opened = opening => opened
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?,
        () = stop.asked() => return Ok(ExitCode::SUCCESS),
    };
    let data = config.node.data_dir.clone();
    let scheme = if config.tls.files().is_some() {
        "https"
    } else {
        "http"
    };
    // The cluster's first node keeps what it was given, as those do that join.
    let kept = (!is_member(&data)).then(|| config.kept());
    let root = ports.root.clone();
    let starting = Box::pin(Node::start(config, ports));
    let node = tokio::select! {
        started = starting => started.map_err(|error| error.to_string())?,
        () = stop.asked() => return Ok(ExitCode::SUCCESS),
    };
    if let Some(kept) = kept {
        keep_configuration(&root, &kept)
            .map_err(|error| format!("'{}' cannot be written: {error}", data.display()))?;
    }
    if demo {
        tokio::select! {
            installed = install_demo(&node) => drop(installed.map_err(|error| error.to_string())?),
            () = stop.asked() => {
                node.shutdown(SHUTDOWN_LIMIT).await;
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    announce(&node, (&data, scheme), demo);
    tokio::select! {
        () = stop.asked() => {
            eprintln!("stopping; what is in flight has 5 s (Ctrl-C again to end at once)");
            tokio::select! {
                () = node.shutdown(SHUTDOWN_LIMIT) => Ok(ExitCode::SUCCESS),
                () = stop.asked() => Ok(ExitCode::FAILURE),
            }
        }
        () = node.removed() => {
            eprintln!("this node was removed from its cluster; stopping");
            node.shutdown(SHUTDOWN_LIMIT).await;
            Ok(ExitCode::SUCCESS)
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

fn announce(node: &NodeHandle, (data, scheme): (&Path, &str), demo: bool) {
    let addresses = node.addresses();
    let http = addresses.http;
    let grpc = addresses
        .grpc
        .map_or_else(String::new, |grpc| format!("   grpc {grpc}"));
    println!(
        "ready   {scheme}://{http}{grpc}   metrics http://{}/metrics   data {}",
        addresses.metrics,
        data.display()
    );
    if demo {
        println!("
Try:
  curl -s {scheme}://{http}/v2/models/machine-failure/infer -d '{{\"inputs\":[{{\"name\":\"features\",\"shape\":[1,8],\"datatype\":\"FP32\",\"data\":[1,0,0,302.3,311.5,1282,60.7,216]}}]}}'
  paceline infer machine-failure --row 1,0,0,302.3,311.5,1282,60.7,216
  paceline model list
  paceline status");
    }
}

/// How long requests in flight may take when the node stops.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
/// How much longer a node whose keeper is gone may take to close its log; then it is ended.
const KEEPER_GRACE: Duration = Duration::from_secs(2);
