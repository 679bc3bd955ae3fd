//! How far a starting node has come: it listens, it is ready, every model answers.

use std::net::SocketAddr;
use std::path::Path;

use paceline_protocol::NodeId;
use paceline_protocol::limits::VOTERS_MAX;
use paceline_protocol::operator::ModelView;
use serde::Deserialize;

use super::ask::Asker;
use super::process::ADDRESSES;
use crate::node::Addresses;

/// What a look at a node saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It is not ready; this is awaited.
    NotReady(String),
    /// It is ready; this is awaited.
    Ready(String),
    /// Every model answers.
    Serving,
}

#[derive(Deserialize)]
struct Health {
    ready: bool,
}

/// What has to be there before a node counts as serving.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Voters: a cluster that is called ready survives what its size promises.
    pub(crate) voters: usize,
    /// Models, besides those that are deployed.
    pub(crate) models: &'static [&'static str],
}

/// The part of a node's status that is looked at.
#[derive(Deserialize)]
struct Membership {
    raft: Votes,
}

#[derive(Deserialize)]
struct Votes {
    voters: Vec<NodeId>,
}

/// Voters of a cluster of so many nodes, once all have joined: the largest odd number.
pub(crate) fn voters_of(nodes: usize) -> usize {
    let odd = nodes - usize::from(nodes.is_multiple_of(2));
    odd.min(VOTERS_MAX)
}

/// Looks once.
pub(crate) fn look(asker: &Asker, data: &Path, wanted: Wanted) -> Sight {
    let Some(node) = addresses(data).map(|addresses| addresses.http) else {
        return Sight::NotReady("it does not listen yet".to_owned());
    };
    match asker.read::<Health>(node, "/v2/health/ready") {
        Ok(Health { ready: true }) => {}
        Ok(Health { ready: false }) => return Sight::NotReady("it is not ready yet".to_owned()),
        Err(error) => return Sight::NotReady(error.to_string()),
    }
    match asker.read::<Membership>(node, "/v2/paceline/status") {
        Ok(seen) if seen.raft.voters.len() < wanted.voters => {
            let (seen, wanted) = (seen.raft.voters.len(), wanted.voters);
            return Sight::Ready(format!("it knows {seen} of {wanted} voters"));
        }
        Ok(_) => {}
        Err(error) => return Sight::Ready(error.to_string()),
    }
    match asker.read::<Vec<ModelView>>(node, "/v2/paceline/models") {
        Ok(models) => awaited(&models, wanted.models).map_or(Sight::Serving, Sight::Ready),
        Err(error) => Sight::Ready(error.to_string()),
    }
}

/// Where the node in this directory listens, once it does.
pub(crate) fn addresses(data: &Path) -> Option<Addresses> {
    let bytes = std::fs::read(data.join(ADDRESSES)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The first model that does not answer here.
fn awaited(models: &[ModelView], wanted: &[&str]) -> Option<String> {
    let known = |name: &&&str| models.iter().any(|model| model.name.as_str() == **name);
    if let Some(missing) = wanted.iter().find(|name| !known(name)) {
        return Some(format!("model '{missing}' is not there yet"));
    }
    let mut deployed = models.iter().filter(|model| model.deployed.is_some());
    let unready = deployed.find(|model| !model.ready)?;
    let states: Vec<String> = unready
        .replicas
        .iter()
        .filter(|replica| replica.state != "ready")
        .map(|replica| {
            let reason = replica.reason.as_deref().unwrap_or_default();
            let state = format!(", replica {} {} {reason}", replica.id, replica.state);
            state.trim_end().to_owned()
        })
        .collect();
    let (name, states) = (&unready.name, states.concat());
    Some(format!("model '{name}' is not ready{states}"))
}

/// The address that nodes join by, of a member in this directory.
pub(crate) fn seed(data: &Path) -> Result<(SocketAddr, SocketAddr), String> {
    let addresses = addresses(data).ok_or("the member to join by does not listen yet")?;
    let sdk = addresses
        .sdk
        .ok_or("the member to join by has no SDK door")?;
    Ok((addresses.http, sdk))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use paceline_protocol::operator::{DeploymentView, ReplicaView};
    use paceline_protocol::registry::ReplicaTarget;
    use paceline_protocol::{
        DeviceId, Epoch, ModelName, NodeId, ReplicaId, TenantName, VersionNumber,
    };

    fn model(name: &str, deployed: bool, ready: bool) -> ModelView {
        ModelView {
            name: ModelName::new(name).unwrap(),
            owner: TenantName::default(),
            serving: None,
            deployed: deployed.then_some(DeploymentView {
                version: VersionNumber(1),
                replicas: ReplicaTarget::Each,
            }),
            ready,
            versions: vec![],
            replicas: vec![ReplicaView {
                id: ReplicaId(7),
                version: VersionNumber(1),
                node: NodeId(1),
                device: DeviceId(0),
                state: if ready { "ready" } else { "loading" }.to_owned(),
                reason: None,
            }],
            canary: None,
            canary_ended: None,
            shadow: None,
            previous: None,
            labels: BTreeMap::new(),
            revision: Epoch(1),
            epoch: Epoch(1),
        }
    }

    #[test]
    fn voters_are_odd_and_at_most_seven() {
        let voters = [1, 2, 3, 4, 5, 6, 7, 8, 64].map(voters_of);
        assert_eq!(voters, [1, 1, 3, 3, 5, 5, 7, 7, 7]);
    }

    #[test]
    fn every_deployed_model_and_every_wanted_one_is_waited_for() {
        assert_eq!(awaited(&[], &[]), None);
        let pushed_only = [model("a", false, false)];
        assert_eq!(awaited(&pushed_only, &[]), None);
        let missing = awaited(&pushed_only, &["a", "b"]).unwrap();
        assert_eq!(missing, "model 'b' is not there yet");
        let models = [model("a", true, true), model("b", true, false)];
        let unready = awaited(&models, &["a"]).unwrap();
        assert_eq!(unready, "model 'b' is not ready, replica 7 loading");
        assert_eq!(awaited(&models[..1], &["a"]), None);
    }
}
