//! How many values a JSON text holds, before anything builds them in memory.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

/// Fails where a JSON text is none, or holds more than `values_max` values. Cost: one pass, no
/// memory.
///
/// # Errors
/// The parser's, or one that names the limit.
pub(super) fn check(json: &[u8], values_max: usize) -> serde_json::Result<()> {
    let mut left = values_max;
    let mut json = serde_json::Deserializer::from_slice(json);
    let counter = Counter {
        left: &mut left,
        values_max,
    };
    counter.deserialize(&mut json)?;
    json.end()
}

struct Counter<'a> {
    left: &'a mut usize,
    values_max: usize,
}

impl Counter<'_> {
    fn count<E: Error>(&mut self) -> Result<(), E> {
        match self.left.checked_sub(1) {
            Some(left) => *self.left = left,
            None => {
                let values_max = self.values_max;
                return Err(E::custom(format!("it holds more than {values_max} values")));
            }
        }
        Ok(())
    }

    fn again(&mut self) -> Counter<'_> {
        Counter {
            left: self.left,
            values_max: self.values_max,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Counter<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Counter<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut sequence: A) -> Result<(), A::Error> {
        while sequence.next_element_seed(self.again())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while map.next_key::<Key>()?.is_some() {
            map.next_value_seed(self.again())?;
        }
        Ok(())
    }
}

/// A key that is not kept.
struct Key;

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IgnoredAny).map(|_| Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_wherever_they_stand() {
        let json = br#"{"a": [1, -2, [3.5, null]], "b": {"c": true, "d": "e"}}"#;
        assert!(check(json, 10).is_ok());
        let told = check(json, 9).unwrap_err().to_string();
        assert!(told.starts_with("it holds more than 9 values"), "{told}");
        assert!(check(b"[1, 2", 9).is_err() && check(b"1 2", 9).is_err());
        assert!(check("[".repeat(10_000).as_bytes(), 100_000).is_err());
    }
}
