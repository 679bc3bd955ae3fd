//! The node's commands: `up`, `serve`, `join`, `config check`, `config print`.

mod arguments;
mod join;
mod serve;
mod stop;
mod up;

use std::process::ExitCode;

use clap::Subcommand;

pub use self::arguments::ConfigArgs;
pub use self::join::Join;
pub use self::serve::Serve;
pub use self::up::Up;

/// What a node can be told to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a cluster on this machine, one process a node.
    #[command(after_help = up::EXAMPLES)]
    Up(Up),
    /// Run one node in the foreground.
    #[command(after_help = serve::EXAMPLES)]
    Serve(Serve),
    /// Let this machine's node join a cluster, and run it in the foreground.
    #[command(after_help = join::EXAMPLES)]
    Join(Join),
    /// Look at a node's configuration without starting it.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Be the engine of one replica, for a node whose engines are processes, or see whether a GPU works.
    #[command(hide = true)]
    Engine,
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

impl Command {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// What is in the way, in a sentence.
    pub fn run(self) -> Result<ExitCode, String> {
        match self {
            Self::Up(up) => up.run(),
            Self::Serve(serve) => serve.run(),
            Self::Join(join) => join.run(),
            Self::Engine => crate::engine::serve()
                .map(|()| ExitCode::SUCCESS)
                .map_err(|error| format!("no node speaks on standard input: {error}")),
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
