//! How much a request matters when not all can be served.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A request's class, the most critical first. Strict: while a request of one class waits, none of
/// a lower class is begun, and under pressure the lower ones are refused first. Names are those of
/// Google's site reliability book (chapter 21, "Handling Overload").
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Criticality {
    /// Somebody would be hurt.
    CriticalPlus,
    /// Somebody waits for it: what is said of nothing.
    #[default]
    Critical,
    /// It may be late, or tried again in minutes.
    SheddablePlus,
    /// It may go unserved for hours.
    Sheddable,
}

/// This is the name of no class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownCriticality(String);

impl Criticality {
    /// Every class, the most critical first.
    pub const ALL: [Self; 4] = [
        Self::CriticalPlus,
        Self::Critical,
        Self::SheddablePlus,
        Self::Sheddable,
    ];

    /// What people write.
    pub fn name(self) -> &'static str {
        match self {
            Self::CriticalPlus => "critical-plus",
            Self::Critical => "critical",
            Self::SheddablePlus => "sheddable-plus",
            Self::Sheddable => "sheddable",
        }
    }

    /// Of a `priority` as Triton's clients send it: 1 is the most urgent, and 0 says nothing.
    pub fn of_priority(priority: u64) -> Self {
        match priority {
            0 | 2 => Self::Critical,
            1 => Self::CriticalPlus,
            3 => Self::SheddablePlus,
            4.. => Self::Sheddable,
        }
    }

    /// The `priority` that means this class.
    pub fn priority(self) -> u64 {
        self as u64 + 1
    }
}

impl FromStr for Criticality {
    type Err = UnknownCriticality;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|class| class.name() == text);
        found.ok_or_else(|| UnknownCriticality(text.chars().take(64).collect()))
    }
}

impl fmt::Display for Criticality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for UnknownCriticality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Criticality::ALL.map(Criticality::name).join(", ");
        write!(f, "'{}' is no criticality; there are: {names}", self.0)
    }
}

impl std::error::Error for UnknownCriticality {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_priorities_are_read_back_and_others_are_refused() {
        for class in Criticality::ALL {
            assert_eq!(class.name().parse(), Ok(class));
            assert_eq!(Criticality::of_priority(class.priority()), class);
        }
        assert_eq!(Criticality::of_priority(0), Criticality::default());
        assert_eq!(Criticality::of_priority(u64::MAX), Criticality::Sheddable);
        assert!(Criticality::CriticalPlus < Criticality::Sheddable);
        let unknown = "urgent".parse::<Criticality>().unwrap_err().to_string();
        assert_eq!(
            unknown,
            "'urgent' is no criticality; there are: critical-plus, critical, sheddable-plus, sheddable"
        );
    }
}
