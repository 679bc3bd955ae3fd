//! Writes an answer as gRPC wants it: a `ModelInferResponse` of `proto/inference.proto`, with the
//! frame around it.

use std::borrow::Cow;

use bytes::Bytes;
use paceline_protocol::{Epoch, ErrorCode, Failure, Tensor};

use super::super::wire;
use super::{AnswerView, ParameterValue, Rendered, classification};

/// Bytes in front of a message: whether it is compressed, and its length (gRPC, "Length-Prefixed
/// Message" in doc/PROTOCOL-HTTP2.md).
pub const FRAME_BYTES: usize = 5;

/// What stands around an answer.
#[derive(Clone, Copy, Debug)]
pub enum Envelope {
    /// Nothing: it is the call's one message.
    Unary,
    /// A message of the stream, which says besides at which epoch the request was pinned, and that
    /// there is no other answer to it.
    Stream(Epoch),
}

/// Writes an answer whose values are raw, frame included.
///
/// Cost: small outputs are copied, so that a small answer is one piece; large ones are shared.
///
/// # Errors
/// `UNSUPPORTED` if an output cannot be classified, `TOO_LARGE` if the answer is 4 GiB or more.
///
/// # Panics
/// If the view's `wanted` names a position that `outputs` or `signature` does not have.
pub fn render_message(view: &AnswerView<'_>, envelope: Envelope) -> Result<Rendered, Failure> {
    let mut head = Vec::with_capacity(head_estimate(view));
    head.extend_from_slice(&[0; FRONT_BYTES]);
    wire::bytes(&mut head, 1, view.model_name.as_bytes());
    wire::bytes(&mut head, 2, view.version.to_string().as_bytes());
    if let Some(id) = view.id.filter(|id| !id.is_empty()) {
        wire::bytes(&mut head, 3, id.as_bytes());
    }
    for (name, value) in view.parameters {
        entry(&mut head, name, value);
    }
    if let Envelope::Stream(epoch) = envelope {
        entry(&mut head, EPOCH, &ParameterValue::Unsigned(epoch.0));
        entry(&mut head, FINAL, &ParameterValue::Bool(true));
    }
    let mut scratch = Vec::new();
    let mut tensors: Vec<Cow<'_, Tensor>> = Vec::with_capacity(view.wanted.len());
    for wanted in view.wanted {
        let name = &view.signature.outputs[wanted.position].name;
        let tensor = &view.outputs[wanted.position];
        let tensor = match wanted.classes {
            Some(classes) => Cow::Owned(classification::classify(name, tensor, classes)?),
            None => Cow::Borrowed(tensor),
        };
        scratch.clear();
        output(&mut scratch, name, &tensor);
        wire::bytes(&mut head, 5, &scratch);
        tensors.push(tensor);
    }
    // Where the head is cut, and what stands there.
    let mut cuts: Vec<(usize, Bytes)> = Vec::new();
    for tensor in &tensors {
        let data = tensor.data();
        if data.len() <= COPIED_BYTES_MAX {
            wire::bytes(&mut head, 6, data);
        } else {
            wire::length(&mut head, 6, data.len());
            cuts.push((head.len(), data.clone()));
        }
    }
    let shared: usize = cuts.iter().map(|(_, data)| data.len()).sum();
    let bytes = head.len() - FRONT_BYTES + shared;
    let front = front(bytes, envelope).ok_or_else(|| {
        let message = format!("the answer has {bytes} bytes, more than a message of gRPC can have");
        Failure::new(ErrorCode::TooLarge, message)
    })?;
    // What stands in front is written backwards into the room that was left for it.
    let start = FRONT_BYTES - front.len();
    head[start..FRONT_BYTES].copy_from_slice(&front);
    Ok(cut(head.into(), start, cuts))
}

/// Writes the answer to a request on a stream that failed: its sentence, the id that it had, and the
/// code's stable name.
pub fn render_in_stream(id: &str, failure: &Failure) -> Rendered {
    let mut response = Vec::new();
    if !id.is_empty() {
        wire::bytes(&mut response, 3, id.as_bytes());
    }
    let code = ParameterValue::Text(failure.code.name().to_owned());
    entry(&mut response, CODE, &code);
    entry(&mut response, FINAL, &ParameterValue::Bool(true));
    let mut message = vec![0; FRAME_BYTES];
    wire::bytes(&mut message, 1, failure.message.as_bytes());
    wire::bytes(&mut message, 2, &response);
    let length = (message.len() - FRAME_BYTES) as u32;
    message[1..FRAME_BYTES].copy_from_slice(&length.to_be_bytes());
    Rendered {
        head: message.into(),
        bodies: Vec::new(),
        json_bytes: None,
    }
}

/// The frame, and the field that an answer on a stream is in, for an answer of so many bytes.
fn front(bytes: usize, envelope: Envelope) -> Option<Vec<u8>> {
    let mut field = Vec::with_capacity(FRONT_BYTES);
    if let Envelope::Stream(_) = envelope {
        wire::length(&mut field, 2, bytes);
    }
    let length = u32::try_from(field.len() + bytes).ok()?;
    let mut front = Vec::with_capacity(FRONT_BYTES);
    front.push(0);
    front.extend_from_slice(&length.to_be_bytes());
    front.extend_from_slice(&field);
    Some(front)
}

fn cut(head: Bytes, start: usize, cuts: Vec<(usize, Bytes)>) -> Rendered {
    let first = cuts.first().map_or(head.len(), |(at, _)| *at);
    let mut bodies = Vec::with_capacity(cuts.len() * 2);
    let mut ends = cuts.iter().map(|(at, _)| *at).skip(1).collect::<Vec<_>>();
    ends.push(head.len());
    for ((at, data), end) in cuts.into_iter().zip(ends) {
        bodies.push(data);
        if at < end {
            bodies.push(head.slice(at..end));
        }
    }
    Rendered {
        head: head.slice(start..first),
        bodies,
        json_bytes: None,
    }
}

fn output(out: &mut Vec<u8>, name: &str, tensor: &Tensor) {
    wire::bytes(out, 1, name.as_bytes());
    wire::bytes(out, 2, tensor.dtype().name().as_bytes());
    let dims = tensor.shape().dims();
    let packed: usize = dims.iter().map(|dim| varint_bytes(*dim)).sum();
    if packed > 0 {
        wire::length(out, 3, packed);
        dims.iter().for_each(|dim| wire::varint(out, *dim));
    }
}

/// A parameter of the answer.
fn entry(out: &mut Vec<u8>, name: &str, value: &ParameterValue) {
    let mut choice = Vec::new();
    match value {
        ParameterValue::Bool(value) => wire::number(&mut choice, 1, u64::from(*value)),
        ParameterValue::Integer(value) => wire::number(&mut choice, 2, value.cast_unsigned()),
        ParameterValue::Text(value) => wire::bytes(&mut choice, 3, value.as_bytes()),
        ParameterValue::Number(value) => wire::double(&mut choice, 4, *value),
        ParameterValue::Unsigned(value) => wire::number(&mut choice, 5, *value),
    }
    let mut entry = Vec::new();
    wire::bytes(&mut entry, 1, name.as_bytes());
    wire::bytes(&mut entry, 2, &choice);
    wire::bytes(out, 4, &entry);
}

fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Room for the head, so that most answers are written without moving.
fn head_estimate(view: &AnswerView<'_>) -> usize {
    let copied = view.wanted.iter().filter(|wanted| wanted.classes.is_none());
    let copied = copied.map(|wanted| view.outputs[wanted.position].data().len());
    let copied: usize = copied.filter(|bytes| *bytes <= COPIED_BYTES_MAX).sum();
    128 + view.model_name.len() + view.wanted.len() * 96 + copied
}

/// Room in front of an answer: a frame, and a field with a length of 32 bits.
const FRONT_BYTES: usize = FRAME_BYTES + 6;
/// Says that no other answer to the request follows (Triton, "Decoupled Backends and Models").
const FINAL: &str = "triton_final_response";
/// What whole answers have in headers and trailers.
const EPOCH: &str = "paceline-epoch";
const CODE: &str = "paceline-code";
/// Outputs up to this many bytes are copied: a frame and a slice of their own would cost more.
const COPIED_BYTES_MAX: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::grpc::proto::inference::infer_parameter::ParameterChoice;
    use crate::gateway::grpc::proto::inference::{ModelInferResponse, ModelStreamInferResponse};
    use crate::gateway::oip::WantedOutput;
    use paceline_protocol::{
        Dim, Dtype, Shape, ShapePattern, Signature, TensorSpec, VersionNumber,
    };
    use prost::Message as _;

    fn large(bytes: usize) -> Tensor {
        let shape = Shape::new(&[1, bytes as u64]).unwrap();
        Tensor::new(Dtype::Uint8, shape, vec![7; bytes].into()).unwrap()
    }

    /// The slices of an answer with these outputs, and the message as another decoder reads it.
    fn answer(outputs: &[Tensor], classes: Option<usize>) -> (Rendered, ModelInferResponse) {
        let (streamed, in_stream) = rendered(outputs, classes, Envelope::Stream(Epoch(7)));
        let in_stream = ModelStreamInferResponse::decode(&in_stream[..]).unwrap();
        assert_eq!(in_stream.error_message, "");
        let mut in_stream = in_stream.infer_response.unwrap();
        let mut choice = |name: &str| in_stream.parameters.remove(name).unwrap().parameter_choice;
        assert_eq!(choice(EPOCH), Some(ParameterChoice::Uint64Param(7)));
        assert_eq!(choice(FINAL), Some(ParameterChoice::BoolParam(true)));
        let (rendered, message) = rendered(outputs, classes, Envelope::Unary);
        let message = ModelInferResponse::decode(&message[..]).unwrap();
        assert_eq!(in_stream, message);
        assert_eq!(streamed.bodies.len(), rendered.bodies.len());
        (rendered, message)
    }

    fn rendered(
        outputs: &[Tensor],
        classes: Option<usize>,
        envelope: Envelope,
    ) -> (Rendered, Vec<u8>) {
        let specs = (0..outputs.len()).map(|place| TensorSpec {
            name: format!("y{place}"),
            dtype: outputs[place].dtype(),
            shape: ShapePattern(vec![Dim::Any, Dim::Any]),
        });
        let signature = Signature {
            inputs: Vec::new(),
            outputs: specs.collect(),
        };
        let wanted = (0..outputs.len()).map(|position| WantedOutput {
            position,
            binary: true,
            classes,
        });
        let wanted: Vec<_> = wanted.collect();
        let parameters = [
            ("is".to_owned(), ParameterValue::Bool(true)),
            ("below".to_owned(), ParameterValue::Integer(-1)),
            ("half".to_owned(), ParameterValue::Number(0.5)),
            ("most".to_owned(), ParameterValue::Unsigned(u64::MAX)),
            ("text".to_owned(), ParameterValue::Text("t".to_owned())),
        ];
        let view = AnswerView {
            model_name: "m",
            version: VersionNumber(12),
            id: Some("seven"),
            parameters: &parameters,
            signature: &signature,
            outputs,
            wanted: &wanted,
        };
        let rendered = render_message(&view, envelope).unwrap();
        let whole = [&[rendered.head.clone()][..], &rendered.bodies[..]].concat();
        let whole: Vec<u8> = whole.iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(whole.len(), rendered.len());
        let (frame, message) = whole.split_first_chunk::<FRAME_BYTES>().unwrap();
        let length = u32::from_be_bytes([frame[1], frame[2], frame[3], frame[4]]);
        assert_eq!((frame[0], length as usize), (0, message.len()));
        let message = message.to_vec();
        (rendered, message)
    }

    #[test]
    fn answers_are_what_another_decoder_expects() {
        let (rendered, read) = answer(&[Tensor::from_f32(2, &[1.0, 2.0, 3.0, 4.0])], None);
        assert!(rendered.bodies.is_empty(), "a small answer is one piece");
        assert_eq!(
            (read.model_name, read.model_version),
            ("m".into(), "12".into())
        );
        assert_eq!(read.id, "seven");
        let output = &read.outputs[0];
        assert_eq!(
            (output.name.as_str(), output.datatype.as_str()),
            ("y0", "FP32")
        );
        assert_eq!(output.shape, [2, 2]);
        assert_eq!(read.raw_output_contents[0].len(), 16);
        let choice = |name: &str| read.parameters[name].parameter_choice.clone().unwrap();
        assert_eq!(choice("is"), ParameterChoice::BoolParam(true));
        assert_eq!(choice("below"), ParameterChoice::Int64Param(-1));
        assert_eq!(choice("half"), ParameterChoice::DoubleParam(0.5));
        assert_eq!(choice("most"), ParameterChoice::Uint64Param(u64::MAX));
        assert_eq!(choice("text"), ParameterChoice::StringParam("t".into()));
    }

    #[test]
    fn a_failure_on_a_stream_names_its_request_and_code() {
        let failure = Failure::new(ErrorCode::QueueFull, "no room");
        let rendered = render_in_stream("seven", &failure);
        let read = ModelStreamInferResponse::decode(&rendered.head[FRAME_BYTES..]).unwrap();
        assert_eq!(read.error_message, "no room");
        let answer = read.infer_response.unwrap();
        assert_eq!(answer.id, "seven");
        let code = answer.parameters[CODE].parameter_choice.clone();
        assert_eq!(
            code,
            Some(ParameterChoice::StringParam("QUEUE_FULL".into()))
        );
    }

    #[test]
    fn large_outputs_are_shared_wherever_they_stand() {
        let (small, limit, shared) = (large(10), large(COPIED_BYTES_MAX), large(100_000));
        let outputs = [shared.clone(), small, shared.clone(), shared, limit];
        let (rendered, read) = answer(&outputs, None);
        for (output, sent) in outputs.iter().zip(&read.raw_output_contents) {
            assert_eq!(output.data()[..], sent[..]);
        }
        assert_eq!(read.raw_output_contents.len(), outputs.len());
        let is_shared = |slice: &Bytes| slice.as_ptr() == outputs[0].data().as_ptr();
        assert_eq!(
            rendered
                .bodies
                .iter()
                .filter(|slice| is_shared(slice))
                .count(),
            3
        );
    }

    #[test]
    fn classes_are_written_as_text() {
        let (_, read) = answer(&[Tensor::from_f32(3, &[0.5, 2.0, 1.0])], Some(2));
        assert_eq!(read.outputs[0].datatype, "BYTES");
        assert_eq!(read.outputs[0].shape, [1, 2]);
        let expected = [
            &10u32.to_le_bytes()[..],
            b"2.000000:1",
            &10u32.to_le_bytes(),
            b"1.000000:2",
        ];
        assert_eq!(read.raw_output_contents[0], expected.concat());
    }
}
