//! What a node's certificate says it is: the one name in it. Nodes and clients read it alike.

use std::fmt;
use std::str::FromStr;

use crate::id::NodeId;

/// A node of a cluster, as its certificate names it: `n<id>.<cluster>.paceline`, with the
/// cluster as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: u128,
}

/// A name that is not a node's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is not the name of a Paceline node: n<id>.<cluster>.paceline")]
pub struct SubjectError {
    /// What was found, shortened.
    pub name: String,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}.{:032x}.{DOMAIN}", self.node.0, self.cluster)
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(name: &str) -> Result<Self, SubjectError> {
        let parsed = || {
            let mut labels = name.split('.');
            let node = labels.next()?.strip_prefix('n')?.parse().ok()?;
            let cluster = u128::from_str_radix(labels.next()?, 16).ok()?;
            let subject = Self {
                node: NodeId(node),
                cluster,
            };
            // One spelling for each node: no plus sign, no leading zero, no upper case.
            (subject.to_string() == name).then_some(subject)
        };
        parsed().ok_or_else(|| SubjectError {
            name: name.chars().take(80).collect(),
        })
    }
}

const DOMAIN: &str = "paceline";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling() {
        let subject = Subject {
            node: NodeId(812),
            cluster: 0xab,
        };
        let name = "n812.000000000000000000000000000000ab.paceline";
        assert_eq!(subject.to_string(), name);
        assert_eq!(name.parse(), Ok(subject));
        for wrong in [
            "",
            "n812",
            "n+812.000000000000000000000000000000ab.paceline",
            "n0812.000000000000000000000000000000ab.paceline",
            "n812.000000000000000000000000000000AB.paceline",
            "n812.ab.paceline",
            "n812.000000000000000000000000000000ab.paceline.example",
            "n99999999999999999999.000000000000000000000000000000ab.paceline",
        ] {
            assert!(wrong.parse::<Subject>().is_err(), "{wrong}");
        }
    }
}
