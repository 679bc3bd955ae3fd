//! Values in JSON, flat or nested, written straight into a tensor's bytes.

mod nested;
mod sink;

use paceline_protocol::{ErrorCode, Failure, Shape, Tensor, TensorSpec};

use self::sink::{Fault, Run, Sink, misfit, room};
use super::super::json::Reader;
use super::excerpt;
pub(in crate::gateway) use nested::Nested;

/// Reads the `data` of an input. Cost: one pass, one allocation, none for each value.
pub(super) fn read(
    reader: &mut Reader<'_>,
    spec: &TensorSpec,
    shape: Shape,
) -> Result<Tensor, Failure> {
    let room = room(shape.elements(), reader.rest().len());
    let mut sink = Sink::new(spec, room, reader.rest().len())?;
    let mut walk = Walk { shape, count: 0 };
    let walked = walk.array(reader, 1, &mut |reader, most| sink.run(reader, most));
    walked.map_err(|fault| walk.failure(reader, spec, fault))?;
    Tensor::new(spec.dtype, shape, sink.finish()).map_err(|error| {
        let message = format!("input {}: {error}", excerpt(&spec.name));
        Failure::new(ErrorCode::InputValues, message)
    })
}

/// A walk through the brackets of `data`.
struct Walk {
    shape: Shape,
    /// Values met so far.
    count: u64,
}

impl Walk {
    /// Reads the array at `level`, counted from 1. It calls itself once a dimension at most.
    fn array(
        &mut self,
        reader: &mut Reader<'_>,
        level: usize,
        run: &mut impl FnMut(&mut Reader<'_>, u64) -> Run,
    ) -> Result<(), Fault> {
        let rank = self.shape.dims().len();
        reader.peek();
        let at = reader.at();
        let mut items = reader.array("an array of values")?;
        let mut here = 0;
        let nested = reader.peek() == Some(b'[');
        if nested && level >= rank {
            return Err(Fault::Depth(level + 1));
        }
        while items.next(reader)? {
            let room = self.shape.elements() - self.count.min(self.shape.elements());
            if nested {
                self.array(reader, level + 1, run)?;
                here += 1;
            } else if room > 0 {
                let (values, end) = run(reader, room);
                self.count += values;
                here += values;
                end?;
            } else {
                // One value too many; the rest is counted for the sake of the sentence.
                reader.skip()?;
                self.count += 1;
                here += 1;
            }
        }
        if level == 1 && !nested {
            return if here == self.shape.elements() {
                Ok(())
            } else {
                Err(Fault::Count)
            };
        }
        if !nested && here > 0 && level != rank {
            return Err(Fault::Depth(level));
        }
        let wanted = self.shape.dims()[level - 1];
        if here == wanted {
            Ok(())
        } else {
            Err(Fault::Items {
                at,
                items: here,
                wanted,
            })
        }
    }

    #[cold]
    fn failure(&self, reader: &Reader<'_>, spec: &TensorSpec, fault: Fault) -> Failure {
        let (name, shape) = (excerpt(&spec.name), self.shape);
        let message = match fault {
            Fault::Json(error) => return error.into(),
            Fault::Value(at) | Fault::Base64(at) => misfit(reader, spec, (self.count, at)),
            Fault::Count => format!(
                "input {name}: shape {shape} needs {} values, its data has {}",
                shape.elements(),
                self.count
            ),
            Fault::Items { at, items, wanted } => format!(
                "input {name}: shape {shape} wants {wanted} items in the array at byte {at}, \
                 which has {items}"
            ),
            Fault::Depth(depth) => format!(
                "input {name}: its data is nested {depth} deep; shape {shape} takes flat data \
                 or data nested {} deep",
                shape.dims().len()
            ),
        };
        Failure::new(ErrorCode::InputValues, message)
    }
}
