//! `paceline up`: a cluster on this machine.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use paceline_protocol::limits::NODES_MAX;

use super::stop::Stop;
use crate::config::{Block, EngineKind};
use crate::up::{Cluster, Options, Report};

/// `paceline up`
#[derive(Debug, Args)]
pub struct Up {
    /// How many nodes: 1 to 64; as many as the directory has, or 3.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=NODES_MAX as i64))]
    nodes: Option<u16>,
    /// Where the nodes keep their data, node I in nI.
    #[arg(long, value_name = "DIR", default_value = "paceline-cluster")]
    data_dir: PathBuf,
    /// HTTP port of the first node; that of node I is 10 I above. 0 takes free ones.
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    http_port: u16,
    /// Bring the models digits, machine-failure and identity along, and ask each node something.
    #[arg(long)]
    demo: bool,
    /// What computes encoders: our kernels, or candle's operations, which they are held to.
    #[arg(long, value_name = "ENGINE", default_value = "kernels")]
    engine: EngineKind,
    /// Leave a node that dies dead.
    #[arg(long)]
    no_restart: bool,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  paceline up --demo
  paceline up --nodes 1 --data-dir /tmp/one --http-port 9000
  paceline --help; paceline nodes --context paceline-cluster/context.toml

It prints `ready` when every model answers on every node. A node that dies is started again
after 2 s. The first Ctrl-C stops the cluster, the second ends it at once; nothing that was
acknowledged is lost. What a node says stands in DIR/nI/log.";

impl Up {
    pub(super) fn run(self) -> Result<ExitCode, String> {
        let block = Block::at(self.http_port)?;
        let program = std::env::current_exe()
            .map_err(|error| format!("this program cannot find itself: {error}"))?;
        let options = Options {
            nodes: self.nodes.map(usize::from),
            data: self.data_dir,
            block,
            demo: self.demo,
            engine: self.engine,
            program,
            policy: paceline_core::up::Options {
                restarts: !self.no_restart,
                ..paceline_core::up::Options::default()
            },
        };
        // The nodes compute; their supervisor only waits.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("the runtime does not start: {error}"))?;
        let well = runtime.block_on(async {
            let mut stop = Stop::of_process(Duration::ZERO);
            let mut cluster = Cluster::prepare(options, Report::of_process())
                .map_err(|error| error.to_string())?;
            Ok::<_, String>(cluster.run(async || stop.asked().await).await)
        });
        // A node that is being asked something is not waited for.
        runtime.shutdown_background();
        Ok(if well? {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
