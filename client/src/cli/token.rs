//! `paceline token`: secrets that let new nodes join.

use std::time::Duration;

use clap::{Args, Subcommand};
use paceline_protocol::limits::{NODES_MAX, TOKEN_TTL_MAX_MS};
use paceline_protocol::operator::{TokenCreated, TokenRequest, TokenView};

use super::connection::{Connection, Output};
use super::failure::Failure;
use super::operation::{Operation, committed, unsettled};
use super::table::{Side, Table};
use super::terminal::Terminal;
use super::units::{self, parse_duration};

/// What can be done with join tokens.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub enum TokenCommand {
    /// Make a token and print it; it is shown this once
    Create(CreateArgs),
    /// List the tokens that can still be used
    List(ListArgs),
    /// Make a token useless
    Revoke(RevokeArgs),
}

/// Arguments of `paceline token create`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  paceline token create
  paceline token create --ttl 24h --uses 5
  paceline join 127.0.0.1:8003 --token \"$(paceline token create)\" --http-port 8010 --data-dir second

Elsewhere, give the token to `paceline join`, with the SDK address of any node.")]
pub struct CreateArgs {
    /// For how long it can be used, at most 168h
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_ttl)]
    ttl: Duration,
    /// How many nodes can join with it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=NODES_MAX as i64))]
    uses: u32,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Arguments of `paceline token list`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  paceline token list
  paceline token list -o json | jq '.[].id'")]
pub struct ListArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Arguments of `paceline token revoke`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Nodes that have joined with it stay.

Examples:
  paceline token revoke 4jwkfaqburuo6")]
pub struct RevokeArgs {
    /// The token's id, as `paceline token list` shows it
    #[arg(value_name = "ID", value_parser = parse_id)]
    id: String,
    #[command(flatten)]
    operation: Operation,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// An election and a few repeats fit.
const TIMEOUT: Duration = Duration::from_secs(30);

impl TokenCommand {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        match self {
            Self::Create(args) => args.run(terminal),
            Self::List(args) => args.run(terminal),
            Self::Revoke(args) => args.run(terminal),
        }
    }
}

impl CreateArgs {
    fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let client = self.connection.client(terminal, TIMEOUT)?;
        let request = TokenRequest {
            ttl_ms: Some(u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX)),
            uses: Some(self.uses),
        };
        let created = client.create_token(&request)?;
        terminal.talk().say(&format!(
            "token {} for {} within {}; it is shown this once",
            created.id,
            units::counted(self.uses as usize, "node"),
            units::seconds(self.ttl.as_secs())
        ));
        // Alone on stdout, so that a script can use it as it is.
        terminal.show(self.output.format, &created, |created: &TokenCreated| {
            format!("{}\n", super::terminal::visible(&created.token))
        })
    }
}

impl ListArgs {
    fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let tokens = self.connection.client(terminal, TIMEOUT)?.tokens()?;
        let now_ms = wall_ms();
        terminal.show(self.output.format, &tokens, |tokens| table(tokens, now_ms))
    }
}

impl RevokeArgs {
    fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let op = self.operation.op()?;
        let command = format!("token revoke {}", self.id);
        let client = self.connection.client(terminal, TIMEOUT)?;
        let done = client
            .revoke_token(&self.id, op)
            .map_err(unsettled(&command, op))?;
        terminal.show(self.output.format, &done, |done| {
            format!("revoked {}: {}\n", self.id, committed(done))
        })
    }
}

fn table(tokens: &[TokenView], now_ms: u64) -> String {
    let mut table = Table::new([
        ("ID", Side::Left),
        ("EXPIRES IN", Side::Right),
        ("USES LEFT", Side::Right),
    ]);
    for token in tokens {
        // Their clock and ours may differ by more than is left.
        let left_ms = token.expires_ms.saturating_sub(now_ms);
        table.row([
            token.id.clone(),
            units::seconds(left_ms / 1_000),
            token.uses_left.to_string(),
        ]);
    }
    table.render()
}

fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    let most = Duration::from_millis(TOKEN_TTL_MAX_MS);
    match parse_duration(text)? {
        ttl if ttl <= most => Ok(ttl),
        _ => Err(format!(
            "a token lives for at most {} hours",
            most.as_secs() / 3_600
        )),
    }
}

/// An id becomes part of a path, so it has nothing that a path could misread.
fn parse_id(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if text.starts_with("pcl1.") {
        return Err("that is the token itself; its id is wanted, see `paceline token list`".into());
    }
    if text.is_empty() || text.len() > 64 || !text.bytes().all(plain) {
        return Err("not an id; allowed: letters, digits and -".into());
    }
    Ok(text.to_owned())
}
