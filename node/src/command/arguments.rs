//! Arguments that every command has which looks at a node's configuration.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use crate::config::{Block, Config, EngineKind, Sources};

/// Where a configuration comes from: defaults, then what the data directory keeps, then a file,
/// then `PACELINE__SECTION__KEY` variables, then flags.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Configuration file (TOML); `paceline config print` shows every key.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the node keeps its log, snapshots and artifacts [default: paceline-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The node's name, for people [default: n0].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where it stands; replicas are spread over zones [default: default].
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// First port of the node's block: HTTP here, gRPC one above, metrics two above, then QUIC for
    /// SDKs and for other nodes [default: 8000].
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Address by which other machines reach this one: the QUIC ports are there, and others are
    /// told so [default: none, this machine only].
    #[arg(long, value_name = "IP")]
    advertise: Option<IpAddr>,
    /// Certificate for HTTP and gRPC and those that lead to its authority (PEM): their ports speak
    /// TLS then, and take what changes in the file.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of that certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// What computes encoders: our kernels, or candle's operations, which they are held to [default:
    /// kernels].
    #[arg(long, value_name = "ENGINE")]
    engine: Option<EngineKind>,
    /// Allow HTTP, gRPC and metrics on other addresses than loopback without TLS and keys, and for
    /// whatever Host and Origin.
    #[arg(long)]
    insecure: bool,
    /// Set one option, e.g. admission.permits=100; may be repeated.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArgs {
    /// Composes and checks the configuration.
    ///
    /// # Errors
    /// The key, its value and what is allowed.
    pub(super) fn load(self) -> Result<Config, String> {
        let mut flags = Vec::new();
        let mut flag = |key: &str, value: String| flags.push((key.to_owned(), value));
        let text = |value: String| toml::Value::String(value).to_string();
        if let Some(directory) = self.data_dir {
            flag("node.data_dir", text(directory.display().to_string()));
        }
        if let Some(name) = self.name {
            flag("node.name", text(name));
        }
        if let Some(zone) = self.zone {
            flag("node.zone", text(zone));
        }
        if let Some(port) = self.http_port {
            for (key, listen) in Block::at(port)?.listens() {
                flag(key, listen.to_string());
            }
        }
        if let Some(advertise) = self.advertise {
            flag("node.advertise", text(advertise.to_string()));
        }
        for (key, file) in [("tls.cert", self.tls_cert), ("tls.key", self.tls_key)] {
            if let Some(file) = file {
                flag(key, text(file.display().to_string()));
            }
        }
        if let Some(engine) = self.engine {
            flag("device.engine", text(engine.name().to_owned()));
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
