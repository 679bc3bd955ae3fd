//! Names of versions: `stable`, `next`, or whatever clients shall address instead of a number.
//!
//! A label begins with a letter, so that where a version is written nobody can take one for the
//! other.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::VersionNumber;
use crate::limits::LABEL_BYTES_MAX;

/// A name of a version within its model: `[a-z][a-z0-9_-]{0,31}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(Box<str>);

/// Why a text is no label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{shown}' is not a label; allowed: [a-z][a-z0-9_-]{{0,31}}")]
pub struct LabelError {
    /// The beginning of what was given, printable or escaped.
    shown: String,
}

/// A version as clients name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VersionRef {
    /// By its number.
    Number(VersionNumber),
    /// By what it is called at the moment.
    Label(Label),
}

/// Why a text names no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{shown}' is neither a version nor a label; \
     a version is a number from 1, a label is [a-z][a-z0-9_-]{{0,31}}"
)]
pub struct VersionRefError {
    /// The beginning of what was given, printable or escaped.
    shown: String,
}

impl Label {
    /// Checks and takes a label.
    ///
    /// # Errors
    /// [`LabelError`] shows it and says what is allowed.
    pub fn new(text: impl Into<String>) -> Result<Self, LabelError> {
        let text = text.into();
        let mut bytes = text.bytes();
        let begins = bytes.next().is_some_and(|first| first.is_ascii_lowercase());
        let is_inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if begins && bytes.all(is_inner) && text.len() <= LABEL_BYTES_MAX {
            return Ok(Self(text.into_boxed_str()));
        }
        let shown = shown(&text);
        Err(LabelError { shown })
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Label {
    type Error = LabelError;

    fn try_from(text: String) -> Result<Self, LabelError> {
        Self::new(text)
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0.into_string()
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        Self::new(text)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VersionRef {
    type Err = VersionRefError;

    /// Takes a number in one spelling, from 1 and without a sign, or a label.
    fn from_str(text: &str) -> Result<Self, VersionRefError> {
        let wrong = || VersionRefError { shown: shown(text) };
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<u32>() {
            Ok(number) if is_number && !text.starts_with('0') => Ok(VersionNumber(number).into()),
            _ => Label::new(text).map(Self::Label).map_err(|_| wrong()),
        }
    }
}

impl From<VersionNumber> for VersionRef {
    fn from(version: VersionNumber) -> Self {
        Self::Number(version)
    }
}

impl From<Label> for VersionRef {
    fn from(label: Label) -> Self {
        Self::Label(label)
    }
}

impl fmt::Display for VersionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(version) => version.fmt(f),
            Self::Label(label) => label.fmt(f),
        }
    }
}

/// As much of a text as an error shows.
fn shown(text: &str) -> String {
    let beginning: String = text.chars().take(LABEL_BYTES_MAX + 1).collect();
    beginning.escape_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_begins_with_a_letter_and_is_short() {
        for good in ["a", "stable", "next-2", "eu_west", &"x".repeat(32)] {
            assert_eq!(Label::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "2", "2a", "-a", "A", "a.b", "a/b", "ä", &"x".repeat(33)] {
            let refused = Label::new(bad).unwrap_err().to_string();
            assert!(refused.contains("allowed"), "{bad}: {refused}");
        }
    }

    #[test]
    fn a_version_is_named_by_a_number_or_a_label_and_never_both() {
        assert_eq!("12".parse(), Ok(VersionRef::Number(VersionNumber(12))));
        let label = Label::new("v2").unwrap();
        assert_eq!("v2".parse(), Ok(VersionRef::Label(label)));
        for bad in ["", "0", "007", "+2", "2a", "4294967296", "a b", "../x"] {
            let refused = bad.parse::<VersionRef>().unwrap_err().to_string();
            assert!(refused.contains("neither"), "{bad}: {refused}");
        }
        for text in ["1", "stable"] {
            assert_eq!(text.parse::<VersionRef>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_error_shows_little_of_what_was_given_and_nothing_raw() {
        let refused = Label::new(format!("\n{}", "x".repeat(1_000))).unwrap_err();
        let refused = refused.to_string();
        assert!(
            refused.len() < 120 && refused.starts_with("'\\nxx"),
            "{refused}"
        );
    }
}
