//! Inputs: tensor objects matched with the signature while they are read.

use paceline_protocol::limits::DIMS_MAX;
use paceline_protocol::{
    Dtype, ErrorCode, Failure, Shape, ShapeError, Signature, Tensor, TensorSpec,
};

use super::super::json::{Keys, Reader};
use super::{check_shape, excerpt, listed, parameters, twice, values};

/// The inputs of a request, each at the position that the signature gives it.
pub(super) struct Inputs {
    /// What has been read; `None` is missing, or waits in `binary`.
    pub(super) tensors: Vec<Option<Tensor>>,
    /// Those whose bytes follow the JSON, in the order of the request.
    pub(super) binary: Vec<BinaryInput>,
}

/// An input whose bytes follow the JSON.
pub(super) struct BinaryInput {
    /// Its place in the signature.
    pub(super) position: usize,
    /// Its shape, which fits the signature.
    pub(super) shape: Shape,
    /// How many bytes it says it has.
    pub(super) bytes: u64,
}

/// Reads the array of inputs.
pub(super) fn read(reader: &mut Reader<'_>, signature: &Signature) -> Result<Inputs, Failure> {
    let mut inputs = Inputs {
        tensors: vec![None; signature.inputs.len()],
        binary: Vec::new(),
    };
    let mut items = reader.array("an array of inputs")?;
    let mut index = 0;
    while items.next(reader)? {
        inputs.read_one(reader, signature, index)?;
        index += 1;
    }
    Ok(inputs)
}

impl Inputs {
    /// All tensors, in the signature's order.
    pub(super) fn finish(self, signature: &Signature) -> Result<Vec<Tensor>, Failure> {
        let specs = &signature.inputs;
        let missing: Vec<_> = self
            .tensors
            .iter()
            .zip(specs)
            .filter(|(tensor, _)| tensor.is_none())
            .map(|(_, spec)| excerpt(&spec.name))
            .collect();
        if missing.is_empty() {
            return Ok(self.tensors.into_iter().flatten().collect());
        }
        let message = format!(
            "the request lacks {}; the model takes {}",
            missing.join(", "),
            listed(specs)
        );
        Err(Failure::new(ErrorCode::InputMissing, message))
    }

    fn read_one(
        &mut self,
        reader: &mut Reader<'_>,
        signature: &Signature,
        index: usize,
    ) -> Result<(), Failure> {
        let mut head = Head {
            signature,
            index,
            position: None,
            shape: None,
            dtype: None,
        };
        let mut data = Data::Absent;
        let mut binary = None;
        let mut keys = Keys::new(&["name", "shape", "datatype", "data", "parameters"]);
        let mut members = reader.object("an object that describes an input")?;
        while let Some(key) = members.next(reader)? {
            match keys.note(key).map_err(|key| twice(&key, &head.label()))? {
                Some("name") => head.position = Some(self.read_name(reader, signature)?),
                Some("shape") => head.shape = Some(read_shape(reader, &head)?),
                Some("datatype") => head.dtype = Some(read_dtype(reader, &head)?),
                Some("data" | "parameters") if reader.null()? => {}
                Some("data") if head.is_complete() => {
                    let (_, spec, shape) = head.check()?;
                    data = Data::Read(values::read(reader, spec, shape)?);
                }
                Some("data") => {
                    data = Data::Later(reader.clone());
                    reader.skip()?;
                }
                Some("parameters") => binary = read_parameters(reader, &head)?,
                _ => reader.skip()?,
            }
        }
        let (position, spec, shape) = head.check()?;
        let tensor = match (data, binary) {
            (Data::Absent, Some(bytes)) => {
                self.binary.push(BinaryInput {
                    position,
                    shape,
                    bytes,
                });
                return Ok(());
            }
            (Data::Read(tensor), None) => tensor,
            (Data::Later(mut reader), None) => values::read(&mut reader, spec, shape)?,
            (Data::Absent, None) => {
                return Err(head.invalid("has neither 'data' nor the parameter 'binary_data_size'"));
            }
            (Data::Read(_) | Data::Later(_), Some(_)) => {
                return Err(head.invalid("has both 'data' and the parameter 'binary_data_size'"));
            }
        };
        self.tensors[position] = Some(tensor);
        Ok(())
    }

    /// The position of the input that is named next and was not named before.
    fn read_name(&self, reader: &mut Reader<'_>, signature: &Signature) -> Result<usize, Failure> {
        let name = reader.string()?;
        let Some(position) = signature.input(&name) else {
            let message = format!(
                "{} is not an input of this model, which takes {}",
                excerpt(&name),
                listed(&signature.inputs)
            );
            return Err(Failure::new(ErrorCode::InputUnknown, message));
        };
        let is_binary = self.binary.iter().any(|input| input.position == position);
        if is_binary || self.tensors[position].is_some() {
            let message = format!("input {} stands twice in the request", excerpt(&name));
            return Err(Failure::new(ErrorCode::InputUnknown, message));
        }
        Ok(position)
    }
}

/// What is known of an input's values.
enum Data<'a> {
    Absent,
    /// `data` stood behind all that is needed to read it.
    Read(Tensor),
    /// `data` stood first: where to read it from, once its shape is known.
    Later(Reader<'a>),
}

/// What is known of an input besides its values.
struct Head<'s> {
    signature: &'s Signature,
    /// Where it stands in the request.
    index: usize,
    /// Where its name stands in the signature.
    position: Option<usize>,
    shape: Option<Shape>,
    dtype: Option<Dtype>,
}

impl<'s> Head<'s> {
    fn is_complete(&self) -> bool {
        self.position.is_some() && self.shape.is_some() && self.dtype.is_some()
    }

    /// Position, specification and shape, which fit each other.
    fn check(&self) -> Result<(usize, &'s TensorSpec, Shape), Failure> {
        let position = self
            .position
            .ok_or_else(|| self.invalid("has no member 'name'"))?;
        let shape = self
            .shape
            .ok_or_else(|| self.invalid("has no member 'shape'"))?;
        let dtype = self
            .dtype
            .ok_or_else(|| self.invalid("has no member 'datatype'"))?;
        let spec = &self.signature.inputs[position];
        if dtype != spec.dtype {
            let message = format!(
                "{} has datatype {dtype}, the model takes {}",
                self.label(),
                spec.dtype
            );
            return Err(Failure::new(ErrorCode::InputDtype, message));
        }
        check_shape(spec, &shape)?;
        Ok((position, spec, shape))
    }

    /// What to call the input in a sentence.
    fn label(&self) -> String {
        match self.position {
            Some(position) => {
                format!("input {}", excerpt(&self.signature.inputs[position].name))
            }
            None => format!("inputs[{}]", self.index),
        }
    }

    fn invalid(&self, what: &str) -> Failure {
        Failure::new(ErrorCode::JsonInvalid, format!("{} {what}", self.label()))
    }
}

fn read_dtype(reader: &mut Reader<'_>, head: &Head<'_>) -> Result<Dtype, Failure> {
    let name = reader.string()?;
    name.parse()
        .map_err(|error| Failure::new(ErrorCode::InputDtype, format!("{}: {error}", head.label())))
}

fn read_shape(reader: &mut Reader<'_>, head: &Head<'_>) -> Result<Shape, Failure> {
    let refused = |error: ShapeError| {
        Failure::new(ErrorCode::InputShape, format!("{}: {error}", head.label()))
    };
    let mut dims = [0; DIMS_MAX];
    let mut rank = 0;
    let mut items = reader.array("a shape, which is an array of whole numbers")?;
    while items.next(reader)? {
        let number = reader.number()?;
        let Some(dim) = number.to_u64() else {
            if let Some(value) = number.to_i64() {
                return Err(refused(ShapeError::Negative {
                    position: rank,
                    value,
                }));
            }
            let message = format!(
                "{}: dimension {rank} is {}; allowed: whole numbers from 0 to {}",
                head.label(),
                excerpt(number.text()),
                u64::MAX
            );
            return Err(Failure::new(ErrorCode::InputShape, message));
        };
        if let Some(slot) = dims.get_mut(rank) {
            *slot = dim;
        }
        rank += 1;
    }
    match dims.get(..rank) {
        Some(dims) => Shape::new(dims).map_err(refused),
        None => Err(refused(ShapeError::Rank { rank })),
    }
}

/// The `binary_data_size`, if there is one.
fn read_parameters(reader: &mut Reader<'_>, head: &Head<'_>) -> Result<Option<u64>, Failure> {
    let mut bytes = None;
    let place = "the parameters of an input";
    parameters::each(reader, place, |name, value| {
        match &*name {
            "binary_data_size" => {
                let size = value.unsigned();
                let allowed = "a number of bytes from 0";
                bytes = Some(size.ok_or_else(|| parameters::bad(&name, &value, allowed))?);
            }
            name if name.starts_with("shared_memory_") => {
                return Err(parameters::shared_memory(&head.label()));
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(bytes)
}
