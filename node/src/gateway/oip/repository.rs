//! Bodies of Triton's model repository extension.

use bytes::Bytes;
use paceline_protocol::{ErrorCode, Failure};

use super::json::write::{list, object, string_member};
use super::json::{Keys, Reader};
use crate::gateway::models::{VersionState, check_load_parameter, check_unload_parameter};

/// Body of the answer to `POST /v2/repository/index`.
pub fn index(versions: &[VersionState]) -> Bytes {
    let mut out = Vec::new();
    list(&mut out, versions, |out, version| {
        object(out, |out| {
            string_member(out, "name", &version.name);
            string_member(out, "version", &version.version.to_string());
            string_member(out, "state", version.state.name());
            string_member(out, "reason", &version.reason);
        });
    });
    out.into()
}

/// Whether a request for the index wants what is ready only. Its body may be empty.
///
/// # Errors
/// `JSON_INVALID`.
pub fn wants_ready_only(body: &[u8]) -> Result<bool, Failure> {
    let mut ready = false;
    each_member(body, "ready", |reader| {
        ready = !reader.null()? && reader.boolean()?;
        Ok(())
    })?;
    Ok(ready)
}

/// Checks the body of a request to load a model, which may be empty.
///
/// # Errors
/// `JSON_INVALID`, `UNSUPPORTED` or `PARAMETER_INVALID`.
pub fn check_load(body: &[u8]) -> Result<(), Failure> {
    each_parameter(body, |name, reader| {
        check_load_parameter(name)?;
        Ok(reader.skip()?)
    })
}

/// Checks the body of a request to unload a model, which may be empty.
///
/// # Errors
/// `JSON_INVALID` or `PARAMETER_INVALID`.
pub fn check_unload(body: &[u8]) -> Result<(), Failure> {
    each_parameter(body, |name, reader| {
        check_unload_parameter(name)?;
        reader.boolean()?;
        Ok(())
    })
}

fn each_parameter<'a>(
    body: &'a [u8],
    mut check: impl FnMut(&str, &mut Reader<'a>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    each_member(body, "parameters", |reader| {
        if reader.null()? {
            return Ok(());
        }
        let mut keys = Keys::new(&[]);
        let mut members = reader.object("the parameters")?;
        while let Some(key) = members.next(reader)? {
            check(&key, reader)?;
            keys.note(key).map_err(|key| twice(&key))?;
        }
        Ok(())
    })
}

/// Reads a body of one object, with its only member that has a meaning. An empty body is an empty
/// object.
fn each_member<'a>(
    body: &'a [u8],
    known: &str,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut reader = Reader::new(body);
    if reader.peek().is_none() {
        return Ok(());
    }
    let mut keys = Keys::new(&[]);
    let mut members = reader.object("a request object, or nothing")?;
    while let Some(key) = members.next(&mut reader)? {
        match key == known {
            true => read(&mut reader)?,
            false => reader.skip()?,
        }
        keys.note(key).map_err(|key| twice(&key))?;
    }
    Ok(reader.end()?)
}

fn twice(key: &str) -> Failure {
    let shown: String = key.chars().take(64).collect();
    let message = format!("{shown:?} stands twice in the request");
    Failure::new(ErrorCode::JsonInvalid, message)
}

#[cfg(test)]
mod tests {
    use paceline_protocol::VersionNumber;

    use super::*;
    use crate::gateway::models::State;

    #[test]
    fn an_index_is_an_array_with_states_and_reasons() {
        let version = |state, reason: &str| VersionState {
            name: "m".into(),
            version: VersionNumber(3),
            state,
            reason: reason.into(),
        };
        let versions = [
            version(State::Ready, ""),
            version(State::Unavailable, "unloaded"),
        ];
        assert_eq!(
            std::str::from_utf8(&index(&versions)).unwrap(),
            r#"[{"name":"m","version":"3","state":"READY","reason":""},{"name":"m","version":"3","state":"UNAVAILABLE","reason":"unloaded"}]"#
        );
        assert_eq!(&index(&[])[..], b"[]");
    }

    #[test]
    fn bodies_may_be_empty_and_carry_nothing_that_is_not_known() {
        for (body, ready) in [
            ("", false),
            (" ", false),
            ("{}", false),
            (r#"{"ready":true}"#, true),
            (r#"{"x":[1],"ready":null}"#, false),
        ] {
            assert_eq!(wants_ready_only(body.as_bytes()).unwrap(), ready, "{body}");
        }
        for body in [
            r#"{"ready":1}"#,
            "[]",
            "{",
            "{} x",
            r#"{"ready":true,"ready":true}"#,
        ] {
            let refused = wants_ready_only(body.as_bytes()).unwrap_err();
            assert_eq!(refused.code, ErrorCode::JsonInvalid, "{body}");
        }
        for body in ["", "{}", r#"{"parameters":{}}"#, r#"{"parameters":null}"#] {
            assert!(check_load(body.as_bytes()).is_ok(), "{body}");
            assert!(check_unload(body.as_bytes()).is_ok(), "{body}");
        }
        let file = br#"{"parameters":{"config":"{}","file:1/m.onnx":"AA=="}}"#;
        assert_eq!(check_load(file).unwrap_err().code, ErrorCode::Unsupported);
        let unload = br#"{"parameters":{"unload_dependents":true}}"#;
        assert!(check_unload(unload).is_ok());
        assert!(check_load(unload).is_err());
        let number = br#"{"parameters":{"unload_dependents":1}}"#;
        assert_eq!(
            check_unload(number).unwrap_err().code,
            ErrorCode::JsonInvalid
        );
    }
}
