//! A parameter of a message: an entry of a map from names to values.

use paceline_protocol::{ErrorCode, Failure};

use super::super::super::wire::{Field, Span};
use super::super::excerpt;
use super::super::parameters::{PARAMETERS_MAX, ParameterValue, TEXT_BYTES_MAX, too_long};

/// Reads an entry of the map in `place`, whose names so far are `names`; none stands twice.
pub(super) fn read<'a>(
    field: Field<'a>,
    names: &mut Vec<&'a str>,
    place: &str,
) -> Result<(&'a str, ParameterValue), Failure> {
    let mut fields = field.span("parameters")?;
    let (mut name, mut value) = ("", None);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => name = field.text("a parameter's name")?,
            2 => value = read_value(field.span("a parameter's value")?)?.or(value),
            _ => {}
        }
    }
    let refused = |message| Err(Failure::new(ErrorCode::ParameterInvalid, message));
    if names.len() == PARAMETERS_MAX {
        return refused(format!("more than {PARAMETERS_MAX} parameters in {place}"));
    }
    if names.contains(&name) {
        return refused(format!(
            "parameter {} stands twice in {place}",
            excerpt(name)
        ));
    }
    names.push(name);
    match value {
        Some(ParameterValue::Text(text)) if text.len() > TEXT_BYTES_MAX => {
            Err(too_long(name, text.len()))
        }
        Some(ParameterValue::Number(number)) if !number.is_finite() => refused(format!(
            "parameter {} is {number}; allowed: finite numbers",
            excerpt(name)
        )),
        Some(value) => Ok((name, value)),
        None => refused(format!("parameter {} has no value", excerpt(name))),
    }
}

/// The last of its choices that is there counts, as the language has it.
fn read_value(mut fields: Span<'_>) -> Result<Option<ParameterValue>, Failure> {
    let mut value = None;
    while let Some(field) = fields.next()? {
        let read = match field.number {
            1 => ParameterValue::Bool(field.varint("bool_param")? != 0),
            2 => ParameterValue::Integer(field.varint("int64_param")?.cast_signed()),
            3 => ParameterValue::Text(field.text("string_param")?.to_owned()),
            4 => ParameterValue::Number(field.double("double_param")?),
            5 => ParameterValue::Unsigned(field.varint("uint64_param")?),
            _ => continue,
        };
        value = Some(read);
    }
    Ok(value)
}
