//! Arguments that every command which asks a node shares: whom, how long, and in which format.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use paceline_protocol::tenant::{ApiKey, ApiKeyError};

use crate::api::{ApiError, ClusterAddress, Freshness, NodeAddress, OperatorClient};

use super::context;
use super::failure::Failure;
use super::terminal::{Terminal, visible};
use super::units::parse_duration;

/// Whom to ask and how long.
#[derive(Clone, Debug, Args)]
pub(crate) struct Connection {
    /// HTTP address of any node of the cluster: HOST, HOST:PORT, :PORT, with or without http://, or
    /// https:// with a --ca; 127.0.0.1:8000 unless a context names others
    #[arg(long, value_name = "HOST[:PORT]", env = "PACELINE_ADDR")]
    addr: Option<NodeAddress>,
    /// File that says where the cluster is, as `paceline up` writes it; its nodes are tried in
    /// turn. An --addr wins over it
    #[arg(long, value_name = "FILE", env = "PACELINE_CONTEXT")]
    context: Option<PathBuf>,
    /// Certificates of the authorities (PEM) that nodes reached by https:// are checked against; the
    /// context's http_ca unless given
    #[arg(long, value_name = "FILE", env = "PACELINE_CA")]
    ca: Option<PathBuf>,
    /// Key that says who you are, as `paceline tenant key add` prints it; the context's unless given
    #[arg(
        long,
        value_name = "pk_…",
        env = "PACELINE_API_KEY",
        hide_env_values = true,
        value_parser = parse_key
    )]
    api_key: Option<ApiKey>,
    /// How long to try or wait: 500ms, 30s, 5m, 1h; the default depends on the command
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// What a read has to show.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Consistency {
    /// Show what a quorum knows, not what the node that is asked has applied; fails without one
    #[arg(long)]
    consistent: bool,
}

/// How data is printed.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Output {
    /// How to print: an aligned table with readable units, or JSON with exact figures
    #[arg(
        short = 'o',
        long,
        value_enum,
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub(crate) format: Format,
}

/// A format of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

impl Connection {
    /// A client that tells on stderr when it has to try again.
    ///
    /// # Errors
    /// The context cannot be read.
    pub(crate) fn client(
        &self,
        terminal: &Terminal,
        default: Duration,
    ) -> Result<OperatorClient, Failure> {
        self.client_within(terminal, self.timeout_or(default))
    }

    /// The same with a timeout that is decided already.
    ///
    /// # Errors
    /// The context cannot be read.
    pub(crate) fn client_within(
        &self,
        terminal: &Terminal,
        timeout: Duration,
    ) -> Result<OperatorClient, Failure> {
        let talk = terminal.talk();
        let client = OperatorClient::new(self.cluster()?, timeout);
        Ok(client.with_notice(move |error: &ApiError| talk.say(&format!("trying again: {error}"))))
    }

    /// Where the cluster is: the address that was given, else the context's nodes, else a node
    /// on this machine.
    ///
    /// # Errors
    /// The context cannot be read.
    pub(crate) fn cluster(&self) -> Result<ClusterAddress, Failure> {
        let mut cluster = match (&self.addr, &self.context) {
            (Some(address), _) => address.clone().into(),
            (None, Some(file)) => context::read(file)?,
            (None, None) => NodeAddress::default().into(),
        };
        if let Some(file) = &self.ca {
            cluster.authority = Some(context::authority(file)?);
        }
        let secure = cluster.nodes.iter().find(|node| node.is_secure());
        if let Some(node) = secure.filter(|_| cluster.authority.is_none()) {
            return Err(Failure::Usage(format!(
                "{node} needs a --ca FILE or PACELINE_CA: whom its certificate must lead to"
            )));
        }
        if let Some(key) = &self.api_key {
            cluster.api_key = Some(key.reveal());
        }
        Ok(cluster)
    }

    pub(crate) fn timeout_or(&self, default: Duration) -> Duration {
        self.timeout.unwrap_or(default)
    }

    /// The time that was asked for, if one was.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }
}

fn parse_key(text: &str) -> Result<ApiKey, String> {
    text.parse().map_err(|error: ApiKeyError| error.to_string())
}

impl Consistency {
    pub(crate) fn freshness(self) -> Freshness {
        if self.consistent {
            Freshness::Consistent
        } else {
            Freshness::Local
        }
    }
}

/// A cell that may be missing.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| visible(&value.to_string()))
}
