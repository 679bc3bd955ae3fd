//! A tensor's values as JSON: flat, or as many at a time as whoever writes the brackets wants.

use data_encoding::BASE64;
use paceline_protocol::{Dtype, ErrorCode, Failure, Tensor};

use super::super::json::write;

/// Writes `[v,v,…]`.
pub(super) fn write(out: &mut Vec<u8>, name: &str, tensor: &Tensor) -> Result<(), Failure> {
    out.push(b'[');
    let written = Elements::of(tensor).take(out, tensor.shape().elements());
    written.map_err(|what| formless(name, &what))?;
    out.push(b']');
    Ok(())
}

/// Values that have not been written yet, in their order.
pub(in crate::gateway) struct Elements<'a> {
    dtype: Dtype,
    rest: &'a [u8],
    /// How many were taken.
    position: u64,
    in_base64: bool,
}

impl<'a> Elements<'a> {
    /// All of a tensor's.
    pub(in crate::gateway) fn of(tensor: &'a Tensor) -> Self {
        Self {
            dtype: tensor.dtype(),
            rest: tensor.data(),
            position: 0,
            in_base64: false,
        }
    }

    /// The same, with elements of BYTES as `{"b64":"…"}`.
    pub(in crate::gateway) fn in_base64(self) -> Self {
        Self {
            in_base64: true,
            ..self
        }
    }

    /// Writes the next `count` with commas between them.
    ///
    /// # Errors
    /// What it is of a value that JSON cannot say.
    ///
    /// # Panics
    /// If there are fewer.
    pub(in crate::gateway) fn take(&mut self, out: &mut Vec<u8>, count: u64) -> Result<(), String> {
        let mut refused = None;
        let bytes = self.fixed(count);
        match self.dtype {
            Dtype::Bool => each(out, bytes, |out, [value]: [u8; 1]| {
                write::boolean(out, value != 0)
            }),
            Dtype::Uint8 => whole(out, bytes, u8::from_le_bytes),
            Dtype::Uint16 => whole(out, bytes, u16::from_le_bytes),
            Dtype::Uint32 => whole(out, bytes, u32::from_le_bytes),
            Dtype::Uint64 => each(out, bytes, |out, value| {
                write::unsigned(out, u64::from_le_bytes(value));
            }),
            Dtype::Int8 => whole(out, bytes, i8::from_le_bytes),
            Dtype::Int16 => whole(out, bytes, i16::from_le_bytes),
            Dtype::Int32 => whole(out, bytes, i32::from_le_bytes),
            Dtype::Int64 => whole(out, bytes, i64::from_le_bytes),
            Dtype::Fp32 => each(out, bytes, |out, value| {
                let value = f32::from_le_bytes(value);
                if !write::float(out, value) {
                    refused = Some(f64::from(value));
                }
            }),
            Dtype::Fp64 => each(out, bytes, |out, value| {
                let value = f64::from_le_bytes(value);
                if !write::double(out, value) {
                    refused = Some(value);
                }
            }),
            Dtype::Bytes => self.strings(out, count)?,
            dtype @ (Dtype::Fp16 | Dtype::Bf16) => {
                return Err(format!("is {dtype}, which has no form in JSON"));
            }
        }
        if let Some(value) = refused {
            let kind = if value.is_nan() { "NaN" } else { "an infinity" };
            return Err(format!("holds {kind}, which has no form in JSON"));
        }
        self.position += count;
        Ok(())
    }

    /// The bytes of the next values, if each has the same number of them.
    fn fixed(&mut self, count: u64) -> &'a [u8] {
        let size = self.dtype.element_bytes().unwrap_or(0);
        let (bytes, rest) = self.rest.split_at(count as usize * size);
        self.rest = rest;
        bytes
    }

    fn strings(&mut self, out: &mut Vec<u8>, count: u64) -> Result<(), String> {
        for index in 0..count {
            if index > 0 {
                out.push(b',');
            }
            let (length, rest) = self.rest.split_first_chunk().expect("a length of each");
            let (element, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
            self.rest = rest;
            if self.in_base64 {
                write::object(out, |out| {
                    write::string_member(out, "b64", &BASE64.encode(element));
                });
                continue;
            }
            let text = std::str::from_utf8(element).map_err(|_| {
                let position = self.position + index;
                format!("holds text that is not UTF-8 as element {position}")
            })?;
            write::string(out, text);
        }
        Ok(())
    }
}

/// Bytes of text that a tensor's values take, roughly.
pub(super) fn text_estimate(tensor: &Tensor) -> usize {
    let bytes = tensor.data().len();
    match tensor.dtype() {
        // `true,`, and three digits at most with a sign and a comma.
        Dtype::Bool | Dtype::Uint8 | Dtype::Int8 => bytes * 5,
        // Five digits with a sign and a comma.
        Dtype::Uint16 | Dtype::Int16 | Dtype::Fp16 | Dtype::Bf16 => bytes * 7 / 2,
        // `0.12345678,` and `1234567890,`.
        Dtype::Uint32 | Dtype::Int32 | Dtype::Fp32 => bytes * 3,
        // `0.1234567890123456,`.
        Dtype::Uint64 | Dtype::Int64 | Dtype::Fp64 => bytes * 5 / 2,
        // Two quotes and a comma instead of four bytes of length.
        Dtype::Bytes => bytes,
    }
}

#[inline]
fn each<const N: usize>(
    out: &mut Vec<u8>,
    data: &[u8],
    mut write: impl FnMut(&mut Vec<u8>, [u8; N]),
) {
    for (position, value) in data.as_chunks::<N>().0.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write(out, *value);
    }
}

#[inline]
fn whole<T: Into<i64>, const N: usize>(
    out: &mut Vec<u8>,
    data: &[u8],
    value: impl Fn([u8; N]) -> T,
) {
    each(out, data, |out, bytes| {
        write::signed(out, value(bytes).into())
    });
}

/// Something that JSON cannot say and binary data can.
fn formless(name: &str, what: &str) -> Failure {
    let message = format!(
        "output '{name}' {what}: ask for it as binary data (parameter binary_data or \
         binary_data_output)"
    );
    Failure::new(ErrorCode::Unsupported, message)
}
