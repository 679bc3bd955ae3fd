//! A request whose tensors are there already: matched with the signature by their names.

use paceline_protocol::{ErrorCode, Failure, Signature, Tensor};

use super::{ParseOptions, check_inputs, check_shape, excerpt, listed};

/// The inputs in the signature's order, checked as [`parse`](super::parse) checks them.
///
/// Cost: one pass over float tensors if they have to be finite; nothing is copied.
///
/// # Errors
/// A [`Failure`] with one of the codes `INPUT_*` or `TOO_LARGE`; its sentence names what was
/// wrong, where, and what is allowed.
pub fn arrange<N: AsRef<str>>(
    named: Vec<(N, Tensor)>,
    signature: &Signature,
    options: ParseOptions,
) -> Result<Vec<Tensor>, Failure> {
    let specs = &signature.inputs;
    let mut places: Vec<Option<Tensor>> = vec![None; specs.len()];
    for (name, tensor) in named {
        let name = name.as_ref();
        let Some(position) = signature.input(name) else {
            let message = format!(
                "{} is not an input of this model, which takes {}",
                excerpt(name),
                listed(specs)
            );
            return Err(Failure::new(ErrorCode::InputUnknown, message));
        };
        let spec = &specs[position];
        if tensor.dtype() != spec.dtype {
            let message = format!(
                "input {} has datatype {}, the model takes {}",
                excerpt(name),
                tensor.dtype(),
                spec.dtype
            );
            return Err(Failure::new(ErrorCode::InputDtype, message));
        }
        check_shape(spec, tensor.shape())?;
        if places[position].replace(tensor).is_some() {
            let message = format!("input {} stands twice in the request", excerpt(name));
            return Err(Failure::new(ErrorCode::InputUnknown, message));
        }
    }
    let missing = specs.iter().zip(&places).find(|(_, place)| place.is_none());
    if let Some((spec, _)) = missing {
        let message = format!(
            "the request lacks {}; the model takes {}",
            excerpt(&spec.name),
            listed(specs)
        );
        return Err(Failure::new(ErrorCode::InputMissing, message));
    }
    let inputs: Vec<Tensor> = places.into_iter().flatten().collect();
    check_inputs(&inputs, signature, options)?;
    Ok(inputs)
}

/// Places of the outputs that `wanted` names, in its order; all of them if it names none.
///
/// # Errors
/// `OUTPUT_UNKNOWN`, by name.
pub fn arrange_outputs<N: AsRef<str>>(
    wanted: &[N],
    signature: &Signature,
) -> Result<Vec<usize>, Failure> {
    if wanted.is_empty() {
        return Ok((0..signature.outputs.len()).collect());
    }
    let mut places = Vec::with_capacity(wanted.len());
    for name in wanted {
        let name = name.as_ref();
        let place = signature.output(name).ok_or_else(|| {
            let message = format!(
                "{} is not an output of this model, which gives {}",
                excerpt(name),
                listed(&signature.outputs)
            );
            Failure::new(ErrorCode::OutputUnknown, message)
        })?;
        if places.contains(&place) {
            let message = format!("output {} is asked for twice", excerpt(name));
            return Err(Failure::new(ErrorCode::OutputUnknown, message));
        }
        places.push(place);
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use paceline_protocol::{Dim, Dtype, ShapePattern, TensorSpec};

    use super::*;

    fn spec(name: &str, columns: u64) -> TensorSpec {
        TensorSpec {
            name: name.to_owned(),
            dtype: Dtype::Fp32,
            shape: ShapePattern(vec![Dim::Any, Dim::Exactly(columns)]),
        }
    }

    fn signature() -> Signature {
        Signature {
            inputs: vec![spec("a", 2), spec("b", 3)],
            outputs: vec![spec("x", 1), spec("y", 1)],
        }
    }

    fn tensor(columns: usize, rows: usize) -> Tensor {
        Tensor::from_f32(columns, &vec![1.0; columns * rows])
    }

    fn code(named: Vec<(&str, Tensor)>) -> ErrorCode {
        let named = named
            .into_iter()
            .map(|(name, tensor)| (name.to_owned(), tensor));
        let options = ParseOptions::default();
        arrange(named.collect(), &signature(), options)
            .unwrap_err()
            .code
    }

    #[test]
    fn inputs_come_in_the_order_of_the_signature() {
        let named = vec![
            ("b".to_owned(), tensor(3, 2)),
            ("a".to_owned(), tensor(2, 2)),
        ];
        let arranged = arrange(named, &signature(), ParseOptions::default()).unwrap();
        assert_eq!(arranged, [tensor(2, 2), tensor(3, 2)]);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_its_code() {
        let (a, b) = (tensor(2, 2), tensor(3, 2));
        assert_eq!(code(vec![("c", a.clone())]), ErrorCode::InputUnknown);
        assert_eq!(code(vec![("a", a.clone())]), ErrorCode::InputMissing);
        let twice = vec![("a", a.clone()), ("a", a.clone()), ("b", b.clone())];
        assert_eq!(code(twice), ErrorCode::InputUnknown);
        assert_eq!(
            code(vec![("a", b.clone()), ("b", b.clone())]),
            ErrorCode::InputShape
        );
        assert_eq!(
            code(vec![("a", tensor(2, 1)), ("b", b.clone())]),
            ErrorCode::InputShape
        );
        let text = Tensor::from_byte_strings(&["x"]);
        assert_eq!(
            code(vec![("a", text), ("b", b.clone())]),
            ErrorCode::InputDtype
        );
        let nan = Tensor::from_f32(2, &[f32::NAN; 4]);
        assert_eq!(code(vec![("a", nan), ("b", b)]), ErrorCode::InputNotFinite);
    }

    #[test]
    fn outputs_are_those_that_are_named() {
        let places = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
            arrange_outputs(&wanted, &signature()).map_err(|failure| failure.code)
        };
        assert_eq!(places(&[]), Ok(vec![0, 1]));
        assert_eq!(places(&["y", "x"]), Ok(vec![1, 0]));
        assert_eq!(places(&["y", "y"]), Err(ErrorCode::OutputUnknown));
        assert_eq!(places(&["z"]), Err(ErrorCode::OutputUnknown));
    }
}
