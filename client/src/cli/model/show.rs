//! `paceline model show`: what a model takes and gives, its versions, its replicas.

use std::time::{Duration, SystemTime};

use clap::Args;
use paceline_protocol::operator::{
    ArmView, CanaryEndView, CanaryView, ModelView, ReplicaView, VersionView,
};
use paceline_protocol::{ModelName, TensorSpec};

use super::canary::share;
use super::list::state;
use crate::cli::connection::{Connection, Output, or_dash};
use crate::cli::failure::Failure;
use crate::cli::table::{Side, Table, fields};
use crate::cli::target::parse_name;
use crate::cli::terminal::Terminal;
use crate::cli::units;

/// Arguments of `paceline model show`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  paceline model show digits
  paceline model show digits -o json | jq .replicas")]
pub struct ShowArgs {
    /// The model
    #[arg(value_parser = parse_name)]
    name: ModelName,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// A node answers from memory.
const TIMEOUT: Duration = Duration::from_secs(10);

impl ShowArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let model = self
            .connection
            .client(terminal, TIMEOUT)?
            .model(&self.name)?;
        terminal.show(self.output.format, &model, text)
    }
}

fn text(model: &ModelView) -> String {
    let deployed = model.deployed.as_ref().map(|deployed| {
        let replicas = deployed.replicas;
        format!("version {}, replicas {replicas}", deployed.version)
    });
    let mut pairs = vec![
        ("name", model.name.to_string()),
        ("state", state(model).to_owned()),
        ("owner", model.owner.to_string()),
        ("serving", or_dash(model.serving)),
        ("deployed", or_dash(deployed)),
        ("revision", model.revision.to_string()),
        ("epoch", model.epoch.to_string()),
    ];
    for (label, version) in &model.labels {
        pairs.push(("label", format!("{label} is version {version}")));
    }
    if let Some(canary) = &model.canary {
        pairs.extend(tried(canary));
    }
    if let Some(ended) = &model.canary_ended {
        pairs.push(("last canary", last(ended)));
    }
    if let Some(shadow) = &model.shadow {
        let (plan, ready) = (shadow.plan, shadow.ready);
        let copies = share(plan.weight);
        let at = match ready {
            true => format!("copies of {copies} of the requests"),
            false => format!("copies of {copies} of the requests once a replica is ready"),
        };
        pairs.push(("shadow", format!("version {}, {at}", plan.version)));
    }
    // What clients talk to; before the first deployment, what they will talk to.
    let spoken = model.serving.and_then(|serving| {
        let mut versions = model.versions.iter();
        versions.find(|version| version.version == serving)
    });
    if let Some(version) = spoken.or(model.versions.last()) {
        let signature = &version.record.signature;
        pairs.extend(signature.inputs.iter().map(|spec| ("input", tensor(spec))));
        pairs.extend(
            signature
                .outputs
                .iter()
                .map(|spec| ("output", tensor(spec))),
        );
    }
    format!(
        "{}\n{}\n{}",
        fields(&pairs),
        versions(&model.versions),
        replicas(&model.replicas)
    )
}

/// What is known of a canary.
fn tried(canary: &CanaryView) -> [(&'static str, String); 3] {
    let stages = canary.plan.stages.len();
    let at = match canary.stage {
        _ if canary.promoting => "promoted; its replicas are awaited".to_owned(),
        None => "its replicas are awaited".to_owned(),
        Some(stage) => {
            let share = share(canary.weight);
            format!("{share} of the requests, stage {} of {stages}", stage + 1)
        }
    };
    let arm = |arm: ArmView| {
        let p99 = arm.p99_us.map(|micros| units::nanoseconds(micros * 1_000));
        format!(
            "{} requests, {} failed, p99 {}",
            arm.requests,
            arm.failures,
            or_dash(p99)
        )
    };
    [
        ("canary", format!("version {}, {at}", canary.plan.version)),
        ("canary has", arm(canary.canary)),
        ("serving has", arm(canary.stable)),
    ]
}

fn last(ended: &CanaryEndView) -> String {
    let version = ended.version;
    match &ended.aborted {
        Some(reason) => format!("version {version}, aborted at {}: {reason}", ended.until),
        None => format!("version {version}, promoted at {}", ended.until),
    }
}

fn tensor(spec: &TensorSpec) -> String {
    format!("{} {} {}", spec.name, spec.dtype, spec.shape)
}

fn versions(versions: &[VersionView]) -> String {
    let mut table = Table::new([
        ("VERSION", Side::Right),
        ("AGE", Side::Right),
        ("FAMILY", Side::Left),
        ("SIZE", Side::Right),
        ("MEMORY", Side::Right),
        ("ONE ROW", Side::Right),
        ("FULL BATCH", Side::Right),
        ("ROWS", Side::Right),
        ("DIGEST", Side::Left),
    ]);
    let now = SystemTime::now();
    for version in versions {
        let record = &version.record;
        table.row([
            version.version.to_string(),
            age(now, version.published_ms),
            record.family.clone(),
            units::bytes(record.artifact_bytes),
            units::bytes(record.memory_bytes),
            units::nanoseconds(record.one_row_ns),
            units::nanoseconds(record.full_batch_ns),
            record.rows_max.to_string(),
            record.digest.to_string(),
        ]);
    }
    table.render()
}

fn replicas(replicas: &[ReplicaView]) -> String {
    let mut table = Table::new([
        ("REPLICA", Side::Right),
        ("VERSION", Side::Right),
        ("NODE", Side::Right),
        ("DEVICE", Side::Right),
        ("STATE", Side::Left),
        ("REASON", Side::Left),
    ]);
    for replica in replicas {
        table.row([
            replica.id.to_string(),
            replica.version.to_string(),
            replica.node.to_string(),
            replica.device.to_string(),
            replica.state.clone(),
            or_dash(replica.reason.as_ref()),
        ]);
    }
    table.render()
}

/// How long ago that was. The clocks of two machines differ: what lies ahead is now.
fn age(now: SystemTime, published_ms: u64) -> String {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default();
    let age = since.saturating_sub(Duration::from_millis(published_ms));
    units::seconds(age.as_secs())
}
