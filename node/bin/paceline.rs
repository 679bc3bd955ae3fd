//! The binary: turns arguments into a command of client, node or simulator, and nothing else.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A real-time inference cluster in one binary.
///
/// Start three nodes with models to try: `paceline up --demo`. Then ask one of them something:
/// `paceline infer machine-failure --row 1,0,0,302.3,311.5,1282,60.7,216`.
#[derive(Debug, Parser)]
#[command(
    name = "paceline",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = EXAMPLES
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Node(Box<paceline_node::command::Command>),
    #[command(flatten)]
    Client(Box<paceline_client::cli::Command>),
    /// Run scenarios against the same decisions in invented time.
    #[command(subcommand)]
    Sim(paceline_sim::Command),
    /// Print the version.
    #[command(after_help = "Examples:\n  paceline version\n  paceline version -o json")]
    Version {
        /// How it is written.
        #[arg(short, long, value_enum, default_value_t = VersionFormat::Text)]
        output: VersionFormat,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum VersionFormat {
    Text,
    Json,
}

const EXAMPLES: &str = "\
Examples:
  paceline up --demo                              a cluster on this machine
  paceline serve --demo                           one node
  paceline model push risk ./risk --deploy        a model of your own
  paceline serve --advertise 10.0.0.5             a node that other machines reach
  paceline join 10.0.0.5:8003 --token pcl1.… --advertise 10.0.0.6

Every command has examples in its own --help.";

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Node(command) => command.run(),
        Command::Client(command) => Ok(command.run()),
        Command::Sim(command) => command.run().map_err(|error| format!("{error:#}")),
        Command::Version { output } => {
            let version = env!("CARGO_PKG_VERSION");
            match output {
                VersionFormat::Text => println!("paceline {version}"),
                VersionFormat::Json => println!("{{\"version\":\"{version}\"}}"),
            }
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}
