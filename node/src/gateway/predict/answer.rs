//! Writes the answer to a prediction in the form that its request had.

use paceline_protocol::{ErrorCode, Failure};

use super::request::Form;
use crate::gateway::oip::json::write;
use crate::gateway::oip::{AnswerView, Elements, Rendered};

/// Writes an answer: `predictions` row by row, or `outputs` tensor by tensor; the name of a single
/// output is left away. An output whose name ends with `_bytes` is written in base64.
///
/// # Errors
/// `UNSUPPORTED` if JSON has no form for a value: NaN, an infinity, text that is not UTF-8. The
/// sentence names the way that has one.
pub fn render(view: &AnswerView<'_>, form: Form) -> Result<Rendered, Failure> {
    let outputs = view.wanted.iter();
    let mut outputs: Vec<Output<'_>> = outputs
        .map(|wanted| Output::of(view, wanted.position))
        .collect();
    let mut head = Vec::with_capacity(estimate(view));
    head.push(b'{');
    match form {
        Form::Rows => {
            write::key(&mut head, "predictions");
            rows(&mut head, &mut outputs)?;
        }
        Form::Columns => {
            write::key(&mut head, "outputs");
            columns(&mut head, &mut outputs)?;
        }
    }
    head.push(b'}');
    Ok(Rendered {
        head: head.into(),
        bodies: Vec::new(),
        json_bytes: None,
    })
}

/// An output on its way into JSON.
struct Output<'a> {
    name: &'a str,
    dims: &'a [u64],
    elements: Elements<'a>,
}

impl<'a> Output<'a> {
    fn of(view: &AnswerView<'a>, position: usize) -> Self {
        let name = view.signature.outputs[position].name.as_str();
        let tensor = &view.outputs[position];
        let elements = Elements::of(tensor);
        Self {
            name,
            dims: tensor.shape().dims(),
            elements: match name.ends_with("_bytes") {
                true => elements.in_base64(),
                false => elements,
            },
        }
    }

    /// Writes the next value that lies in `level` arrays.
    fn value(&mut self, out: &mut Vec<u8>, level: usize) -> Result<(), Failure> {
        let written = nested(
            out,
            self.dims.get(level..).unwrap_or(&[]),
            &mut self.elements,
        );
        written.map_err(|what| formless(self.name, &what))
    }
}

fn rows(out: &mut Vec<u8>, outputs: &mut [Output<'_>]) -> Result<(), Failure> {
    let rows = outputs.first().and_then(|output| output.dims.first());
    let rows = rows.copied().unwrap_or(0);
    out.push(b'[');
    for row in 0..rows {
        if row > 0 {
            out.push(b',');
        }
        if let [output] = outputs {
            output.value(out, 1)?;
        } else {
            members(out, outputs, 1)?;
        }
    }
    out.push(b']');
    Ok(())
}

fn columns(out: &mut Vec<u8>, outputs: &mut [Output<'_>]) -> Result<(), Failure> {
    match outputs {
        [output] => output.value(out, 0),
        outputs => members(out, outputs, 0),
    }
}

fn members(out: &mut Vec<u8>, outputs: &mut [Output<'_>], level: usize) -> Result<(), Failure> {
    out.push(b'{');
    for output in outputs {
        write::key(out, output.name);
        output.value(out, level)?;
    }
    out.push(b'}');
    Ok(())
}

/// Writes what has these sizes. It calls itself once a dimension at most.
fn nested(out: &mut Vec<u8>, dims: &[u64], elements: &mut Elements<'_>) -> Result<(), String> {
    let Some((size, inner)) = dims.split_first() else {
        return elements.take(out, 1);
    };
    out.push(b'[');
    if inner.is_empty() {
        elements.take(out, *size)?;
    } else {
        for item in 0..*size {
            if item > 0 {
                out.push(b',');
            }
            nested(out, inner, elements)?;
        }
    }
    out.push(b']');
    Ok(())
}

/// Something that JSON cannot say and binary data can.
pub(super) fn formless(name: &str, what: &str) -> Failure {
    let message = format!(
        "output '{name}' {what}: ask /v2/models/MODEL/infer for it as binary data (parameter \
         binary_data)"
    );
    Failure::new(ErrorCode::Unsupported, message)
}

/// Room for most answers: three bytes of text for each byte of a float.
fn estimate(view: &AnswerView<'_>) -> usize {
    let bytes: usize = view.outputs.iter().map(|tensor| tensor.data().len()).sum();
    64 + bytes * 3
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use paceline_protocol::{
        Dim, Dtype, Shape, ShapePattern, Signature, Tensor, TensorSpec, VersionNumber,
    };

    use super::*;
    use crate::gateway::oip::WantedOutput;

    fn render_all(outputs: &[(&str, Tensor)], form: Form) -> Result<String, Failure> {
        let specs = outputs.iter().map(|(name, tensor)| TensorSpec {
            name: (*name).into(),
            dtype: tensor.dtype(),
            shape: ShapePattern(vec![Dim::Any]),
        });
        let signature = Signature {
            inputs: Vec::new(),
            outputs: specs.collect(),
        };
        let tensors: Vec<_> = outputs.iter().map(|(_, tensor)| tensor.clone()).collect();
        let wanted: Vec<_> = (0..outputs.len())
            .map(|position| WantedOutput {
                position,
                binary: false,
                classes: None,
            })
            .collect();
        let view = AnswerView {
            model_name: "m",
            version: VersionNumber(1),
            id: None,
            parameters: &[],
            signature: &signature,
            outputs: &tensors,
            wanted: &wanted,
        };
        let rendered = render(&view, form)?;
        assert!(rendered.bodies.is_empty() && rendered.json_bytes.is_none());
        Ok(String::from_utf8(rendered.head.to_vec()).unwrap())
    }

    #[test]
    fn an_answer_has_the_form_of_its_request() {
        let scores = ("scores", Tensor::from_f32(2, &[0.5, 1.0, 2.0, -3.0]));
        let label = ("label", Tensor::from_byte_strings(&["a", "b\""]));
        let one = |form| render_all(std::slice::from_ref(&scores), form).unwrap();
        assert_eq!(one(Form::Rows), r#"{"predictions":[[0.5,1.0],[2.0,-3.0]]}"#);
        assert_eq!(one(Form::Columns), r#"{"outputs":[[0.5,1.0],[2.0,-3.0]]}"#);
        let two = |form| render_all(&[scores.clone(), label.clone()], form).unwrap();
        assert_eq!(
            two(Form::Rows),
            r#"{"predictions":[{"scores":[0.5,1.0],"label":["a"]},{"scores":[2.0,-3.0],"label":["b\""]}]}"#
        );
        assert_eq!(
            two(Form::Columns),
            r#"{"outputs":{"scores":[[0.5,1.0],[2.0,-3.0]],"label":[["a"],["b\""]]}}"#
        );
        let flat = Tensor::new(
            Dtype::Bool,
            Shape::new(&[3]).unwrap(),
            Bytes::from_static(&[1, 0, 1]),
        );
        let flat = [("y", flat.unwrap())];
        let text = render_all(&flat, Form::Rows).unwrap();
        assert_eq!(text, r#"{"predictions":[true,false,true]}"#);
    }

    #[test]
    fn bytes_are_text_or_base64_by_the_name_and_nothing_is_no_json() {
        let image = [("image_bytes", Tensor::from_byte_strings(&["a", ""]))];
        let text = render_all(&image, Form::Rows).unwrap();
        assert_eq!(text, r#"{"predictions":[[{"b64":"YQ=="}],[{"b64":""}]]}"#);
        let nan = [("y", Tensor::from_f32(1, &[0.0, f32::NAN]))];
        for form in [Form::Rows, Form::Columns] {
            let refused = render_all(&nan, form).unwrap_err();
            assert_eq!(refused.code, ErrorCode::Unsupported);
            assert!(
                refused.to_string().contains("output 'y' holds NaN"),
                "{refused}"
            );
        }
    }
}
