//! Arguments that every command which asks a node shares: whom, how long, and in which format.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::api::{ApiError, NodeAddress, OperatorClient};

use super::terminal::{Terminal, visible};
use super::units::parse_duration;

/// Whom to ask and how long.
#[derive(Clone, Debug, Args)]
pub(crate) struct Connection {
    /// HTTP address of any node of the cluster: HOST, HOST:PORT, :PORT, with or without http://
    #[arg(
        long,
        value_name = "HOST[:PORT]",
        env = "PACELINE_ADDR",
        default_value = "127.0.0.1:8000"
    )]
    addr: NodeAddress,
    /// How long to try or wait: 500ms, 30s, 5m, 1h; the default depends on the command
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
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
    pub(crate) fn client(&self, terminal: &Terminal, default: Duration) -> OperatorClient {
        self.client_within(terminal, self.timeout_or(default))
    }

    /// The same with a timeout that is decided already.
    pub(crate) fn client_within(&self, terminal: &Terminal, timeout: Duration) -> OperatorClient {
        let talk = terminal.talk();
        OperatorClient::new(self.addr.clone(), timeout)
            .with_notice(move |error: &ApiError| talk.say(&format!("trying again: {error}")))
    }

    pub(crate) fn timeout_or(&self, default: Duration) -> Duration {
        self.timeout.unwrap_or(default)
    }

    /// The time that was asked for, if one was.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }
}

/// A cell that may be missing.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| visible(&value.to_string()))
}
