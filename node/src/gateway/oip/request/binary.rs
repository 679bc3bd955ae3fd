//! Binary tensors: those behind the JSON, and the raw request that has no JSON at all.

use bytes::Bytes;
use paceline_protocol::limits::DIMS_MAX;
use paceline_protocol::{
    AlignedBuffer, Dim, Dtype, ErrorCode, Failure, Shape, Signature, Tensor, TensorError,
    TensorSpec,
};

use super::input::Inputs;
use super::output::WantedOutput;
use super::{ParseOptions, ParsedRequest, RequestParameters};
use super::{check_finite, check_rows, excerpt};

impl Inputs {
    /// Cuts what follows the JSON into the binary inputs, without copying. `rest` is `None` if
    /// the request did not say where its JSON ends.
    pub(super) fn take_binary(
        &mut self,
        rest: Option<Bytes>,
        signature: &Signature,
    ) -> Result<(), Failure> {
        let Some(mut rest) = rest else {
            let Some(first) = self.binary.first() else {
                return Ok(());
            };
            let message = format!(
                "input {} has binary_data_size, which needs the header \
                 Inference-Header-Content-Length",
                excerpt(&signature.inputs[first.position].name)
            );
            return Err(Failure::new(ErrorCode::BinaryInvalid, message));
        };
        let total = self
            .binary
            .iter()
            .try_fold(0u64, |total, input| total.checked_add(input.bytes))
            .unwrap_or(u64::MAX);
        if total != rest.len() as u64 {
            let message = format!(
                "the inputs' binary_data_size add up to {total} bytes; {} bytes follow the JSON",
                rest.len()
            );
            return Err(Failure::new(ErrorCode::BinaryInvalid, message));
        }
        for input in self.binary.drain(..) {
            let spec = &signature.inputs[input.position];
            let data = rest.split_to(input.bytes as usize);
            let tensor = Tensor::new(spec.dtype, input.shape, data);
            self.tensors[input.position] = Some(tensor.map_err(|error| unfit(spec, &error))?);
        }
        Ok(())
    }
}

/// Reads a request whose whole body is the one input.
pub(super) fn parse_raw(
    body: &Bytes,
    signature: &Signature,
    options: ParseOptions,
) -> Result<ParsedRequest, Failure> {
    let [spec] = &signature.inputs[..] else {
        let message = format!(
            "a raw request (Inference-Header-Content-Length: 0) is for models with one input; \
             this one has {}",
            signature.inputs.len()
        );
        return Err(Failure::new(ErrorCode::BinaryInvalid, message));
    };
    let inputs = vec![raw_tensor(body, spec)?];
    check_rows(&inputs, signature)?;
    if options.finite_inputs {
        check_finite(&inputs, signature)?;
    }
    let all = 0..signature.outputs.len();
    let wanted = |position| WantedOutput {
        position,
        binary: true,
        classes: None,
    };
    Ok(ParsedRequest {
        id: None,
        inputs,
        outputs: all.map(wanted).collect(),
        parameters: RequestParameters::default(),
    })
}

fn raw_tensor(body: &Bytes, spec: &TensorSpec) -> Result<Tensor, Failure> {
    let data = match spec.dtype {
        Dtype::Bytes => one_element(body)?,
        _ => body.clone(),
    };
    let elements = match spec.dtype.element_bytes() {
        Some(size) if !body.len().is_multiple_of(size) => {
            let message = format!(
                "the raw body has {} bytes, which is no whole number of {} values",
                body.len(),
                spec.dtype
            );
            return Err(Failure::new(ErrorCode::InputValues, message));
        }
        Some(size) => (body.len() / size) as u64,
        None => 1,
    };
    let shape = infer_shape(spec, elements)?;
    Tensor::new(spec.dtype, shape, data).map_err(|error| unfit(spec, &error))
}

/// The shape of a raw tensor: one unknown size follows from the number of values. Of two, the
/// first counts rows and is 1.
fn infer_shape(spec: &TensorSpec, elements: u64) -> Result<Shape, Failure> {
    let pattern = &spec.shape.0;
    let mut dims = [1; DIMS_MAX];
    let mut unknown = Vec::new();
    for (position, dim) in pattern.iter().enumerate().take(DIMS_MAX) {
        match dim {
            Dim::Exactly(size) => dims[position] = *size,
            Dim::Any => unknown.push(position),
        }
    }
    let known = dims
        .iter()
        .try_fold(1u64, |product, dim| product.checked_mul(*dim));
    let inferred = match (&unknown[..], known) {
        ([] | [_] | [0, _], Some(known)) if known > 0 => elements / known,
        _ => {
            let message = format!(
                "the shape {} of input {} cannot be inferred from a raw body: send the request \
                 with JSON before the tensor",
                spec.shape,
                excerpt(&spec.name)
            );
            return Err(Failure::new(ErrorCode::InputShape, message));
        }
    };
    if let Some(last) = unknown.last() {
        dims[*last] = inferred;
    }
    let shape = Shape::new(&dims[..pattern.len().min(DIMS_MAX)]).ok();
    shape.filter(|shape| shape.elements() == elements).ok_or_else(|| {
        let message = format!(
            "the raw body holds {elements} values of {}, which do not fill shape {} of input {}",
            spec.dtype,
            spec.shape,
            excerpt(&spec.name)
        );
        Failure::new(ErrorCode::InputShape, message)
    })
}

/// The body as the only element of a BYTES tensor: a raw request carries it without a length.
fn one_element(body: &Bytes) -> Result<Bytes, Failure> {
    let length = u32::try_from(body.len()).map_err(|_| {
        Failure::new(
            ErrorCode::TooLarge,
            "an element of BYTES has at most 4294967295 bytes",
        )
    })?;
    let mut buffer = AlignedBuffer::with_capacity(body.len() + 4);
    buffer.extend(&length.to_le_bytes());
    buffer.extend(body);
    Ok(buffer.freeze())
}

fn unfit(spec: &TensorSpec, error: &TensorError) -> Failure {
    Failure::new(
        ErrorCode::InputValues,
        format!("input {}: {error}", excerpt(&spec.name)),
    )
}
