//! Which outputs a request wants, in which order and form.

use paceline_protocol::{Dtype, ErrorCode, Failure, Signature, TensorSpec};

use super::super::json::{Keys, Reader};
use super::{RequestParameters, excerpt, listed, parameters, twice};

/// An output that the answer must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedOutput {
    /// Its place in the signature.
    pub position: usize,
    /// Whether its values follow the JSON as bytes.
    pub binary: bool,
    /// If given, the output is turned into that many of each row's highest values with their
    /// indices, at least 1 (Triton's `classification` extension).
    pub classes: Option<usize>,
}

/// An output as the request names it.
pub(super) struct Requested {
    position: usize,
    binary: Option<bool>,
    classes: Option<usize>,
}

/// Reads the array of requested outputs.
pub(super) fn read(
    reader: &mut Reader<'_>,
    signature: &Signature,
) -> Result<Vec<Requested>, Failure> {
    let mut outputs: Vec<Requested> = Vec::new();
    let mut items = reader.array("an array of outputs")?;
    while items.next(reader)? {
        let output = read_one(reader, signature, outputs.len())?;
        if outputs
            .iter()
            .any(|other| other.position == output.position)
        {
            let name = excerpt(&signature.outputs[output.position].name);
            let message = format!("output {name} is asked for twice");
            return Err(Failure::new(ErrorCode::OutputUnknown, message));
        }
        outputs.push(output);
    }
    Ok(outputs)
}

fn read_one(
    reader: &mut Reader<'_>,
    signature: &Signature,
    index: usize,
) -> Result<Requested, Failure> {
    let mut position = None;
    let (mut binary, mut classes) = (None, None);
    let mut keys = Keys::new(&["name", "parameters"]);
    let mut members = reader.object("an object that names an output")?;
    while let Some(key) = members.next(reader)? {
        match keys
            .note(key)
            .map_err(|key| twice(&key, &format!("outputs[{index}]")))?
        {
            Some("name") => position = Some(read_name(reader, signature)?),
            Some("parameters") if reader.null()? => {}
            Some("parameters") => (binary, classes) = read_parameters(reader, index)?,
            _ => reader.skip()?,
        }
    }
    match position {
        Some(position) => Ok(Requested {
            position,
            binary,
            classes,
        }),
        None => Err(Failure::new(
            ErrorCode::JsonInvalid,
            format!("outputs[{index}] has no member 'name'"),
        )),
    }
}

fn read_name(reader: &mut Reader<'_>, signature: &Signature) -> Result<usize, Failure> {
    let name = reader.string()?;
    signature.output(&name).ok_or_else(|| {
        let message = format!(
            "{} is not an output of this model, which gives {}",
            excerpt(&name),
            listed(&signature.outputs)
        );
        Failure::new(ErrorCode::OutputUnknown, message)
    })
}

fn read_parameters(
    reader: &mut Reader<'_>,
    index: usize,
) -> Result<(Option<bool>, Option<usize>), Failure> {
    let (mut binary, mut classes) = (None, None);
    parameters::each(reader, "the parameters of an output", |name, value| {
        match &*name {
            "binary_data" => binary = Some(value.switch(&name)?),
            "classification" => classes = Some(parameters::classes(&name, &value)?),
            name if name.starts_with("shared_memory_") => {
                return Err(parameters::shared_memory(&format!("outputs[{index}]")));
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok((binary, classes))
}

/// Fills in what the request left open, and refuses forms that an answer could not have.
pub(super) fn resolve(
    requested: Vec<Requested>,
    parameters: &RequestParameters,
    signature: &Signature,
) -> Result<Vec<WantedOutput>, Failure> {
    let wanted: Vec<_> = if requested.is_empty() {
        let binary = parameters.binary_data_output;
        let all = 0..signature.outputs.len();
        all.map(|position| WantedOutput {
            position,
            binary,
            classes: None,
        })
        .collect()
    } else {
        let form = |output: Requested| WantedOutput {
            position: output.position,
            binary: output.binary.unwrap_or(parameters.binary_data_output),
            classes: output.classes,
        };
        requested.into_iter().map(form).collect()
    };
    for output in &wanted {
        check_form(*output, &signature.outputs[output.position])?;
    }
    Ok(wanted)
}

/// It is better to say so before the model has run.
pub(super) fn check_form(output: WantedOutput, spec: &TensorSpec) -> Result<(), Failure> {
    let message = match spec.dtype {
        Dtype::Bool | Dtype::Bytes | Dtype::Fp16 | Dtype::Bf16 if output.classes.is_some() => {
            format!(
                "output {} is {}; classification takes integers, FP32 and FP64",
                excerpt(&spec.name),
                spec.dtype
            )
        }
        Dtype::Fp16 | Dtype::Bf16 if !output.binary => format!(
            "output {} is {}, which has no form in JSON: ask for it with the parameter \
             'binary_data': true",
            excerpt(&spec.name),
            spec.dtype
        ),
        _ => return Ok(()),
    };
    Err(Failure::new(ErrorCode::ParameterInvalid, message))
}
