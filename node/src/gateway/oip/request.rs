//! Reads an inference request: JSON, JSON with binary tensors behind it, or a raw tensor.

mod binary;
mod finite;
mod glance;
mod input;
mod message;
mod named;
mod output;
mod parameters;
mod values;

use bytes::Bytes;
use paceline_protocol::limits::ROWS_MAX;
use paceline_protocol::{ErrorCode, Failure, Shape, Signature, Tensor, TensorSpec};

use super::json::{Keys, Reader};
pub use glance::sequence;
pub use message::Message;
pub use named::{arrange, arrange_outputs};
pub use output::WantedOutput;
pub use parameters::{PARAMETERS_MAX, ParameterValue, RequestParameters};
pub(in crate::gateway) use values::Nested;

/// Longest `id` that is echoed, in bytes: room for any trace id, and no way to have a body
/// sent back.
pub const ID_BYTES_MAX: usize = 1024;

/// What a version asks for beyond its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseOptions {
    /// Whether NaN and infinities are refused. Models whose arithmetic knows missing values
    /// (gradient-boosted trees) take them; the others would answer nonsense.
    pub finite_inputs: bool,
}

impl Default for ParseOptions {
    fn default() -> Self {
        Self {
            finite_inputs: true,
        }
    }
}

/// A request that fits its signature.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedRequest {
    /// What the answer must repeat, if given; may be empty.
    pub id: Option<String>,
    /// One tensor for each input of the signature, in its order, all with the same rows.
    pub inputs: Vec<Tensor>,
    /// Which outputs to send, in the order asked for; all, in the signature's order, if the
    /// request names none.
    pub outputs: Vec<WantedOutput>,
    /// Deadline, priority, sequence and the rest.
    pub parameters: RequestParameters,
}

impl ParsedRequest {
    /// Rows of every input: 1 to [`ROWS_MAX`].
    pub fn rows(&self) -> u64 {
        self.inputs.first().map_or(0, Tensor::rows)
    }
}

/// Reads `body` as a request for a model with this signature.
///
/// `json_bytes` is the value of `Inference-Header-Content-Length`, if the request has one: so
/// many bytes are JSON and what follows are the binary inputs, in the order in which the JSON
/// names them. 0 means that the whole body is the one input, and that all outputs are wanted
/// as binary data.
///
/// In the JSON, `data` is flat or nested as deep as the shape, row-major, at any place in its
/// object. Keys without meaning are checked and skipped; `null` for an optional member means
/// that it is absent.
///
/// Cost: one pass over the JSON (a second one over `data` that stands before its `shape`), one
/// allocation per JSON input, sized by what the body can hold and not by what the shape
/// claims; binary inputs share the body's memory and may start at any address.
///
/// # Errors
/// A [`Failure`] with one of the codes `JSON_INVALID`, `BINARY_INVALID`, `INPUT_*`,
/// `OUTPUT_UNKNOWN`, `PARAMETER_INVALID` or `TOO_LARGE`; its sentence names what was wrong,
/// where, and what is allowed.
pub fn parse(
    body: &Bytes,
    json_bytes: Option<usize>,
    signature: &Signature,
    options: ParseOptions,
) -> Result<ParsedRequest, Failure> {
    let (json, rest) = match json_bytes {
        Some(0) => return binary::parse_raw(body, signature, options),
        Some(length) if length <= body.len() => (&body[..length], Some(body.slice(length..))),
        Some(length) => {
            return Err(Failure::new(
                ErrorCode::BinaryInvalid,
                format!(
                    "inference header size should be in range (0, {}), got: {length}",
                    body.len()
                ),
            ));
        }
        None => (&body[..], None),
    };
    let mut draft = Draft::read(json, signature)?;
    draft.inputs.take_binary(rest, signature)?;
    let inputs = draft.inputs.finish(signature)?;
    check_inputs(&inputs, signature, options)?;
    let outputs = output::resolve(draft.outputs, &draft.parameters, signature)?;
    Ok(ParsedRequest {
        id: draft.id,
        inputs,
        outputs,
        parameters: draft.parameters,
    })
}

/// A request whose JSON has been read.
struct Draft {
    id: Option<String>,
    inputs: input::Inputs,
    outputs: Vec<output::Requested>,
    parameters: RequestParameters,
}

impl Draft {
    fn read(json: &[u8], signature: &Signature) -> Result<Self, Failure> {
        let mut reader = Reader::new(json);
        let mut keys = Keys::new(&["id", "parameters", "inputs", "outputs"]);
        let mut id = None;
        let mut inputs = None;
        let mut outputs = Vec::new();
        let mut parameters = RequestParameters::default();
        let mut members = reader.object("the request object")?;
        while let Some(key) = members.next(&mut reader)? {
            match keys.note(key).map_err(|key| twice(&key, "the request"))? {
                Some("inputs") => inputs = Some(input::read(&mut reader, signature)?),
                Some(_) if reader.null()? => {}
                Some("id") => id = Some(read_id(&mut reader)?),
                Some("parameters") => parameters = RequestParameters::read(&mut reader)?,
                Some("outputs") => outputs = output::read(&mut reader, signature)?,
                _ => reader.skip()?,
            }
        }
        reader.end()?;
        let inputs = inputs.ok_or_else(|| {
            Failure::new(ErrorCode::JsonInvalid, "the request has no member 'inputs'")
        })?;
        Ok(Self {
            id,
            inputs,
            outputs,
            parameters,
        })
    }
}

fn read_id(reader: &mut Reader<'_>) -> Result<String, Failure> {
    let id = reader.string()?;
    if id.len() > ID_BYTES_MAX {
        let message = format!(
            "the id has {} bytes; allowed: at most {ID_BYTES_MAX}",
            id.len()
        );
        return Err(Failure::new(ErrorCode::ParameterInvalid, message));
    }
    Ok(id.into_owned())
}

/// What no single input shows: as many rows in each, and finite values where they are asked for.
///
/// # Errors
/// `INPUT_SHAPE`, `INPUT_NOT_FINITE` or `TOO_LARGE`, by name.
pub(in crate::gateway) fn check_inputs(
    inputs: &[Tensor],
    signature: &Signature,
    options: ParseOptions,
) -> Result<(), Failure> {
    check_rows(inputs, signature)?;
    match options.finite_inputs {
        true => check_finite(inputs, signature),
        false => Ok(()),
    }
}

/// All inputs have the same number of rows, at least one, at most [`ROWS_MAX`].
fn check_rows(inputs: &[Tensor], signature: &Signature) -> Result<(), Failure> {
    let Some((first, others)) = inputs.split_first() else {
        return Ok(());
    };
    let rows = first.rows();
    let name = |position: usize| excerpt(&signature.inputs[position].name);
    if rows == 0 {
        let message = format!(
            "input {} has shape {}: its first dimension counts rows and is at least 1",
            name(0),
            first.shape()
        );
        return Err(Failure::new(ErrorCode::InputShape, message));
    }
    if rows > ROWS_MAX {
        let message = format!(
            "input {} has {rows} rows; allowed: at most {ROWS_MAX} in one request",
            name(0)
        );
        return Err(Failure::new(ErrorCode::TooLarge, message));
    }
    match others.iter().position(|tensor| tensor.rows() != rows) {
        None => Ok(()),
        Some(other) => Err(Failure::new(
            ErrorCode::InputShape,
            format!(
                "inputs differ in rows, their first dimension: {} has {rows}, {} has {}",
                name(0),
                name(other + 1),
                others[other].rows()
            ),
        )),
    }
}

fn check_finite(inputs: &[Tensor], signature: &Signature) -> Result<(), Failure> {
    for (tensor, spec) in inputs.iter().zip(&signature.inputs) {
        if let Some((element, value)) = finite::first_offender(tensor) {
            let message = format!(
                "element {element} of input {} is {value}, and this model takes finite values only",
                excerpt(&spec.name)
            );
            return Err(Failure::new(ErrorCode::InputNotFinite, message));
        }
    }
    Ok(())
}

/// The shape fits the pattern and the declared rows are there to be counted.
fn check_shape(spec: &TensorSpec, shape: &Shape) -> Result<(), Failure> {
    if spec.shape.matches(shape) {
        return Ok(());
    }
    let message = format!(
        "input {} has shape {shape}, the model takes {}",
        excerpt(&spec.name),
        spec.shape
    );
    Err(Failure::new(ErrorCode::InputShape, message))
}

/// A key that stands twice in one object.
fn twice(key: &str, place: &str) -> Failure {
    let message = format!("the key {} stands twice in {place}", excerpt(key));
    Failure::new(ErrorCode::JsonInvalid, message)
}

/// Names in quotes, separated by commas.
pub(in crate::gateway) fn listed(specs: &[TensorSpec]) -> String {
    let names: Vec<_> = specs.iter().map(|spec| excerpt(&spec.name)).collect();
    names.join(", ")
}

/// Text of the request in quotes, cut short, control characters escaped: fit for a sentence
/// that may end up in a log.
pub(in crate::gateway) fn excerpt(text: &str) -> String {
    const SHOWN_CHARACTERS_MAX: usize = 64;
    let mut shown = String::from("'");
    let mut characters = text.chars();
    for character in characters.by_ref().take(SHOWN_CHARACTERS_MAX) {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown.push_str(if characters.next().is_some() {
        "…'"
    } else {
        "'"
    });
    shown
}

#[cfg(test)]
mod tests;
