//! `paceline model deploy`: a version shall serve; the command waits until it does.

use std::thread;
use std::time::Duration;

use clap::Args;
use paceline_protocol::operator::{Committed, DeployRequest, ModelView, ReplicaView};
use paceline_protocol::registry::ReplicaTarget;
use paceline_protocol::{Label, ModelName, OpId, VersionNumber, VersionRef};
use serde::Serialize;

use crate::api::{ApiError, Deadline, OperatorClient};
use crate::cli::connection::{Connection, Output};
use crate::cli::failure::Failure;
use crate::cli::operation::{Expectation, Operation, committed, unsettled};
use crate::cli::target::{ModelTarget, parse_replicas};
use crate::cli::terminal::{Talk, Terminal};
use crate::cli::units;

use super::canary::Trial;

/// Arguments of `paceline model deploy`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The version that serves now goes on serving until the replicas of the new one are ready.

Examples:
  paceline model deploy digits               the newest version
  paceline model deploy digits@2 --replicas 3
  paceline model deploy digits@next          the version that has this label now
  paceline model deploy digits@2 --replicas each --timeout 10m
  paceline model deploy digits@1 --detach    commit, and do not wait

With --canary the version is tried beside the one that serves. It gets more requests when a share
was held for its time and nothing speaks against it, serves after the last one, and is aborted by
itself as soon as it is worse than its guards allow, beyond chance. The command does not wait.
  paceline model deploy digits@2 --canary 10%
  paceline model deploy digits@2 --canary 1%,10%,50% --hold 5m --max-errors 0.5% --max-latency 150%")]
pub struct DeployArgs {
    /// NAME@V (a number or a label), or NAME for its newest version
    #[arg(value_name = "NAME[@V]")]
    target: ModelTarget,
    #[command(flatten)]
    rollout: Rollout,
    #[command(flatten)]
    trial: Trial,
    #[command(flatten)]
    expectation: Expectation,
    #[command(flatten)]
    operation: Operation,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// How a version is rolled out.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Rollout {
    /// How many replicas: a number, or `each` for one on every node; 2 unless given (1 on one node)
    #[arg(long, value_name = "N|each", value_parser = parse_replicas)]
    replicas: Option<ReplicaTarget>,
    /// Return when the deployment is committed; do not wait until it serves
    #[arg(long)]
    detach: bool,
}

/// A deployment to make.
pub(crate) struct Wish {
    pub(crate) name: ModelName,
    pub(crate) version: VersionNumber,
    pub(crate) rollout: Rollout,
    pub(crate) expectation: Expectation,
    pub(crate) op: OpId,
}

/// A deployment that was made, as JSON has it.
#[derive(Debug, Serialize)]
pub(crate) struct Deployed {
    model: ModelName,
    version: VersionNumber,
    #[serde(flatten)]
    committed: Committed,
    /// Whether traffic goes to it; false after `--detach`.
    serving: bool,
    /// Its replicas; empty after `--detach`.
    replicas: Vec<ReplicaView>,
}

/// An election and a few repeats fit.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Replicas fetch, load and warm up.
const SERVING_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// One look: a node that takes longer is asked again.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

impl DeployArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let client = self.connection.client(terminal, WRITE_TIMEOUT)?;
        let version = chosen(&client, &self.target)?;
        let op = self.operation.op()?;
        if self.trial.is_given() {
            let (what, replicas) = ((self.target.name, version), self.rollout.replicas);
            let client = client.expecting(self.expectation.revision());
            let begun = self.trial.begin(&client, what, replicas, op)?;
            return terminal.show(self.output.format, &begun, |begun| {
                format!("{}\n", begun.sentence())
            });
        }
        let wish = Wish {
            name: self.target.name,
            version,
            rollout: self.rollout,
            expectation: self.expectation,
            op,
        };
        let deployed = wish.fulfil(&self.connection, terminal)?;
        terminal.show(self.output.format, &deployed, |deployed| {
            format!("{}\n", deployed.sentence())
        })
    }
}

/// Named here rather than left to the node, so that what is awaited is what was deployed.
pub(in crate::cli) fn chosen(
    client: &OperatorClient,
    target: &ModelTarget,
) -> Result<VersionNumber, Failure> {
    let ModelTarget { name, version } = target;
    if let Some(VersionRef::Number(number)) = version {
        return Ok(*number);
    }
    let ModelView {
        versions, labels, ..
    } = client.model(name)?;
    let Some(VersionRef::Label(label)) = version else {
        let newest = versions.iter().map(|version| version.version).max();
        return newest
            .ok_or_else(|| Failure::Failed(format!("model '{name}' has no version to deploy")));
    };
    labels.get(label).copied().ok_or_else(|| {
        let known: Vec<&str> = labels.keys().map(Label::as_str).collect();
        let known = match &known[..] {
            [] => "it has none".to_owned(),
            known => format!("its labels: {}", known.join(", ")),
        };
        Failure::Failed(format!("model '{name}' has no label '{label}'; {known}"))
    })
}

impl Rollout {
    pub(crate) fn is_given(self) -> bool {
        self.replicas.is_some() || self.detach
    }
}

impl Wish {
    /// The command line that means the same.
    fn command(&self) -> String {
        let mut command = format!("model deploy {}@{}", self.name, self.version);
        if let Some(replicas) = self.rollout.replicas {
            command.push_str(&format!(" --replicas {replicas}"));
        }
        self.expectation.added_to(command)
    }

    /// Commits the deployment and, unless detached, waits until it serves.
    pub(crate) fn fulfil(
        self,
        connection: &Connection,
        terminal: &Terminal,
    ) -> Result<Deployed, Failure> {
        let timeout = connection.timeout_or(SERVING_TIMEOUT);
        let deadline = Deadline::after(timeout);
        let client = connection.client(terminal, WRITE_TIMEOUT)?;
        let client = client.expecting(self.expectation.revision());
        let request = DeployRequest {
            version: Some(self.version),
            replicas: self.rollout.replicas,
            op: self.op,
        };
        let done = client
            .deploy(&self.name, &request)
            .map_err(unsettled(&self.command(), self.op))?;
        let mut deployed = Deployed {
            model: self.name,
            version: self.version,
            committed: done,
            serving: false,
            replicas: Vec::new(),
        };
        if self.rollout.detach {
            return Ok(deployed);
        }
        let talk = terminal.talk();
        talk.say(&format!(
            "{}; waiting until {}@{} serves",
            committed(&deployed.committed),
            deployed.model,
            deployed.version
        ));
        let waiting = Waiting {
            deployed: &deployed,
            client: &client,
            talk: &talk,
        };
        let awaited = waiting.until(deadline);
        let serving = awaited.map_err(|awaited| match awaited {
            Ended::Failed(reason) => Failure::Failed(reason),
            Ended::Late(awaited) => Failure::Failed(format!(
                "{}@{} does not serve after {}; still awaited: {awaited}",
                deployed.model,
                deployed.version,
                units::seconds(timeout.as_secs())
            )),
        })?;
        // It serves, also where nobody can tell how far that is known.
        deployed.committed = client.applied(serving.epoch).unwrap_or(deployed.committed);
        deployed.replicas = replicas_of(serving, deployed.version);
        deployed.serving = true;
        Ok(deployed)
    }
}

impl Deployed {
    /// One line for people.
    pub(crate) fn sentence(&self) -> String {
        let state = if self.serving {
            format!(
                "serves with {}",
                units::counted(self.replicas.len(), "replica")
            )
        } else {
            "serves as soon as its replicas are ready".to_owned()
        };
        let (model, version) = (&self.model, self.version);
        format!("{model}@{version} {state}: {}", committed(&self.committed))
    }
}

struct Waiting<'a> {
    deployed: &'a Deployed,
    client: &'a OperatorClient,
    talk: &'a Talk,
}

/// Why waiting ended without a version that serves.
enum Ended {
    Failed(String),
    /// The time is over; this is still awaited.
    Late(String),
}

/// What one look at the model says.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Serves,
    /// This is still awaited.
    Awaits(String),
    Failed(String),
}

impl Waiting<'_> {
    /// Looks until the version serves; what was seen then.
    fn until(&self, deadline: Deadline) -> Result<ModelView, Ended> {
        let mut told = String::new();
        loop {
            let limit = deadline.remaining().min(LOOK_TIMEOUT);
            let looker = self.client.within(limit);
            let awaited = match looker.model(&self.deployed.model) {
                Ok(model) => match judge(&model, self.deployed) {
                    Verdict::Serves => return Ok(model),
                    Verdict::Failed(reason) => return Err(Ended::Failed(reason)),
                    Verdict::Awaits(awaited) => awaited,
                },
                Err(error) if passes(&error) => error.to_string(),
                Err(error) => return Err(Ended::Failed(error.to_string())),
            };
            if self.talk.is_live() {
                self.talk.update(&awaited);
            } else if awaited != told {
                self.talk.say(&awaited);
                told.clone_from(&awaited);
            }
            if deadline.remaining() <= LOOK_EVERY {
                return Err(Ended::Late(awaited));
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// The deployment is committed: a node that is away for a moment changes nothing about it.
fn passes(error: &ApiError) -> bool {
    matches!(error, ApiError::Unreachable { .. }) || error.is_worth_repeating()
}

fn replicas_of(model: ModelView, version: VersionNumber) -> Vec<ReplicaView> {
    let mut replicas = model.replicas;
    replicas.retain(|replica| replica.version == version);
    replicas
}

fn judge(model: &ModelView, wanted: &Deployed) -> Verdict {
    let version = wanted.version;
    let committed = &wanted.committed;
    if model.epoch < committed.epoch {
        let (here, there) = (model.epoch, committed.epoch);
        return Verdict::Awaits(format!("the node is at epoch {here} of {there}"));
    }
    let deployment = match &model.deployed {
        Some(deployment) if deployment.version == version => deployment,
        Some(other) => {
            let other = other.version;
            return Verdict::Failed(format!("version {other} has been deployed since"));
        }
        None => return Verdict::Failed("the deployment has been taken back since".to_owned()),
    };
    let replicas = || model.replicas.iter().filter(|r| r.version == version);
    if let Some(failed) = replicas().find(|replica| replica.state == "failed") {
        let reason = failed.reason.as_deref().unwrap_or("no reason was given");
        let (replica, node) = (failed.id, failed.node);
        return Verdict::Failed(format!("replica {replica} on node {node} failed: {reason}"));
    }
    // Each node has a device at least, and a device takes one replica: so many there will be.
    let most = committed.nodes.max(1);
    let target = match deployment.replicas {
        ReplicaTarget::Count(count) => count.min(most),
        ReplicaTarget::Each => most,
    };
    let ready = replicas()
        .filter(|replica| replica.state == "ready")
        .count();
    let serves = model.serving == Some(version) && model.ready;
    if serves && ready >= target as usize && ready == replicas().count() {
        return Verdict::Serves;
    }
    let states: Vec<String> = replicas()
        .filter(|replica| replica.state != "ready")
        .map(|replica| {
            format!(
                "replica {} on node {} {}",
                replica.id, replica.node, replica.state
            )
        })
        .collect();
    let mut awaited = format!(
        "{ready} of {} ready",
        units::counted(target as usize, "replica")
    );
    if !states.is_empty() {
        awaited = format!("{awaited}; {}", states.join(", "));
    }
    if !serves {
        awaited.push_str("; traffic has not moved yet");
    }
    Verdict::Awaits(awaited)
}

#[cfg(test)]
mod tests {
    use super::*;
    use paceline_protocol::operator::DeploymentView;
    use paceline_protocol::{DeviceId, Epoch, NodeId, ReplicaId, TenantName};

    fn deployed(nodes: u32) -> Deployed {
        Deployed {
            model: ModelName::new("digits").unwrap(),
            version: VersionNumber(2),
            committed: Committed {
                epoch: Epoch(10),
                applied_on: nodes,
                nodes,
            },
            serving: false,
            replicas: vec![],
        }
    }

    fn view(target: ReplicaTarget, states: &[(u32, &str)]) -> ModelView {
        let replica = |(at, (version, state)): (usize, &(u32, &str))| ReplicaView {
            id: ReplicaId(at as u64),
            version: VersionNumber(*version),
            node: NodeId(at as u64),
            device: DeviceId(0),
            state: (*state).into(),
            reason: (*state == "failed").then(|| "out of memory".into()),
        };
        ModelView {
            name: ModelName::new("digits").unwrap(),
            owner: TenantName::default(),
            serving: Some(VersionNumber(2)),
            deployed: Some(DeploymentView {
                version: VersionNumber(2),
                replicas: target,
            }),
            ready: true,
            versions: vec![],
            replicas: states.iter().enumerate().map(replica).collect(),
            canary: None,
            canary_ended: None,
            shadow: None,
            previous: None,
            labels: std::collections::BTreeMap::new(),
            revision: Epoch(1),
            epoch: Epoch(12),
        }
    }

    #[test]
    fn it_serves_when_traffic_has_moved_and_every_replica_is_ready() {
        let two = ReplicaTarget::Count(2);
        let ready = view(two, &[(1, "loading"), (2, "ready"), (2, "ready")]);
        assert_eq!(judge(&ready, &deployed(3)), Verdict::Serves);
        let one_node = view(ReplicaTarget::Count(5), &[(2, "ready")]);
        assert_eq!(judge(&one_node, &deployed(1)), Verdict::Serves);

        let cases = [
            (view(two, &[(2, "ready")]), 3, "1 of 2 replicas ready"),
            (
                view(two, &[(2, "ready"), (2, "loading")]),
                3,
                "replica 1 on node 1 loading",
            ),
            (
                view(ReplicaTarget::Each, &[(2, "ready"), (2, "ready")]),
                3,
                "2 of 3 replicas",
            ),
            (view(two, &[]), 1, "0 of 1 replica ready"),
        ];
        for (model, nodes, wanted) in cases {
            match judge(&model, &deployed(nodes)) {
                Verdict::Awaits(awaited) => assert!(awaited.contains(wanted), "{awaited}"),
                other => panic!("{other:?}"),
            }
        }
        let mut unmoved = ready.clone();
        unmoved.serving = Some(VersionNumber(1));
        let Verdict::Awaits(awaited) = judge(&unmoved, &deployed(3)) else {
            panic!("traffic still goes to version 1");
        };
        assert_eq!(awaited, "2 of 2 replicas ready; traffic has not moved yet");
    }

    #[test]
    fn a_view_from_before_the_commit_proves_nothing() {
        let mut model = view(ReplicaTarget::Count(1), &[(2, "ready")]);
        model.epoch = Epoch(9);
        assert!(matches!(judge(&model, &deployed(1)), Verdict::Awaits(_)));
    }

    #[test]
    fn what_cannot_end_well_ends_at_once() {
        let failed = view(ReplicaTarget::Count(2), &[(2, "ready"), (2, "failed")]);
        let wanted = "replica 1 on node 1 failed: out of memory".to_owned();
        assert_eq!(judge(&failed, &deployed(2)), Verdict::Failed(wanted));
        let old = view(ReplicaTarget::Count(1), &[(1, "failed"), (2, "ready")]);
        assert_eq!(judge(&old, &deployed(1)), Verdict::Serves);

        let mut overtaken = view(ReplicaTarget::Count(1), &[(2, "ready")]);
        overtaken.deployed = Some(DeploymentView {
            version: VersionNumber(3),
            replicas: ReplicaTarget::Count(1),
        });
        assert!(matches!(
            judge(&overtaken, &deployed(1)),
            Verdict::Failed(_)
        ));
        overtaken.deployed = None;
        assert!(matches!(
            judge(&overtaken, &deployed(1)),
            Verdict::Failed(_)
        ));
    }
}
