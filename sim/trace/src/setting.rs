//! What is wrong with a setting, said so that it can be put right.

use std::fmt;

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    /// Which setting: the path of its key, such as `rows.most`.
    pub key: String,
    /// What it is.
    pub value: String,
    /// What it may be.
    pub allowed: String,
}

impl InvalidSetting {
    /// Of the setting with this key.
    pub fn new(key: &str, value: impl fmt::Display, allowed: impl fmt::Display) -> Self {
        Self {
            key: key.to_owned(),
            value: value.to_string(),
            allowed: allowed.to_string(),
        }
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            value,
            allowed,
        } = self;
        write!(f, "{key} is {value}; allowed: {allowed}")
    }
}

impl std::error::Error for InvalidSetting {}

/// Holds `value` between two bounds, both allowed.
///
/// # Errors
/// It is outside.
pub fn within(key: &str, value: u64, (least, most): (u64, u64)) -> Result<(), InvalidSetting> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let allowed = format!("{least} to {most}");
    Err(InvalidSetting::new(key, value, allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_the_value_and_what_is_allowed_are_named() {
        let invalid = within("arrivals.rate_per_s", 0, (1, 9)).unwrap_err();
        assert_eq!(
            invalid.to_string(),
            "arrivals.rate_per_s is 0; allowed: 1 to 9"
        );
        assert_eq!(within("rate", 1, (1, 9)), Ok(()));
        assert_eq!(within("rate", 9, (1, 9)), Ok(()));
    }
}
