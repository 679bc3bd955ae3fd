//! Reads an inference request as gRPC sends it: a `ModelInferRequest` of `proto/inference.proto`.

mod contents;
mod parameter;

use std::time::Duration;

use bytes::Bytes;
use paceline_protocol::limits::{DIMS_MAX, TENSORS_MAX};
use paceline_protocol::{Dtype, ErrorCode, Failure, Shape, ShapeError, Signature, Tensor};

use super::super::wire::{Field, Span};
use super::output::{WantedOutput, check_form};
use super::{
    ID_BYTES_MAX, ParseOptions, ParsedRequest, RequestParameters, arrange, arrange_outputs,
    excerpt, parameters,
};
use crate::gateway::bodies::Bodies;

/// A request that has been read and not yet been held against a signature. It points into the body.
#[derive(Debug)]
pub struct Message<'a> {
    body: &'a Bytes,
    model: &'a str,
    version: &'a str,
    id: &'a str,
    parameters: RequestParameters,
    inputs: Vec<Input<'a>>,
    outputs: Vec<Requested<'a>>,
    raw: Vec<&'a [u8]>,
    is_in_stream: bool,
    /// Where what is decoded takes room, if that is counted.
    bodies: Option<&'a Bodies>,
}

#[derive(Debug)]
struct Input<'a> {
    name: &'a str,
    dtype: Dtype,
    shape: Shape,
    contents: Option<Span<'a>>,
}

#[derive(Debug)]
struct Requested<'a> {
    name: &'a str,
    classes: Option<usize>,
}

impl<'a> Message<'a> {
    /// Reads a message.
    ///
    /// Cost: one pass over the fields, none over the values of tensors; memory for 64 inputs and as
    /// many outputs at most, whatever the message claims.
    ///
    /// # Errors
    /// A [`Failure`] with one of the codes `MESSAGE_INVALID`, `INPUT_DTYPE`, `INPUT_SHAPE` or
    /// `PARAMETER_INVALID`.
    pub fn read(body: &'a Bytes) -> Result<Self, Failure> {
        let mut message = Self {
            body,
            model: "",
            version: "",
            id: "",
            parameters: RequestParameters::default(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            raw: Vec::new(),
            is_in_stream: false,
            bodies: None,
        };
        let mut names = Vec::new();
        let mut fields = Span::whole(body);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => message.model = field.text("model_name")?,
                2 => message.version = field.text("model_version")?,
                3 => message.id = field.text("id")?,
                4 => {
                    let (name, value) =
                        parameter::read(field, &mut names, "the request's parameters")?;
                    message.parameters.set(name.into(), value)?;
                }
                5 => {
                    has_room("inputs", message.inputs.len())?;
                    let input = Input::read(field, message.inputs.len())?;
                    message.inputs.push(input);
                }
                6 => {
                    has_room("outputs", message.outputs.len())?;
                    let output = Requested::read(field, message.outputs.len())?;
                    message.outputs.push(output);
                }
                7 => {
                    has_room("raw_input_contents", message.raw.len())?;
                    message.raw.push(field.span("raw_input_contents")?.bytes());
                }
                _ => {}
            }
        }
        if message.id.len() > ID_BYTES_MAX {
            let bytes = message.id.len();
            let message = format!("the id has {bytes} bytes; allowed: at most {ID_BYTES_MAX}");
            return Err(Failure::new(ErrorCode::ParameterInvalid, message));
        }
        Ok(message)
    }

    /// The id in a message that cannot be read, as far as it can; empty if there is none.
    pub fn id_in(body: &[u8]) -> &str {
        let (mut fields, mut id) = (Span::whole(body), "");
        while let Ok(Some(field)) = fields.next() {
            if field.number == 3 {
                id = field.text("id").unwrap_or_default();
            }
        }
        if id.len() > ID_BYTES_MAX { "" } else { id }
    }

    /// The model that it is for.
    pub fn model(&self) -> &'a str {
        self.model
    }

    /// The version that it names, if it does.
    pub fn version(&self) -> Option<&'a str> {
        Some(self.version).filter(|version| !version.is_empty())
    }

    /// What the answer repeats; empty if it has none.
    pub fn id(&self) -> &'a str {
        self.id
    }

    /// Deadline, priority, sequence and the rest.
    pub fn parameters(&self) -> &RequestParameters {
        &self.parameters
    }

    /// Notes that it is one of several on a stream.
    pub fn in_stream(&mut self) {
        self.is_in_stream = true;
    }

    /// Whether it is.
    pub fn is_in_stream(&self) -> bool {
        self.is_in_stream
    }

    /// Counts values that are decoded among what bodies may take, for as long as their tensors live:
    /// typed integers may take eight times their bytes.
    pub fn counted(&mut self, bodies: &'a Bodies) {
        self.bodies = Some(bodies);
    }

    /// Lets the request take so long at most.
    pub fn within(&mut self, left: Duration) {
        // No microseconds would mean the node's default.
        let budget_us = u64::try_from(left.as_micros()).unwrap_or(u64::MAX).max(1);
        let named = self.parameters.timeout_us.unwrap_or(u64::MAX);
        self.parameters.timeout_us = Some(named.min(budget_us));
    }

    /// The request, held against a signature.
    ///
    /// Cost: raw values and packed floats share the body's memory and may start at any address;
    /// other values are decoded in one pass into at most eight times their bytes.
    ///
    /// # Errors
    /// A [`Failure`] with one of the codes `MESSAGE_INVALID`, `INPUT_*`, `OUTPUT_UNKNOWN`,
    /// `PARAMETER_INVALID` or `TOO_LARGE`; its sentence names what was wrong, where, and what is
    /// allowed. `OVERLOADED` if other bodies have the room that its values would take.
    pub fn parse(
        &self,
        signature: &Signature,
        options: ParseOptions,
    ) -> Result<ParsedRequest, Failure> {
        let inputs = arrange(self.tensors()?, signature, options)?;
        Ok(ParsedRequest {
            id: Some(self.id).filter(|id| !id.is_empty()).map(str::to_owned),
            inputs,
            outputs: self.wanted(signature)?,
            parameters: self.parameters.clone(),
        })
    }

    fn tensors(&self) -> Result<Vec<(&'a str, Tensor)>, Failure> {
        if self.raw.is_empty() {
            let tensors = self.inputs.iter().map(|input| {
                let tensor = contents::read(input, (self.body, self.bodies))?;
                Ok((input.name, tensor))
            });
            return tensors.collect();
        }
        if let Some(typed) = self.inputs.iter().find(|input| input.has_contents()) {
            let message = format!(
                "input {} has contents, and there are raw_input_contents; allowed: either, for all \
                 inputs",
                excerpt(typed.name)
            );
            return Err(Failure::new(ErrorCode::MessageInvalid, message));
        }
        if self.raw.len() != self.inputs.len() {
            let message = format!(
                "raw_input_contents has {} entries for {} inputs; allowed: one for each",
                self.raw.len(),
                self.inputs.len()
            );
            return Err(Failure::new(ErrorCode::MessageInvalid, message));
        }
        let inputs = self.inputs.iter().zip(&self.raw);
        let tensors = inputs.map(|(input, raw)| {
            let tensor = input.tensor(self.body.slice_ref(raw))?;
            Ok((input.name, tensor))
        });
        tensors.collect()
    }

    fn wanted(&self, signature: &Signature) -> Result<Vec<WantedOutput>, Failure> {
        let names: Vec<&str> = self.outputs.iter().map(|output| output.name).collect();
        let places = arrange_outputs(&names, signature)?;
        let wanted = places.into_iter().enumerate().map(|(asked, position)| {
            let output = WantedOutput {
                position,
                binary: true,
                classes: self.outputs.get(asked).and_then(|output| output.classes),
            };
            check_form(output, &signature.outputs[position]).map(|()| output)
        });
        wanted.collect()
    }
}

impl<'a> Input<'a> {
    fn read(field: Field<'a>, index: usize) -> Result<Self, Failure> {
        let (mut name, mut datatype, mut contents) = ("", "", None);
        let mut dims = Dims::default();
        let mut fields = field.span("inputs")?;
        let mut names = Vec::new();
        while let Some(field) = fields.next()? {
            match field.number {
                1 => name = field.text("name")?,
                2 => datatype = field.text("datatype")?,
                3 => field.varints("shape", |dim| {
                    dims.push(dim);
                    Ok(())
                })?,
                4 => {
                    let place = "the parameters of an input";
                    let (parameter, _) = parameter::read(field, &mut names, place)?;
                    if parameter.starts_with("shared_memory_") {
                        return Err(parameters::shared_memory(&label(name, index)));
                    }
                }
                5 if contents.is_some() => {
                    let message = format!("{} has contents twice", label(name, index));
                    return Err(Failure::new(ErrorCode::MessageInvalid, message));
                }
                5 => contents = Some(field.span("contents")?),
                _ => {}
            }
        }
        let refused =
            |code, error: String| Failure::new(code, format!("{}: {error}", label(name, index)));
        Ok(Self {
            name,
            dtype: datatype
                .parse()
                .map_err(|error| refused(ErrorCode::InputDtype, format!("{error}")))?,
            shape: dims
                .shape()
                .map_err(|error| refused(ErrorCode::InputShape, error.to_string()))?,
            contents,
        })
    }

    fn has_contents(&self) -> bool {
        self.contents
            .is_some_and(|contents| !contents.bytes().is_empty())
    }

    fn tensor(&self, data: Bytes) -> Result<Tensor, Failure> {
        Tensor::new(self.dtype, self.shape, data).map_err(|error| {
            let message = format!("input {}: {error}", excerpt(self.name));
            Failure::new(ErrorCode::InputValues, message)
        })
    }
}

impl<'a> Requested<'a> {
    fn read(field: Field<'a>, index: usize) -> Result<Self, Failure> {
        let (mut name, mut classes) = ("", None);
        let mut fields = field.span("outputs")?;
        let mut names = Vec::new();
        while let Some(field) = fields.next()? {
            match field.number {
                1 => name = field.text("name")?,
                2 => {
                    let place = "the parameters of an output";
                    match parameter::read(field, &mut names, place)? {
                        ("classification", value) => {
                            classes = Some(parameters::classes("classification", &value)?);
                        }
                        (parameter, _) if parameter.starts_with("shared_memory_") => {
                            return Err(parameters::shared_memory(&format!("outputs[{index}]")));
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        Ok(Self { name, classes })
    }
}

/// Dimensions as they arrive; those too many are counted.
#[derive(Default)]
struct Dims {
    dims: [u64; DIMS_MAX],
    rank: usize,
}

impl Dims {
    fn push(&mut self, dim: u64) {
        if let Some(slot) = self.dims.get_mut(self.rank) {
            *slot = dim;
        }
        self.rank += 1;
    }

    fn shape(&self) -> Result<Shape, ShapeError> {
        let rank = self.rank;
        let dims = self.dims.get(..rank).ok_or(ShapeError::Rank { rank })?;
        for (position, dim) in dims.iter().enumerate() {
            // The wire has them signed.
            let value = dim.cast_signed();
            if value < 0 {
                return Err(ShapeError::Negative { position, value });
            }
        }
        Shape::new(dims)
    }
}

/// What to call an input in a sentence.
fn label(name: &str, index: usize) -> String {
    match name {
        "" => format!("inputs[{index}]"),
        name => format!("input {}", excerpt(name)),
    }
}

fn has_room(what: &str, count: usize) -> Result<(), Failure> {
    if count < TENSORS_MAX {
        return Ok(());
    }
    let message = format!("{what} has more than {TENSORS_MAX} entries");
    Err(Failure::new(ErrorCode::MessageInvalid, message))
}

#[cfg(test)]
mod tests;
