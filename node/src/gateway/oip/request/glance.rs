//! What a body says of itself, before it is known whose signature it is to be read by.

use paceline_protocol::traffic::Unit;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Body {
    parameters: Option<Parameters>,
}

#[derive(Deserialize)]
struct Parameters {
    sequence_id: Option<Value>,
}

/// The sequence that a body names, if it names one. Whatever is wrong with it is said when it is read
/// whole. Cost: one pass over the JSON, in which nothing but the name is kept.
pub fn sequence(body: &[u8], json_bytes: Option<usize>) -> Option<Unit> {
    let json = &body[..json_bytes.unwrap_or(body.len()).min(body.len())];
    let body: Body = serde_json::from_slice(json).ok()?;
    match body.parameters?.sequence_id? {
        Value::String(text) => Unit::new(text).ok(),
        Value::Number(number) => {
            let number = number.as_u64().filter(|number| *number > 0)?;
            Unit::new(number.to_string()).ok()
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_found_wherever_it_stands_and_nothing_else_is() {
        let named =
            |json: &str| sequence(json.as_bytes(), None).map(|unit| unit.as_str().to_owned());
        let seven = Some("7".to_owned());
        assert_eq!(
            named(r#"{"parameters":{"sequence_id":7},"inputs":[]}"#),
            seven
        );
        assert_eq!(
            named(r#"{"inputs":[{"data":[1]}],"parameters":{"sequence_id":"7"}}"#),
            seven
        );
        for none in [
            r#"{"inputs":[]}"#,
            r#"{"parameters":{"sequence_id":0}}"#,
            r#"{"parameters":{"sequence_id":""}}"#,
            r#"{"parameters":{"sequence_id":-1}}"#,
            r#"{"inputs":[{"parameters":{"sequence_id":7}}]}"#,
            "no JSON",
        ] {
            assert_eq!(named(none), None, "{none}");
        }
        let binary = br#"{"parameters":{"sequence_id":7}}\x00\x01"#;
        assert!(sequence(binary, Some(32)).is_some());
        assert!(sequence(binary, Some(1 << 40)).is_none());
    }
}
