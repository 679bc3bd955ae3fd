//! Parameters: of requests, of tensors, and those that pass through without a meaning here.

use std::borrow::Cow;

use paceline_protocol::limits::REQUEST_BUDGET_MAX_MS;
use paceline_protocol::traffic::Unit;
use paceline_protocol::{Criticality, ErrorCode, Failure};

use super::super::json::{Keys, Reader};
use super::{excerpt, twice};

/// Most parameters of a request or a tensor: clients in use send a handful.
pub const PARAMETERS_MAX: usize = 64;
/// Longest text of a parameter, in bytes: names and ids fit, payloads belong into tensors.
pub(super) const TEXT_BYTES_MAX: usize = 4096;

/// Value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum ParameterValue {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A whole number above the range of `i64`.
    Unsigned(u64),
    /// Any other number.
    Number(f64),
    /// Text.
    Text(String),
}

/// Parameters of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestParameters {
    /// Budget in microseconds, 1 to ten minutes; `None` if the client leaves it to the node.
    pub timeout_us: Option<u64>,
    /// 1 is the most urgent; `None` says nothing, which a client may write as 0.
    pub priority: Option<u64>,
    /// The sequence, unless the request stands alone; a number is its digits.
    pub sequence: Option<Unit>,
    /// Whether this request opens its sequence. Where a sequence goes follows from its name, so
    /// nothing is to be done.
    pub sequence_start: bool,
    /// Whether this request closes its sequence; likewise.
    pub sequence_end: bool,
    /// Whether the client says that running the request twice does no harm, or does.
    pub idempotent: Option<bool>,
    /// Whether outputs are binary unless they say otherwise.
    pub binary_data_output: bool,
    /// All others, in the order given, for policies and logs.
    pub others: Vec<(String, ParameterValue)>,
}

impl RequestParameters {
    /// Reads the `parameters` of a request.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Failure> {
        let mut parameters = Self::default();
        each(reader, "the request's parameters", |name, value| {
            parameters.set(name, value)
        })?;
        Ok(parameters)
    }

    /// Whether the request may run twice. It may, unless it says otherwise or belongs to a
    /// sequence: inference changes nothing else.
    pub fn may_run_twice(&self) -> bool {
        self.sequence.is_none() && self.idempotent != Some(false)
    }

    /// How much the request matters: its `priority` from 1 to 4, and beyond that as 4.
    pub fn criticality(&self) -> Criticality {
        self.priority
            .map_or_else(Criticality::default, Criticality::of_priority)
    }

    /// Takes one of them.
    pub(super) fn set(&mut self, name: Cow<'_, str>, value: ParameterValue) -> Result<(), Failure> {
        match &*name {
            "timeout" => {
                let most = REQUEST_BUDGET_MAX_MS * 1000;
                let microseconds = value.unsigned().filter(|value| *value <= most);
                let allowed = "microseconds from 1 to 600000000, or 0 for the node's default";
                self.timeout_us = Some(microseconds.ok_or_else(|| bad(&name, &value, allowed))?)
                    .filter(|value| *value > 0);
            }
            "priority" => {
                let level = value.unsigned();
                let allowed = "1 (most urgent) and up, or 0 for the usual";
                self.priority = Some(level.ok_or_else(|| bad(&name, &value, allowed))?)
                    .filter(|value| *value > 0);
            }
            "sequence_id" => self.sequence = sequence(&name, value)?,
            "sequence_start" => self.sequence_start = value.switch(&name)?,
            "sequence_end" => self.sequence_end = value.switch(&name)?,
            "idempotent" => self.idempotent = Some(value.switch(&name)?),
            "binary_data_output" => self.binary_data_output = value.switch(&name)?,
            _ => self.others.push((name.into_owned(), value)),
        }
        Ok(())
    }
}

fn sequence(name: &str, value: ParameterValue) -> Result<Option<Unit>, Failure> {
    let text = match &value {
        ParameterValue::Text(text) => text.clone(),
        other => match other.unsigned() {
            Some(0) => return Ok(None),
            Some(number) => number.to_string(),
            None => return Err(bad(name, &value, "a whole number from 0, or a string")),
        },
    };
    if text.is_empty() {
        return Ok(None);
    }
    let allowed = "a string of at most 128 bytes without control characters";
    Unit::new(text)
        .map(Some)
        .map_err(|_| bad(name, &value, allowed))
}

impl ParameterValue {
    /// A whole number that is not negative.
    pub(super) fn unsigned(&self) -> Option<u64> {
        match self {
            Self::Integer(value) => u64::try_from(*value).ok(),
            Self::Unsigned(value) => Some(*value),
            Self::Bool(_) | Self::Number(_) | Self::Text(_) => None,
        }
    }

    /// `true` or `false`, or a failure that names the parameter.
    pub(super) fn switch(&self, name: &str) -> Result<bool, Failure> {
        match self {
            Self::Bool(value) => Ok(*value),
            other => Err(bad(name, other, "true or false")),
        }
    }

    fn read(reader: &mut Reader<'_>, name: &str) -> Result<Self, Failure> {
        match reader.peek() {
            Some(b'"') => {
                let text = reader.string()?;
                if text.len() > TEXT_BYTES_MAX {
                    return Err(too_long(name, text.len()));
                }
                Ok(Self::Text(text.into_owned()))
            }
            Some(b't' | b'f') => Ok(Self::Bool(reader.boolean()?)),
            Some(b'-' | b'0'..=b'9' | b'N' | b'I') => {
                let number = reader.number()?;
                let whole = number.to_i64().map(Self::Integer);
                let whole = whole.or_else(|| number.to_u64().map(Self::Unsigned));
                whole
                    .or_else(|| number.to_f64().map(Self::Number))
                    .ok_or_else(|| {
                        let message = format!(
                            "parameter {} is {}, more than a 64-bit float holds",
                            excerpt(name),
                            excerpt(number.text())
                        );
                        Failure::new(ErrorCode::ParameterInvalid, message)
                    })
            }
            kind @ Some(b'[' | b'{' | b'n') => {
                let kind = match kind {
                    Some(b'[') => "an array",
                    Some(b'{') => "an object",
                    _ => "null",
                };
                let message = format!(
                    "parameter {} is {kind}; allowed: a string, a number, true or false",
                    excerpt(name)
                );
                Err(Failure::new(ErrorCode::ParameterInvalid, message))
            }
            _ => Err(reader.expected("a string, a number, true or false").into()),
        }
    }
}

/// Reads a `parameters` object and hands over each of its members; none stands twice.
pub(super) fn each<'a>(
    reader: &mut Reader<'a>,
    place: &str,
    mut take: impl FnMut(Cow<'a, str>, ParameterValue) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut keys = Keys::new(&[]);
    let mut count = 0;
    let mut members = reader.object("an object of parameters")?;
    while let Some(name) = members.next(reader)? {
        count += 1;
        if count > PARAMETERS_MAX {
            let message = format!("more than {PARAMETERS_MAX} parameters in {place}");
            return Err(Failure::new(ErrorCode::ParameterInvalid, message));
        }
        let value = ParameterValue::read(reader, &name)?;
        keys.note(name.clone())
            .map_err(|name| twice(&name, place))?;
        take(name, value)?;
    }
    Ok(())
}

/// A parameter whose value is not allowed.
pub(super) fn bad(name: &str, value: &ParameterValue, allowed: &str) -> Failure {
    let shown = match value {
        ParameterValue::Bool(value) => value.to_string(),
        ParameterValue::Integer(value) => value.to_string(),
        ParameterValue::Unsigned(value) => value.to_string(),
        ParameterValue::Number(value) => value.to_string(),
        ParameterValue::Text(text) => excerpt(text),
    };
    let message = format!("parameter {} is {shown}; allowed: {allowed}", excerpt(name));
    Failure::new(ErrorCode::ParameterInvalid, message)
}

/// A text that is longer than a parameter's.
pub(super) fn too_long(name: &str, bytes: usize) -> Failure {
    let name = excerpt(name);
    let message = format!("parameter {name} has {bytes} bytes; allowed: at most {TEXT_BYTES_MAX}");
    Failure::new(ErrorCode::ParameterInvalid, message)
}

/// How many classes an output's parameter asks for.
pub(super) fn classes(name: &str, value: &ParameterValue) -> Result<usize, Failure> {
    let count = value.unsigned().filter(|count| *count > 0);
    let count = count.ok_or_else(|| bad(name, value, "a number of classes, at least 1"))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Shared memory is known to the protocol and not offered here.
pub(super) fn shared_memory(label: &str) -> Failure {
    let message = format!(
        "{label} asks for a shared memory region, which is not offered: send the values as \
         JSON or as binary data"
    );
    Failure::new(ErrorCode::ParameterInvalid, message)
}
