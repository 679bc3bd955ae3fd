//! Which node is meant: by id or by name.

use std::str::FromStr;

use paceline_protocol::operator::NodeView;
use paceline_protocol::{ModelName, NameError, NodeId};

use crate::api::{Freshness, OperatorClient};

use super::failure::Failure;

/// A node as an operator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeTarget(String);

/// A node that was found, or that is named by its id and may have gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) id: NodeId,
    /// Its name, if the cluster knows it.
    pub(crate) name: Option<String>,
}

impl FromStr for NodeTarget {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        // Nodes' names and ids have the alphabet of names.
        ModelName::new(text).map(|name| Self(name.as_str().to_owned()))
    }
}

impl NodeTarget {
    /// Asks the cluster which node is meant. A number is an id before it is a name; an id that
    /// the cluster does not know is taken as it is, since a write that is repeated may have
    /// removed its node.
    pub(crate) fn find(&self, client: &OperatorClient) -> Result<Found, Failure> {
        self.among(&client.nodes(Freshness::Local)?)
    }

    fn among(&self, nodes: &[NodeView]) -> Result<Found, Failure> {
        let Self(text) = self;
        let id = text.parse().ok().map(NodeId);
        let by_id = || nodes.iter().find(|node| Some(node.id) == id);
        let by_name = || nodes.iter().find(|node| node.name == *text);
        match (by_id().or_else(by_name), id) {
            (Some(node), _) => Ok(Found {
                id: node.id,
                name: Some(node.name.clone()),
            }),
            (None, Some(id)) => Ok(Found { id, name: None }),
            (None, None) => {
                let known: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
                let known = known.join(", ");
                Err(Failure::Failed(format!(
                    "there is no node '{text}'; its nodes: {known}"
                )))
            }
        }
    }
}

impl Found {
    /// How people know it.
    pub(crate) fn shown(&self) -> String {
        let id = self.id;
        self.name
            .as_ref()
            .map_or_else(|| format!("node {id}"), |name| format!("{name} (id {id})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paceline_protocol::operator::AddressesView;

    fn view(id: u64, name: &str) -> NodeView {
        NodeView {
            id: NodeId(id),
            name: name.to_owned(),
            state: "up".to_owned(),
            role: "voter".to_owned(),
            zone: "default".to_owned(),
            pid: None,
            addresses: AddressesView::default(),
            epoch: None,
        }
    }

    #[test]
    fn an_id_comes_before_a_name_and_may_be_unknown() {
        let nodes = [view(1, "n0"), view(7, "9"), view(9, "n2")];
        let find = |text: &str| text.parse::<NodeTarget>().unwrap().among(&nodes);
        assert_eq!(find("n0").unwrap().shown(), "n0 (id 1)");
        assert_eq!(find("9").unwrap().shown(), "n2 (id 9)");
        assert_eq!(find("7").unwrap().id, NodeId(7));
        assert_eq!(find("12").unwrap().shown(), "node 12");
        let refused = find("n3").unwrap_err().to_string();
        assert_eq!(refused, "there is no node 'n3'; its nodes: n0, 9, n2");
        assert!("N0".parse::<NodeTarget>().is_err());
    }
}
