//! Writes answers and failures.

mod classification;
mod message;
mod values;

use std::borrow::Cow;

use bytes::Bytes;
use paceline_protocol::{Failure, Signature, Tensor, VersionNumber};

pub use self::message::{Envelope, FRAME_BYTES, render_in_stream, render_message};
use super::json::write;
use super::request::{ParameterValue, WantedOutput};
pub(in crate::gateway) use values::Elements;

/// All that an answer says.
#[derive(Clone, Copy, Debug)]
pub struct AnswerView<'a> {
    /// The model as the client addressed it.
    pub model_name: &'a str,
    /// The version that ran.
    pub version: VersionNumber,
    /// The request's `id`, if it had one.
    pub id: Option<&'a str>,
    /// Parameters of the answer; without any, the member is left away.
    pub parameters: &'a [(String, ParameterValue)],
    /// The version's signature.
    pub signature: &'a Signature,
    /// One tensor for each output of the signature, in its order.
    pub outputs: &'a [Tensor],
    /// What the request asked for.
    pub wanted: &'a [WantedOutput],
}

/// An answer as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The JSON, or the beginning of a message.
    pub head: Bytes,
    /// What follows it: binary outputs, sharing the tensors' memory, and in a message what stands
    /// between them.
    pub bodies: Vec<Bytes>,
    /// Value of the header `Inference-Header-Content-Length`: the length of `head`, if an
    /// output of JSON is binary. Then the content type is `application/octet-stream`.
    pub json_bytes: Option<usize>,
}

impl Rendered {
    /// Length of the whole body.
    pub fn len(&self) -> usize {
        self.head.len() + self.bodies.iter().map(Bytes::len).sum::<usize>()
    }

    /// Whether there is no body: never, since the JSON is an object and a message names its model.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Writes an answer: members in Triton's order, `data` flat and row-major.
///
/// Cost: one pass over the JSON outputs, whose text is the only memory taken in proportion to
/// them; binary outputs are shared.
///
/// # Errors
/// `UNSUPPORTED` if JSON has no form for a value: NaN, an infinity, text that is not UTF-8,
/// any FP16 or BF16. The sentence asks for binary data.
///
/// # Panics
/// If `wanted` names a position that `outputs` or `signature` does not have.
pub fn render(view: &AnswerView<'_>) -> Result<Rendered, Failure> {
    let mut head = Vec::with_capacity(head_estimate(view));
    let mut bodies = Vec::new();
    head.push(b'{');
    write::string_member(&mut head, "model_name", view.model_name);
    write::key(&mut head, "model_version");
    head.push(b'"');
    write::unsigned(&mut head, view.version.0.into());
    head.push(b'"');
    if let Some(id) = view.id {
        write::string_member(&mut head, "id", id);
    }
    if !view.parameters.is_empty() {
        write::key(&mut head, "parameters");
        parameters(&mut head, view.parameters);
    }
    write::key(&mut head, "outputs");
    head.push(b'[');
    for (index, wanted) in view.wanted.iter().enumerate() {
        if index > 0 {
            head.push(b',');
        }
        output(&mut head, &mut bodies, view, *wanted)?;
    }
    head.extend_from_slice(b"]}");
    let is_binary = view.wanted.iter().any(|wanted| wanted.binary);
    let json_bytes = is_binary.then_some(head.len());
    Ok(Rendered {
        head: head.into(),
        bodies,
        json_bytes,
    })
}

/// The body of every answer that is not 200: `{"error":"<sentence>","code":"<CODE>"}`.
pub fn render_failure(failure: &Failure) -> Bytes {
    let mut body = Vec::with_capacity(failure.message.len() + 48);
    body.push(b'{');
    write::string_member(&mut body, "error", &failure.message);
    write::string_member(&mut body, "code", failure.code.name());
    body.push(b'}');
    body.into()
}

fn output(
    head: &mut Vec<u8>,
    bodies: &mut Vec<Bytes>,
    view: &AnswerView<'_>,
    wanted: WantedOutput,
) -> Result<(), Failure> {
    let name = &view.signature.outputs[wanted.position].name;
    let tensor = &view.outputs[wanted.position];
    let tensor = match wanted.classes {
        Some(classes) => Cow::Owned(classification::classify(name, tensor, classes)?),
        None => Cow::Borrowed(tensor),
    };
    head.push(b'{');
    write::string_member(head, "name", name);
    write::string_member(head, "datatype", tensor.dtype().name());
    write::key(head, "shape");
    shape(head, tensor.shape().dims());
    if wanted.binary {
        write::key(head, "parameters");
        head.push(b'{');
        write::key(head, "binary_data_size");
        write::unsigned(head, tensor.data().len() as u64);
        head.push(b'}');
        bodies.push(tensor.data().clone());
    } else {
        write::key(head, "data");
        values::write(head, name, &tensor)?;
    }
    head.push(b'}');
    Ok(())
}

fn shape(head: &mut Vec<u8>, dims: &[u64]) {
    head.push(b'[');
    for (position, dim) in dims.iter().enumerate() {
        if position > 0 {
            head.push(b',');
        }
        write::unsigned(head, *dim);
    }
    head.push(b']');
}

fn parameters(head: &mut Vec<u8>, parameters: &[(String, ParameterValue)]) {
    head.push(b'{');
    for (name, value) in parameters {
        write::key(head, name);
        match value {
            ParameterValue::Bool(value) => write::boolean(head, *value),
            ParameterValue::Integer(value) => write::signed(head, *value),
            ParameterValue::Unsigned(value) => write::unsigned(head, *value),
            ParameterValue::Number(value) if write::double(head, *value) => {}
            ParameterValue::Number(value) => write::string(head, &value.to_string()),
            ParameterValue::Text(value) => write::string(head, value),
        }
    }
    head.push(b'}');
}

/// Room for the JSON, so that most answers are written without moving.
fn head_estimate(view: &AnswerView<'_>) -> usize {
    let json = view
        .wanted
        .iter()
        .filter(|wanted| !wanted.binary && wanted.classes.is_none());
    let values: usize = json
        .map(|wanted| values::text_estimate(&view.outputs[wanted.position]))
        .sum();
    128 + view.model_name.len() + view.wanted.len() * 128 + values
}
