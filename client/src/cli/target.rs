//! `NAME@V`: a model, and perhaps one of its versions, by number or label; and how many replicas.

use std::fmt;
use std::str::FromStr;

use paceline_protocol::limits::REPLICAS_MAX;
use paceline_protocol::registry::ReplicaTarget;
use paceline_protocol::{ModelName, NameError, VersionRef, VersionRefError};

/// A model, and the version meant if one is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelTarget {
    pub(crate) name: ModelName,
    pub(crate) version: Option<VersionRef>,
}

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{0}, as in digits@2 or digits@stable")]
    Version(#[from] VersionRefError),
}

impl FromStr for ModelTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version.parse()?)),
            None => (text, None),
        };
        let name = ModelName::new(name)?;
        Ok(Self { name, version })
    }
}

impl fmt::Display for ModelTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => self.name.fmt(f),
        }
    }
}

/// Reads a model's name.
pub(crate) fn parse_name(text: &str) -> Result<ModelName, NameError> {
    ModelName::new(text)
}

/// Reads `--replicas`.
pub(crate) fn parse_replicas(text: &str) -> Result<ReplicaTarget, String> {
    match text.parse::<u32>() {
        _ if text == "each" => Ok(ReplicaTarget::Each),
        Ok(count) if (1..=REPLICAS_MAX).contains(&(count as usize)) => {
            Ok(ReplicaTarget::Count(count))
        }
        _ => Err(format!(
            "'{text}' is not a number of replicas; allowed: 1 to {REPLICAS_MAX}, or 'each' for one on every node"
        )),
    }
}

#[cfg(test)]
mod tests {
    use paceline_protocol::VersionNumber;

    use super::*;

    #[test]
    fn a_target_is_a_name_and_perhaps_a_version() {
        let target: ModelTarget = "digits".parse().unwrap();
        assert_eq!((target.name.as_str(), target.version), ("digits", None));
        let target: ModelTarget = "a.b-c@12".parse().unwrap();
        assert_eq!(target.version, Some(VersionNumber(12).into()));
        assert_eq!(target.to_string(), "a.b-c@12");
        let target: ModelTarget = "digits@stable".parse().unwrap();
        assert_eq!(target.to_string(), "digits@stable");
        for (text, wanted) in [
            ("digits@", "'' is neither a version nor a label"),
            ("digits@0", "'0' is neither a version"),
            ("digits@2a", "'2a' is neither a version"),
            ("digits@+2", "'+2' is neither a version"),
            ("digits@2@3", "'2@3' is neither a version"),
            ("digits@4294967296", "is neither a version"),
            ("@2", "must not be empty"),
            ("Digits", "'D' at position 0"),
        ] {
            let refused = text.parse::<ModelTarget>().unwrap_err().to_string();
            assert!(refused.contains(wanted), "{text}: {refused}");
        }
    }

    #[test]
    fn replicas_are_a_number_or_each() {
        assert_eq!(parse_replicas("3"), Ok(ReplicaTarget::Count(3)));
        assert_eq!(parse_replicas("each"), Ok(ReplicaTarget::Each));
        for bad in ["0", "-1", "all", "", "20001"] {
            assert!(
                parse_replicas(bad).unwrap_err().contains("allowed"),
                "{bad}"
            );
        }
    }
}
