//! `paceline tenant`: who may send requests, what each may take, and the keys that they show.

use std::time::Duration;

use clap::{Args, Subcommand};
use paceline_protocol::limits::{TENANT_LIMIT_MAX, TENANT_WEIGHT_MAX};
use paceline_protocol::operator::{KeyCreated, LimitSetting, TenantRequest, TenantView, Unlimited};
use paceline_protocol::tenant::KeyId;
use paceline_protocol::{TenantName, tenant::ApiKey};

use super::connection::{Connection, Consistency, Output, or_dash};
use super::failure::Failure;
use super::operation::{Operation, committed, unsettled};
use super::table::{Side, Table};
use super::terminal::Terminal;

/// What can be done with tenants.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub enum TenantCommand {
    /// List tenants, what they may take, and their keys
    List(ListArgs),
    /// Make a tenant, or change what it may take
    Set(SetArgs),
    /// Forget a tenant and its keys
    Delete(DeleteArgs),
    /// Make and revoke the keys that tenants show
    #[command(subcommand)]
    Key(KeyCommand),
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub enum KeyCommand {
    /// Make a key and print it; it is shown this once
    Add(AddArgs),
    /// Make a key useless
    Revoke(RevokeArgs),
}

/// Arguments of `paceline tenant list`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Who shows no key is the tenant 'default'. It is listed once something was set of it.

Examples:
  paceline tenant list
  paceline tenant list -o json | jq '.[] | {name, in_flight}'")]
pub struct ListArgs {
    #[command(flatten)]
    consistency: Consistency,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Arguments of `paceline tenant set`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Where several tenants want a device, each gets it by its weight, whatever it has waiting. A limit
is for the whole cluster: each node has a part of it, by what it was asked for in the last second.
What is not named stays as it is.

Examples:
  paceline tenant set blue
  paceline tenant set blue --weight 3 --rate 200 --concurrency 50
  paceline tenant set blue --rate none
  paceline tenant set default --rate 100        who shows no key")]
pub struct SetArgs {
    /// Its name
    #[arg(value_name = "NAME", value_parser = parse_name)]
    tenant: TenantName,
    /// Its share of a device beside others', 1 to 100; 1 for a new tenant
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(TENANT_WEIGHT_MAX)))]
    weight: Option<u32>,
    /// Requests a second over all nodes, or none; none for a new tenant
    #[arg(long, value_name = "N|none", value_parser = parse_limit)]
    rate: Option<LimitSetting>,
    /// Requests at a time over all nodes, or none; none for a new tenant
    #[arg(long, value_name = "N|none", value_parser = parse_limit)]
    concurrency: Option<LimitSetting>,
    #[command(flatten)]
    operation: Operation,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Arguments of `paceline tenant delete`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A tenant that owns models is not deleted: delete those first. Its keys are refused from then on.

Examples:
  paceline tenant delete blue")]
pub struct DeleteArgs {
    /// Its name
    #[arg(value_name = "NAME", value_parser = parse_name)]
    tenant: TenantName,
    #[command(flatten)]
    operation: Operation,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Arguments of `paceline tenant key add`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Callers show it as 'Authorization: Bearer pk_…', with --api-key or PACELINE_API_KEY here, and as
ClientOptions::api_key in the SDK. A tenant has two keys at a time at the most: make the second
one, change over, and revoke the first.

Examples:
  paceline tenant key add blue
  export PACELINE_API_KEY=\"$(paceline tenant key add blue)\"")]
pub struct AddArgs {
    /// The tenant's name
    #[arg(value_name = "NAME", value_parser = parse_name)]
    tenant: TenantName,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// Arguments of `paceline tenant key revoke`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Connections that have shown it are refused with their next request.

Examples:
  paceline tenant key revoke 4jwkfaqburuo6")]
pub struct RevokeArgs {
    /// The key's id, as `paceline tenant list` shows it
    #[arg(value_name = "ID", value_parser = parse_id)]
    id: KeyId,
    #[command(flatten)]
    operation: Operation,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// An election and a few repeats fit.
const TIMEOUT: Duration = Duration::from_secs(30);

impl TenantCommand {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        match self {
            Self::List(args) => args.run(terminal),
            Self::Set(args) => args.run(terminal),
            Self::Delete(args) => args.run(terminal),
            Self::Key(KeyCommand::Add(args)) => args.run(terminal),
            Self::Key(KeyCommand::Revoke(args)) => args.run(terminal),
        }
    }
}

impl ListArgs {
    fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let client = self.connection.client(terminal, TIMEOUT)?;
        let tenants = client.tenants(self.consistency.freshness())?;
        terminal.show(self.output.format, &tenants, |tenants| table(tenants))
    }
}

impl SetArgs {
    fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let op = self.operation.op()?;
        let request = TenantRequest {
            weight: self.weight,
            requests_per_s: self.rate,
            concurrency: self.concurrency,
            op,
        };
        let mut command = format!("tenant set {}", self.tenant);
        let shown = |limit: LimitSetting| or_none(limit.limit());
        if let Some(weight) = self.weight {
            command.push_str(&format!(" --weight {weight}"));
        }
        if let Some(rate) = self.rate {
            command.push_str(&format!(" --rate {}", shown(rate)));
        }
        if let Some(concurrency) = self.concurrency {
            command.push_str(&format!(" --concurrency {}", shown(concurrency)));
        }
        let client = self.connection.client(terminal, TIMEOUT)?;
        let done = client.set_tenant(&self.tenant, &request);
        let done = done.map_err(unsettled(&command, op))?;
        terminal.show(self.output.format, &done, |done| {
            format!("set {}: {}\n", self.tenant, committed(done))
        })
    }
}

impl DeleteArgs {
    fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let op = self.operation.op()?;
        let command = format!("tenant delete {}", self.tenant);
        let client = self.connection.client(terminal, TIMEOUT)?;
        let done = client.delete_tenant(&self.tenant, op);
        let done = done.map_err(unsettled(&command, op))?;
        terminal.show(self.output.format, &done, |done| {
            format!("deleted {}: {}\n", self.tenant, committed(done))
        })
    }
}

impl AddArgs {
    fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let client = self.connection.client(terminal, TIMEOUT)?;
        let created = client.add_key(&self.tenant)?;
        terminal.talk().say(&format!(
            "key {} of {}; it is shown this once",
            created.id, self.tenant
        ));
        // Alone on stdout, so that a script can use it as it is.
        terminal.show(self.output.format, &created, |created: &KeyCreated| {
            format!("{}\n", super::terminal::visible(&created.key))
        })
    }
}

impl RevokeArgs {
    fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let op = self.operation.op()?;
        let command = format!("tenant key revoke {}", self.id);
        let client = self.connection.client(terminal, TIMEOUT)?;
        let done = client.revoke_key(self.id, op);
        let done = done.map_err(unsettled(&command, op))?;
        terminal.show(self.output.format, &done, |done| {
            format!("revoked {}: {}\n", self.id, committed(done))
        })
    }
}

fn table(tenants: &[TenantView]) -> String {
    let mut table = Table::new([
        ("NAME", Side::Left),
        ("WEIGHT", Side::Right),
        ("REQUESTS/S", Side::Right),
        ("AT A TIME", Side::Right),
        ("MODELS", Side::Right),
        ("IN FLIGHT HERE", Side::Right),
        ("KEYS", Side::Left),
    ]);
    for tenant in tenants {
        table.row([
            tenant.name.to_string(),
            tenant.weight.to_string(),
            or_none(tenant.requests_per_s),
            or_none(tenant.concurrency),
            tenant.models.to_string(),
            tenant.in_flight.to_string(),
            or_dash((!tenant.keys.is_empty()).then(|| tenant.keys.join(" "))),
        ]);
    }
    table.render()
}

fn or_none(limit: Option<u32>) -> String {
    limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string())
}

fn parse_limit(text: &str) -> Result<LimitSetting, String> {
    if text == "none" {
        return Ok(LimitSetting::Off(Unlimited::None));
    }
    let limit = text.parse().ok();
    limit
        .filter(|limit| (1..=TENANT_LIMIT_MAX).contains(limit))
        .map(LimitSetting::At)
        .ok_or_else(|| format!("allowed: 1 to {TENANT_LIMIT_MAX}, or none"))
}

fn parse_name(text: &str) -> Result<TenantName, String> {
    TenantName::new(text).map_err(|error| error.to_string())
}

fn parse_id(text: &str) -> Result<KeyId, String> {
    if text.starts_with(ApiKey::PREFIX) {
        return Err("that is the key itself; its id is wanted, see `paceline tenant list`".into());
    }
    let parsed = text.parse::<KeyId>();
    parsed.map_err(|_misspelt| "not an id; `paceline tenant list` shows them".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_a_limit_a_name_and_an_id() {
        assert_eq!(parse_limit("7"), Ok(LimitSetting::At(7)));
        assert_eq!(parse_limit("none"), Ok(LimitSetting::Off(Unlimited::None)));
        for wrong in ["0", "-1", "off", "10000001"] {
            assert!(parse_limit(wrong).is_err(), "{wrong}");
        }
        assert!(parse_name("Blue").is_err());
        let key = parse_id("pk_secret").unwrap_err();
        assert!(key.contains("its id is wanted") && !key.contains("secret"));
        assert_eq!(parse_id("7777777777776"), Ok(KeyId([0xff; 8])));
    }

    #[test]
    fn a_table_shows_limits_and_that_there_are_none() {
        let tenant = |name: &str, requests_per_s, keys: &[&str]| TenantView {
            name: TenantName::new(name).unwrap(),
            weight: 3,
            requests_per_s,
            concurrency: None,
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            models: 2,
            in_flight: 1,
        };
        let tenants = [
            tenant("blue", Some(200), &["a", "b"]),
            tenant("red", None, &[]),
        ];
        let shown = table(&tenants);
        let lines: Vec<Vec<&str>> = shown
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[1], ["blue", "3", "200", "none", "2", "1", "a", "b"]);
        assert_eq!(lines[2], ["red", "3", "none", "none", "2", "1", "-"]);
    }
}
