//! A JSON file of a model's folder, and its fields with what they may be.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::error::{EncoderError, shown};
use crate::source::ModelSource;

/// A parsed file. Its fields are looked up one by one, so that each refusal can name the field,
/// its value, and what is allowed. Fields that nobody asks for may hold anything: the writers of
/// these files add new ones every year.
pub(super) struct Document {
    file: &'static str,
    value: Value,
}

impl Document {
    /// Reads a file of the folder; `None` if it is not there.
    ///
    /// # Errors
    /// [`EncoderError::Json`].
    pub(super) fn read(
        source: &ModelSource,
        file: &'static str,
    ) -> Result<Option<Self>, EncoderError> {
        let Some(content) = source.file(file) else {
            return Ok(None);
        };
        let value = serde_json::from_slice(content).map_err(|error| EncoderError::Json {
            file,
            reason: shown(&error.to_string()),
        })?;
        Ok(Some(Self { file, value }))
    }

    /// The whole of it.
    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    /// A field that is there and not `null`.
    pub(super) fn field(&self, field: &str) -> Option<&Value> {
        self.value.get(field).filter(|value| !value.is_null())
    }

    /// A whole number in a range; `None` if it is not there.
    pub(super) fn count(
        &self,
        field: &'static str,
        allowed: RangeInclusive<usize>,
    ) -> Result<Option<usize>, EncoderError> {
        let Some(value) = self.field(field) else {
            return Ok(None);
        };
        let count = value
            .as_u64()
            .and_then(|count| usize::try_from(count).ok())
            .filter(|count| allowed.contains(count));
        match count {
            Some(count) => Ok(Some(count)),
            None => Err(self.refused(field, value, range(&allowed))),
        }
    }

    /// A whole number in a range that has to be there.
    pub(super) fn needed(
        &self,
        field: &'static str,
        allowed: RangeInclusive<usize>,
    ) -> Result<usize, EncoderError> {
        let missing = || EncoderError::FieldMissing {
            file: self.file,
            field,
            allowed: range(&allowed),
        };
        self.count(field, allowed.clone())?.ok_or_else(missing)
    }

    /// `true` or `false`; `None` if it is not there.
    pub(super) fn flag(&self, field: &'static str) -> Result<Option<bool>, EncoderError> {
        let Some(value) = self.field(field) else {
            return Ok(None);
        };
        match value.as_bool() {
            Some(flag) => Ok(Some(flag)),
            None => Err(self.refused(field, value, "true or false")),
        }
    }

    /// A text; `None` if it is not there.
    pub(super) fn text(&self, field: &'static str) -> Result<Option<&str>, EncoderError> {
        let Some(value) = self.field(field) else {
            return Ok(None);
        };
        match value.as_str() {
            Some(text) => Ok(Some(text)),
            None => Err(self.refused(field, value, "a text")),
        }
    }

    /// A refusal of a field's value.
    pub(super) fn refused(
        &self,
        field: &str,
        value: &Value,
        allowed: impl Into<String>,
    ) -> EncoderError {
        EncoderError::Field {
            file: self.file,
            field: field.to_owned(),
            value: brief(value),
            allowed: allowed.into(),
        }
    }
}

fn range(allowed: &RangeInclusive<usize>) -> String {
    format!("{} to {}", allowed.start(), allowed.end())
}

/// A value in a message: a number or a short text as it stands, of anything else its kind.
fn brief(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("\"{}\"", shown(text)),
        other => shown(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(json: &str) -> Document {
        let file = (
            "config.json".to_owned(),
            bytes::Bytes::from(json.to_owned()),
        );
        let source = ModelSource::from_files([file]);
        Document::read(&source, "config.json").unwrap().unwrap()
    }

    #[test]
    fn fields_are_named_with_their_value_and_what_is_allowed() {
        let json =
            r#"{"layers": 10000, "negative": -1, "list": [1], "text": "a\nb", "none": null}"#;
        let document = document(json);
        let told = |field| document.count(field, 1..=64).unwrap_err().to_string();
        assert_eq!(
            told("layers"),
            "config.json, layers is 10000; allowed: 1 to 64"
        );
        assert_eq!(
            told("negative"),
            "config.json, negative is -1; allowed: 1 to 64"
        );
        assert_eq!(
            told("list"),
            "config.json, list is a list; allowed: 1 to 64"
        );
        assert_eq!(
            told("text"),
            "config.json, text is \"a\\nb\"; allowed: 1 to 64"
        );
        assert_eq!(document.count("none", 1..=64), Ok(None));
        let told = document.needed("none", 1..=64).unwrap_err().to_string();
        assert_eq!(told, "config.json has no none; it must be 1 to 64");
        assert!(document.flag("text").is_err() && document.text("layers").is_err());
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let read = |json: String| {
            let source = ModelSource::from_files([("config.json".to_owned(), json.into())]);
            Document::read(&source, "config.json")
                .err()
                .map(|error| error.to_string())
        };
        assert_eq!(read("{}".into()), None);
        let told = read("{\"a\": }".into()).unwrap();
        assert!(
            told.contains("'config.json' is not JSON") && told.contains("line 1 column 7"),
            "{told}"
        );
        let deep = read("[".repeat(1000)).unwrap();
        assert!(deep.contains("recursion limit"), "{deep}");
    }
}
