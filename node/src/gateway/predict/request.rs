//! Reads the body of a prediction: rows or columns, by a signature.

use paceline_protocol::{Dtype, ErrorCode, Failure, Signature, TensorSpec};

use crate::gateway::oip::json::{Keys, Reader};
use crate::gateway::oip::{
    Nested, ParseOptions, ParsedRequest, RequestParameters, WantedOutput, check_inputs, excerpt,
    listed,
};

/// How values are laid out, in a request and in its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One row after another; in an object each, if there are several tensors.
    Rows,
    /// One tensor after another.
    Columns,
}

/// A body whose outline is known: it is JSON, and this is where its values stand.
#[derive(Clone, Debug)]
pub struct Predict<'a> {
    form: Form,
    /// The member that holds them.
    member: &'static str,
    /// Before the values.
    values: Reader<'a>,
}

impl<'a> Predict<'a> {
    /// Finds the values in a body. Cost: one pass, in which all of it is checked to be JSON.
    ///
    /// # Errors
    /// `JSON_INVALID`, or `PARAMETER_INVALID` for a signature that no model has.
    pub fn read(body: &'a [u8]) -> Result<Self, Failure> {
        let mut reader = Reader::new(body);
        let mut keys = Keys::new(&["instances", "inputs", "signature_name"]);
        let mut found: Option<Self> = None;
        let mut members = reader.object("the request object")?;
        while let Some(key) = members.next(&mut reader)? {
            match keys.note(key).map_err(|key| twice(&key))? {
                Some("signature_name") if !reader.null()? => check_signature(&reader.string()?)?,
                Some("signature_name") => {}
                Some(member) => {
                    if found.is_some() {
                        return Err(both_or_none());
                    }
                    found = Some(Self::at(&mut reader, member)?);
                    reader.skip()?;
                }
                None => reader.skip()?,
            }
        }
        reader.end()?;
        found.ok_or_else(both_or_none)
    }

    fn at(reader: &mut Reader<'a>, member: &'static str) -> Result<Self, Failure> {
        let form = match (reader.peek(), member) {
            (Some(b'['), _) => Form::Rows,
            (Some(b'{'), "inputs") => Form::Columns,
            (_, "inputs") => return Err(reader.expected("a list of rows, or an object").into()),
            _ => return Err(reader.expected("a list of rows").into()),
        };
        Ok(Self {
            form,
            member,
            values: reader.clone(),
        })
    }

    /// How the values are laid out.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The tensors, by a signature. All outputs are wanted.
    ///
    /// Cost: one pass, and one allocation for each input that grows with what is there.
    ///
    /// # Errors
    /// A [`Failure`] with one of the codes `JSON_INVALID`, `INPUT_*` or `TOO_LARGE`; its sentence
    /// names what was wrong, where, and what is allowed. `UNSUPPORTED` if an output has no form in
    /// JSON.
    pub fn parse(
        &self,
        signature: &Signature,
        options: ParseOptions,
    ) -> Result<ParsedRequest, Failure> {
        check_outputs(signature)?;
        let specs = &signature.inputs;
        let mut reader = self.values.clone();
        let bytes = reader.rest().len() / specs.len().max(1);
        let columns = specs.iter().map(|spec| Nested::new(spec, bytes));
        let mut columns: Vec<Nested<'_>> = columns.collect::<Result<_, _>>()?;
        match self.form {
            Form::Rows => self.rows(&mut reader, specs, &mut columns)?,
            Form::Columns => named(&mut reader, (specs, self.member), |position, reader| {
                columns[position].whole(reader)
            })?,
        }
        let inputs = columns.into_iter().map(Nested::finish);
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        check_inputs(&inputs, signature, options)?;
        let all = 0..signature.outputs.len();
        let wanted = |position| WantedOutput {
            position,
            binary: false,
            classes: None,
        };
        Ok(ParsedRequest {
            id: None,
            inputs,
            outputs: all.map(wanted).collect(),
            parameters: RequestParameters::default(),
        })
    }

    fn rows(
        &self,
        reader: &mut Reader<'_>,
        specs: &[TensorSpec],
        columns: &mut [Nested<'_>],
    ) -> Result<(), Failure> {
        let mut items = reader.array("a list of rows")?;
        let mut count = 0_u64;
        while items.next(reader)? {
            if is_named(reader, specs)? {
                let place = format!("{}[{count}]", self.member);
                named(reader, (specs, &place), |position, reader| {
                    columns[position].row(reader)
                })?;
            } else if let [column] = columns {
                column.row(reader)?;
            } else {
                let message = format!(
                    "{}[{count}] is no object: the model takes {} inputs, so each row names them: {}",
                    self.member,
                    specs.len(),
                    listed(specs)
                );
                return Err(Failure::new(ErrorCode::InputMissing, message));
            }
            count += 1;
        }
        match count {
            0 => {
                let message = format!("'{}' is empty: at least one row is needed", self.member);
                Err(Failure::new(ErrorCode::InputShape, message))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a row is an object of inputs by name, and not an element in base64.
fn is_named(reader: &mut Reader<'_>, specs: &[TensorSpec]) -> Result<bool, Failure> {
    if reader.peek() != Some(b'{') {
        return Ok(false);
    }
    let is_element = match specs {
        [only] => only.dtype == Dtype::Bytes && only.name != "b64",
        _ => false,
    };
    if !is_element {
        return Ok(true);
    }
    let mut ahead = reader.clone();
    let first = ahead.object("a row")?.next(&mut ahead)?;
    Ok(first.as_deref() != Some("b64"))
}

/// Reads an object that has each input once, by its name.
fn named<'a>(
    reader: &mut Reader<'a>,
    (specs, place): (&[TensorSpec], &str),
    mut read: impl FnMut(usize, &mut Reader<'a>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // A signature has at most as many tensors as there are bits.
    let mut met = 0_u64;
    let mut members = reader.object("an object of inputs by name")?;
    while let Some(key) = members.next(reader)? {
        let Some(position) = specs.iter().position(|spec| spec.name == key) else {
            let message = format!(
                "{place}: {} is not an input of this model, which takes {}",
                excerpt(&key),
                listed(specs)
            );
            return Err(Failure::new(ErrorCode::InputUnknown, message));
        };
        if met & 1 << position != 0 {
            let message = format!("{place}: input {} stands there twice", excerpt(&key));
            return Err(Failure::new(ErrorCode::InputUnknown, message));
        }
        met |= 1 << position;
        read(position, reader)?;
    }
    let missing = (0..specs.len()).find(|position| met & 1 << position == 0);
    missing.map_or(Ok(()), |position| {
        let message = format!(
            "{place} lacks {}; the model takes {}",
            excerpt(&specs[position].name),
            listed(specs)
        );
        Err(Failure::new(ErrorCode::InputMissing, message))
    })
}

/// It is better to say so before the model has run.
fn check_outputs(signature: &Signature) -> Result<(), Failure> {
    let has_no_form = |spec: &&TensorSpec| matches!(spec.dtype, Dtype::Fp16 | Dtype::Bf16);
    match signature.outputs.iter().find(has_no_form) {
        None => Ok(()),
        Some(spec) => {
            let what = format!("is {}, which has no form in JSON", spec.dtype);
            Err(super::answer::formless(&spec.name, &what))
        }
    }
}

fn check_signature(name: &str) -> Result<(), Failure> {
    if name.is_empty() || name == SIGNATURE {
        return Ok(());
    }
    let message = format!(
        "there is no signature {}; the one that there is: '{SIGNATURE}'",
        excerpt(name)
    );
    Err(Failure::new(ErrorCode::ParameterInvalid, message))
}

fn twice(key: &str) -> Failure {
    let message = format!("the key {} stands twice in the request", excerpt(key));
    Failure::new(ErrorCode::JsonInvalid, message)
}

fn both_or_none() -> Failure {
    let message = "the request has exactly one of 'instances' and 'inputs'";
    Failure::new(ErrorCode::JsonInvalid, message)
}

/// What TensorFlow calls a model's signature that is not named.
pub(super) const SIGNATURE: &str = "serving_default";

const _: () = assert!(paceline_protocol::limits::TENSORS_MAX <= 64);

#[cfg(test)]
mod tests {
    use paceline_protocol::{Dim, ShapePattern};

    use super::*;

    fn signature(inputs: &[(&str, Dtype, &[Dim])]) -> Signature {
        let spec = |(name, dtype, dims): &(&str, Dtype, &[Dim])| TensorSpec {
            name: (*name).into(),
            dtype: *dtype,
            shape: ShapePattern(dims.to_vec()),
        };
        Signature {
            inputs: inputs.iter().map(spec).collect(),
            outputs: vec![spec(&("y", Dtype::Fp32, &[Dim::Any]))],
        }
    }

    fn parse(signature: &Signature, body: &str) -> Result<(Form, ParsedRequest), Failure> {
        let read = Predict::read(body.as_bytes())?;
        let parsed = read.parse(signature, ParseOptions::default())?;
        Ok((read.form(), parsed))
    }

    fn one() -> Signature {
        signature(&[("x", Dtype::Fp32, &[Dim::Any, Dim::Exactly(2)])])
    }

    fn two() -> Signature {
        let text: (_, _, &[Dim]) = ("t", Dtype::Bytes, &[Dim::Any]);
        signature(&[("x", Dtype::Fp32, &[Dim::Any, Dim::Exactly(2)]), text])
    }

    #[test]
    fn the_same_rows_are_read_in_every_form() {
        let bodies = [
            (r#"{"instances":[[1,2],[3,4]]}"#, Form::Rows),
            (
                r#"{"inputs":[[1,2],[3,4]],"signature_name":"serving_default"}"#,
                Form::Rows,
            ),
            (r#"{"instances":[{"x":[1,2]},{"x":[3,4]}]}"#, Form::Rows),
            (
                r#"{"extra":{"a":[]},"inputs":{"x":[[1,2],[3,4]]},"signature_name":null}"#,
                Form::Columns,
            ),
        ];
        for (body, form) in bodies {
            let (read, parsed) = parse(&one(), body).expect(body);
            assert_eq!(read, form, "{body}");
            let tensor = &parsed.inputs[0];
            assert_eq!(tensor.shape().dims(), [2, 2], "{body}");
            let mut values = Vec::new();
            assert!(tensor.extend_f32(&mut values));
            assert_eq!(values, [1.0, 2.0, 3.0, 4.0], "{body}");
            assert_eq!(parsed.outputs.len(), 1);
        }
        let bodies = [
            r#"{"instances":[{"t":"a","x":[1,2]},{"x":[3,4],"t":{"b64":"Yg=="}}]}"#,
            r#"{"inputs":{"t":["a",{"b64":"Yg=="}],"x":[[1,2],[3,4]]}}"#,
        ];
        for body in bodies {
            let (_, parsed) = parse(&two(), body).expect(body);
            let texts: Vec<_> = parsed.inputs[1].byte_strings().collect();
            assert_eq!(texts, [b"a", b"b"], "{body}");
            assert_eq!(parsed.rows(), 2);
        }
        let bytes = signature(&[("t", Dtype::Bytes, &[Dim::Any])]);
        for body in [
            r#"{"instances":[{"b64":"YQ=="},"b"]}"#,
            r#"{"instances":[{"t":"a"},{"t":{"b64":"Yg=="}}]}"#,
        ] {
            let (_, parsed) = parse(&bytes, body).expect(body);
            let texts: Vec<_> = parsed.inputs[0].byte_strings().collect();
            assert_eq!(texts, [b"a", b"b"], "{body}");
        }
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "a table, a row a case")]
    fn what_cannot_be_read_is_named() {
        use ErrorCode as E;
        let cases: &[(&str, ErrorCode, &str)] = &[
            ("{}", E::JsonInvalid, "exactly one of"),
            (
                r#"{"instances":[[1,2]],"inputs":[[1,2]]}"#,
                E::JsonInvalid,
                "exactly one of",
            ),
            (
                r#"{"instances":[[1,2]],"instances":[]}"#,
                E::JsonInvalid,
                "twice",
            ),
            (
                r#"{"instances":{"x":[1,2]}}"#,
                E::JsonInvalid,
                "a list of rows",
            ),
            (r#"{"inputs":7}"#, E::JsonInvalid, "or an object"),
            (r#"{"instances":[]}"#, E::InputShape, "empty"),
            (
                r#"{"instances":[1,2]}"#,
                E::InputShape,
                "has shape [2], the model takes",
            ),
            (
                r#"{"instances":[[1,2],[3]]}"#,
                E::InputValues,
                "has 1 items",
            ),
            (r#"{"instances":[[1,"2"]]}"#, E::InputValues, "is a string"),
            (
                r#"{"instances":[{"z":[1,2]}]}"#,
                E::InputUnknown,
                "instances[0]: 'z'",
            ),
            (
                r#"{"instances":[{"x":[1,2],"x":[1,2]}]}"#,
                E::InputUnknown,
                "twice",
            ),
            (
                r#"{"instances":[{}]}"#,
                E::InputMissing,
                "instances[0] lacks 'x'",
            ),
            (r#"{"inputs":{}}"#, E::InputMissing, "inputs lacks 'x'"),
            (r#"{"instances":[[1,NaN]]}"#, E::JsonInvalid, "NaN"),
            (
                r#"{"instances":[[1,2]],"signature_name":"other"}"#,
                E::ParameterInvalid,
                "serving_default",
            ),
            (
                r#"{"instances":[[1,2]]} x"#,
                E::JsonInvalid,
                "end of the JSON",
            ),
        ];
        for (body, code, words) in cases {
            let refused = parse(&one(), body).expect_err(body);
            let said = refused.to_string();
            assert_eq!(refused.code, *code, "{body}: {said}");
            assert!(said.contains(words), "{body}: {said}");
        }
        let rows = parse(&two(), r#"{"instances":[[1,2]]}"#).unwrap_err();
        assert!(rows.to_string().contains("takes 2 inputs"), "{rows}");
        let differ = r#"{"inputs":{"t":["a"],"x":[[1,2],[3,4]]}}"#;
        assert!(
            parse(&two(), differ)
                .unwrap_err()
                .to_string()
                .contains("differ in rows")
        );
        let deep = format!(r#"{{"instances":{}{}}}"#, "[".repeat(40), "]".repeat(40));
        assert!(
            parse(&one(), &deep)
                .unwrap_err()
                .to_string()
                .contains("deeper than 32")
        );
    }
}
