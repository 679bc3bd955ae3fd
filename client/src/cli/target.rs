//! `NAME@V`: a model, and perhaps one of its versions; and how many replicas.

use std::fmt;
use std::str::FromStr;

use paceline_protocol::limits::REPLICAS_MAX;
use paceline_protocol::registry::ReplicaTarget;
use paceline_protocol::{ModelName, NameError, VersionNumber};

/// A model, and the version meant if one is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelTarget {
    pub(crate) name: ModelName,
    pub(crate) version: Option<VersionNumber>,
}

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("'{text}' is not a version; a version is a number from 1, as in digits@2")]
    Version { text: String },
}

impl FromStr for ModelTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(checked_version(version)?)),
            None => (text, None),
        };
        let name = ModelName::new(name)?;
        Ok(Self { name, version })
    }
}

impl fmt::Display for ModelTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => self.name.fmt(f),
        }
    }
}

fn checked_version(text: &str) -> Result<VersionNumber, TargetError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && number > 0 => Ok(VersionNumber(number)),
        _ => Err(TargetError::Version {
            text: text.to_owned(),
        }),
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
    use super::*;

    #[test]
    fn a_target_is_a_name_and_perhaps_a_version() {
        let target: ModelTarget = "digits".parse().unwrap();
        assert_eq!((target.name.as_str(), target.version), ("digits", None));
        let target: ModelTarget = "a.b-c@12".parse().unwrap();
        assert_eq!(target.version, Some(VersionNumber(12)));
        assert_eq!(target.to_string(), "a.b-c@12");
        for (text, wanted) in [
            ("digits@", "'' is not a version"),
            ("digits@0", "'0' is not a version"),
            ("digits@v2", "'v2' is not a version"),
            ("digits@+2", "'+2' is not a version"),
            ("digits@2@3", "'2@3' is not a version"),
            ("digits@4294967296", "is not a version"),
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
