//! Values whose shape follows from their brackets: TF Serving's and KServe's instances.

use std::fmt::Display;

use paceline_protocol::limits::DIMS_MAX;
use paceline_protocol::{ErrorCode, Failure, Shape, Tensor, TensorSpec};

use super::super::super::json::Reader;
use super::super::{check_shape, excerpt};
use super::sink::{Fault, Sink, misfit};

/// A tensor that is read whole, or a row at a time. Cost: one pass, none for each value.
pub(in crate::gateway) struct Nested<'s> {
    spec: &'s TensorSpec,
    sink: Sink,
    /// Sizes as far as they are known, outermost first.
    dims: [Option<u64>; DIMS_MAX],
    /// How deep values lie, once there was one.
    rank: Option<usize>,
    /// Values met so far.
    count: u64,
}

impl<'s> Nested<'s> {
    /// Nothing yet of an input that shares so many bytes of JSON with others.
    ///
    /// # Errors
    /// `INPUT_DTYPE`: the datatype has no form in JSON.
    pub(in crate::gateway) fn new(spec: &'s TensorSpec, bytes: usize) -> Result<Self, Failure> {
        // Numbers are seldom shorter than four bytes with their comma; otherwise it grows.
        let sink = Sink::new(spec, bytes / 4, bytes)?.with_base64();
        Ok(Self {
            spec,
            sink,
            dims: [None; DIMS_MAX],
            rank: None,
            count: 0,
        })
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// `JSON_INVALID`, or `INPUT_VALUES`, which names the value and what is allowed.
    pub(in crate::gateway) fn whole(&mut self, reader: &mut Reader<'_>) -> Result<(), Failure> {
        let read = self.value(reader, 0);
        read.map_err(|fault| self.failure(reader, fault))
    }

    /// Reads the next row.
    ///
    /// # Errors
    /// The same.
    pub(in crate::gateway) fn row(&mut self, reader: &mut Reader<'_>) -> Result<(), Failure> {
        self.dims[0] = Some(self.rows() + 1);
        let read = self.value(reader, 1);
        read.map_err(|fault| self.failure(reader, fault))
    }

    /// Rows that were read one at a time.
    pub(in crate::gateway) fn rows(&self) -> u64 {
        self.dims[0].unwrap_or(0)
    }

    /// The tensor.
    ///
    /// # Errors
    /// `INPUT_SHAPE`: the model takes another shape.
    pub(in crate::gateway) fn finish(self) -> Result<Tensor, Failure> {
        let rank = self.rank.unwrap_or(0);
        let dims = self.dims.iter().take(rank).map(|dim| dim.unwrap_or(0));
        let dims: Vec<u64> = dims.collect();
        let refused = |code, error: &dyn Display| {
            let message = format!("input {}: {error}", excerpt(&self.spec.name));
            Failure::new(code, message)
        };
        let shape = Shape::new(&dims);
        let shape = shape.map_err(|error| refused(ErrorCode::InputShape, &error))?;
        check_shape(self.spec, &shape)?;
        let tensor = Tensor::new(self.spec.dtype, shape, self.sink.finish());
        tensor.map_err(|error| refused(ErrorCode::InputValues, &error))
    }

    /// Reads a value that lies in `level` arrays of its tensor. It calls itself once a dimension at
    /// most.
    fn value(&mut self, reader: &mut Reader<'_>, level: usize) -> Result<(), Fault> {
        if reader.peek() != Some(b'[') {
            self.lies_at(level)?;
            let (_, end) = self.run(reader, 1);
            return end;
        }
        if level >= self.rank.unwrap_or(DIMS_MAX) {
            return Err(Fault::Depth(level + 1));
        }
        let at = reader.at();
        let mut items = reader.array("an array of values")?;
        let mut here = 0;
        while items.next(reader)? {
            if reader.peek() == Some(b'[') {
                self.value(reader, level + 1)?;
                here += 1;
                continue;
            }
            self.lies_at(level + 1)?;
            let (values, end) = self.run(reader, u64::MAX);
            here += values;
            end?;
        }
        if here == 0 {
            self.rank.get_or_insert(level + 1);
        }
        match *self.dims[level].get_or_insert(here) {
            wanted if wanted == here => Ok(()),
            wanted => Err(Fault::Items {
                at,
                items: here,
                wanted,
            }),
        }
    }

    fn run(&mut self, reader: &mut Reader<'_>, most: u64) -> (u64, Result<(), Fault>) {
        let (values, end) = self.sink.run(reader, most);
        self.count += values;
        (values, end)
    }

    /// All values lie equally deep.
    fn lies_at(&mut self, depth: usize) -> Result<(), Fault> {
        match *self.rank.get_or_insert(depth) {
            rank if rank == depth => Ok(()),
            _ => Err(Fault::Depth(depth)),
        }
    }

    #[cold]
    fn failure(&self, reader: &Reader<'_>, fault: Fault) -> Failure {
        let name = excerpt(&self.spec.name);
        let message = match fault {
            Fault::Json(error) => return error.into(),
            Fault::Value(at) => misfit(reader, self.spec, (self.count, at)),
            Fault::Base64(at) => format!(
                "element {} of input {name}, at byte {at}: its 'b64' is not base64 with the standard \
                 alphabet and padding",
                self.count
            ),
            Fault::Items { at, items, wanted } => format!(
                "input {name}: the array at byte {at} has {items} items, where those before it have \
                 {wanted}: all rows have one shape"
            ),
            Fault::Depth(depth) => format!(
                "input {name}: a value lies {depth} deep, where {} is the depth of those before it \
                 or the most that there is",
                self.rank.unwrap_or(DIMS_MAX)
            ),
            Fault::Count => format!("input {name}: its values do not add up"),
        };
        Failure::new(ErrorCode::InputValues, message)
    }
}

#[cfg(test)]
mod tests {
    use paceline_protocol::{Dim, Dtype, ShapePattern};

    use super::*;

    fn spec(dtype: Dtype, dims: &[Dim]) -> TensorSpec {
        TensorSpec {
            name: "x".into(),
            dtype,
            shape: ShapePattern(dims.to_vec()),
        }
    }

    fn whole(spec: &TensorSpec, json: &str) -> Result<Tensor, Failure> {
        let mut reader = Reader::new(json.as_bytes());
        let mut nested = Nested::new(spec, json.len())?;
        nested.whole(&mut reader)?;
        assert!(reader.end().is_ok(), "{json}");
        nested.finish()
    }

    fn refused(spec: &TensorSpec, json: &str) -> String {
        whole(spec, json).expect_err(json).to_string()
    }

    #[test]
    fn brackets_are_the_shape() {
        let pattern = spec(Dtype::Fp32, &[Dim::Any, Dim::Any]);
        let tensor = whole(&pattern, "[[1, 2, 3], [4, 5.5, -6e0]]").unwrap();
        assert_eq!(tensor.shape().dims(), [2, 3]);
        let mut values = Vec::new();
        assert!(tensor.extend_f32(&mut values));
        assert_eq!(values, [1.0, 2.0, 3.0, 4.0, 5.5, -6.0]);
        let column = spec(Dtype::Int64, &[Dim::Any]);
        assert_eq!(whole(&column, "[1,2]").unwrap().shape().dims(), [2]);
        let deep = spec(Dtype::Bool, &[Dim::Any, Dim::Exactly(1), Dim::Exactly(2)]);
        let tensor = whole(&deep, "[[[true,0]],[[1,false]]]").unwrap();
        assert_eq!(tensor.data()[..], [1, 0, 1, 0]);
        assert_eq!(whole(&pattern, "[[],[]]").unwrap().shape().dims(), [2, 0]);
    }

    #[test]
    fn rows_are_read_one_by_one() {
        let pattern = spec(Dtype::Uint8, &[Dim::Any, Dim::Exactly(2)]);
        let mut nested = Nested::new(&pattern, 8).unwrap();
        for row in ["[1,2]", "[3,4]", "[5,255]"] {
            nested.row(&mut Reader::new(row.as_bytes())).unwrap();
        }
        assert_eq!(nested.rows(), 3);
        let tensor = nested.finish().unwrap();
        assert_eq!(tensor.shape().dims(), [3, 2]);
        assert_eq!(tensor.data()[..], [1, 2, 3, 4, 5, 255]);
        let scalars = spec(Dtype::Fp64, &[Dim::Any]);
        let mut nested = Nested::new(&scalars, 8).unwrap();
        for row in ["1.5", " -2"] {
            nested.row(&mut Reader::new(row.as_bytes())).unwrap();
        }
        assert_eq!(nested.finish().unwrap().shape().dims(), [2]);
    }

    #[test]
    fn what_is_ragged_or_does_not_fit_is_named() {
        let pattern = spec(Dtype::Int8, &[Dim::Any, Dim::Exactly(2)]);
        assert!(refused(&pattern, "[[1,2],[3]]").contains("at byte 7 has 1 items"));
        assert!(refused(&pattern, "[[1,2],3]").contains("a value lies 1 deep, where 2"));
        assert!(refused(&pattern, "[[1,[2]]]").contains("element 1 of input 'x' is an array"));
        assert!(refused(&pattern, "[[1,2],[[3],[4]]]").contains("3 deep, where 2"));
        assert!(refused(&pattern, "[[1,2],[3,128]]").contains("from -128 to 127"));
        assert!(refused(&pattern, "[[1,2.5]]").contains("element 1 of input 'x' is 2.5"));
        assert!(refused(&pattern, "[1,2]").contains("has shape [2]"));
        assert!(refused(&pattern, "7").contains("has shape []"));
        assert!(refused(&pattern, "[[NaN,1]]").contains("JSON has no NaN"));
        let nine = format!("{}1{}", "[".repeat(9), "]".repeat(9));
        assert!(refused(&pattern, &nine).contains("9 deep, where 8"));
        let half = spec(Dtype::Fp16, &[Dim::Any]);
        assert!(refused(&half, "[1]").contains("has no form in JSON"));
    }

    #[test]
    fn strings_are_text_or_base64() {
        let pattern = spec(Dtype::Bytes, &[Dim::Any]);
        let tensor = whole(&pattern, r#"["a",{"b64":"/wA="},{"b64":""}]"#).unwrap();
        let elements: Vec<_> = tensor.byte_strings().collect();
        assert_eq!(elements, [&b"a"[..], b"\xff\x00", b""]);
        assert!(refused(&pattern, r#"[{"b64":"/wA"}]"#).contains("is not base64"));
        assert!(refused(&pattern, r#"[{"b65":"AA=="}]"#).contains("is an object"));
        assert!(refused(&pattern, r#"[{"b64":"AA==","x":1}]"#).contains("is an object"));
        assert!(refused(&pattern, "[1]").contains("takes strings"));
        let number = spec(Dtype::Fp32, &[Dim::Any]);
        assert!(refused(&number, r#"[{"b64":"AA=="}]"#).contains("is an object"));
    }
}
