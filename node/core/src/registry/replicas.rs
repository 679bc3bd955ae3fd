//! Replicas by id, and by what they are copies of: what is asked for a version costs as much as
//! that version has replicas, however many there are of others.

use std::collections::BTreeMap;
use std::sync::Arc;

use paceline_protocol::{ModelName, NodeId, ReplicaId, VersionNumber};
use serde::{Deserialize, Serialize};

use super::{Assignment, Registry};

/// Some replicas by id.
type ById = BTreeMap<ReplicaId, Arc<Assignment>>;

/// All replicas. A clone shares those of versions that do not change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ById", into = "ById")]
pub(super) struct Replicas {
    all: ById,
    /// The same once more: of each version that has any. It is in no snapshot.
    of: BTreeMap<ModelName, BTreeMap<VersionNumber, Arc<ById>>>,
}

impl Replicas {
    pub(super) fn all(&self) -> &ById {
        &self.all
    }

    /// Those of one version.
    pub(super) fn of(&self, model: &ModelName, version: VersionNumber) -> Option<&ById> {
        self.of.get(model)?.get(&version).map(|of| &**of)
    }

    /// Every version that has replicas, with these: never none.
    pub(super) fn by_version(&self) -> impl Iterator<Item = (&ModelName, VersionNumber, &ById)> {
        let models = self.of.iter();
        models.flat_map(|(model, versions)| {
            let versions = versions.iter();
            versions.map(move |(version, of)| (model, *version, &**of))
        })
    }

    pub(super) fn insert(&mut self, replica: ReplicaId, assignment: Arc<Assignment>) {
        let versions = self.of.entry(assignment.model.clone()).or_default();
        let of = versions.entry(assignment.version).or_default();
        Arc::make_mut(of).insert(replica, assignment.clone());
        self.all.insert(replica, assignment);
    }

    pub(super) fn remove(&mut self, replica: ReplicaId) -> Option<Arc<Assignment>> {
        let assignment = self.all.remove(&replica)?;
        if let Some(versions) = self.of.get_mut(&assignment.model) {
            if let Some(of) = versions.get_mut(&assignment.version) {
                Arc::make_mut(of).remove(&replica);
            }
            versions.retain(|_, of| !of.is_empty());
            if versions.is_empty() {
                self.of.remove(&assignment.model);
            }
        }
        Some(assignment)
    }

    /// Those of a model go.
    pub(super) fn remove_model(&mut self, model: &ModelName) {
        self.of.remove(model);
        self.all.retain(|_, assignment| assignment.model != *model);
    }

    /// Those on a node go.
    pub(super) fn remove_node(&mut self, node: NodeId) {
        let here = self.all.iter().filter(|(_, a)| a.node == node);
        for replica in here.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.remove(replica);
        }
    }
}

impl Registry {
    /// Replicas of one version, by id. Costs as much as there are.
    pub fn replicas_of(
        &self,
        model: &ModelName,
        version: VersionNumber,
    ) -> impl ExactSizeIterator<Item = (ReplicaId, &Assignment)> + use<'_> {
        let of = self.replicas.of(model, version).unwrap_or(&NONE);
        of.iter().map(|(id, assignment)| (*id, &**assignment))
    }

    /// Every version that has replicas, with these by id: never none.
    pub fn replicas_by_version(
        &self,
    ) -> impl Iterator<
        Item = (
            &ModelName,
            VersionNumber,
            &BTreeMap<ReplicaId, Arc<Assignment>>,
        ),
    > {
        self.replicas.by_version()
    }
}

impl From<ById> for Replicas {
    fn from(all: ById) -> Self {
        let mut replicas = Self::default();
        for (replica, assignment) in all {
            replicas.insert(replica, assignment);
        }
        replicas
    }
}

impl From<Replicas> for ById {
    fn from(replicas: Replicas) -> Self {
        replicas.all
    }
}

static NONE: BTreeMap<ReplicaId, Arc<Assignment>> = BTreeMap::new();

#[cfg(test)]
mod tests {
    use paceline_protocol::DeviceId;

    use super::*;

    fn assignment(model: &str, version: u32, node: u64) -> Arc<Assignment> {
        Arc::new(Assignment {
            model: ModelName::new(model).unwrap(),
            version: VersionNumber(version),
            node: NodeId(node),
            device: DeviceId(0),
        })
    }

    fn some() -> Replicas {
        let mut replicas = Replicas::default();
        let all = [("a", 1, 1), ("a", 2, 1), ("a", 2, 2), ("b", 1, 2)];
        for (id, (model, version, node)) in (1..).zip(all) {
            replicas.insert(ReplicaId(id), assignment(model, version, node));
        }
        replicas
    }

    /// By version, and what that says must be what all say.
    fn listed(replicas: &Replicas) -> Vec<(String, u32, Vec<u64>)> {
        let versions = replicas.by_version().map(|(model, version, of)| {
            assert_eq!(replicas.of(model, version), Some(of));
            let ids = of.keys().map(|id| id.0).collect();
            (model.to_string(), version.0, ids)
        });
        let listed: Vec<_> = versions.collect();
        assert_eq!(Replicas::from(replicas.all.clone()), *replicas);
        listed
    }

    #[test]
    fn each_version_has_its_own_and_none_is_left_empty() {
        let mut replicas = some();
        let a2 = ("a".to_owned(), 2, vec![2, 3]);
        let b1 = ("b".to_owned(), 1, vec![4]);
        let a1 = ("a".to_owned(), 1, vec![1]);
        assert_eq!(listed(&replicas), [a1, a2.clone(), b1.clone()]);
        assert!(replicas.remove(ReplicaId(1)).is_some());
        assert!(replicas.remove(ReplicaId(1)).is_none());
        assert_eq!(listed(&replicas), [a2, b1.clone()]);
        replicas.remove_model(&ModelName::new("a").unwrap());
        assert_eq!(listed(&replicas), [b1]);
        replicas.remove_node(NodeId(2));
        assert_eq!(listed(&replicas), []);
    }

    #[test]
    fn a_clone_does_not_change_with_the_original() {
        let mut replicas = some();
        let before = replicas.clone();
        replicas.remove_node(NodeId(1));
        assert_eq!((before.all.len(), replicas.all.len()), (4, 2));
        assert_eq!(listed(&before).len(), 3);
    }
}
