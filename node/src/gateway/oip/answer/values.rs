//! A tensor's values as a flat JSON array.

use paceline_protocol::{Dtype, ErrorCode, Failure, Tensor};

use super::super::json::write;

/// Writes `[v,v,…]`.
pub(super) fn write(out: &mut Vec<u8>, name: &str, tensor: &Tensor) -> Result<(), Failure> {
    let data = tensor.data();
    let mut refused = None;
    out.push(b'[');
    match tensor.dtype() {
        Dtype::Bool => each(out, data, |out, [value]: [u8; 1]| {
            write::boolean(out, value != 0)
        }),
        Dtype::Uint8 => whole(out, data, u8::from_le_bytes),
        Dtype::Uint16 => whole(out, data, u16::from_le_bytes),
        Dtype::Uint32 => whole(out, data, u32::from_le_bytes),
        Dtype::Uint64 => each(out, data, |out, value| {
            write::unsigned(out, u64::from_le_bytes(value));
        }),
        Dtype::Int8 => whole(out, data, i8::from_le_bytes),
        Dtype::Int16 => whole(out, data, i16::from_le_bytes),
        Dtype::Int32 => whole(out, data, i32::from_le_bytes),
        Dtype::Int64 => whole(out, data, i64::from_le_bytes),
        Dtype::Fp32 => each(out, data, |out, value| {
            let value = f32::from_le_bytes(value);
            if !write::float(out, value) {
                refused = Some(f64::from(value));
            }
        }),
        Dtype::Fp64 => each(out, data, |out, value| {
            let value = f64::from_le_bytes(value);
            if !write::double(out, value) {
                refused = Some(value);
            }
        }),
        Dtype::Bytes => strings(out, name, tensor)?,
        dtype @ (Dtype::Fp16 | Dtype::Bf16) => {
            return Err(formless(
                name,
                &format!("is {dtype}, which has no form in JSON"),
            ));
        }
    }
    if let Some(value) = refused {
        let kind = if value.is_nan() { "NaN" } else { "an infinity" };
        return Err(formless(
            name,
            &format!("holds {kind}, which has no form in JSON"),
        ));
    }
    out.push(b']');
    Ok(())
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

fn strings(out: &mut Vec<u8>, name: &str, tensor: &Tensor) -> Result<(), Failure> {
    for (position, element) in tensor.byte_strings().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        let text = std::str::from_utf8(element).map_err(|_| {
            formless(
                name,
                &format!("holds text that is not UTF-8 as element {position}"),
            )
        })?;
        write::string(out, text);
    }
    Ok(())
}

/// Something that JSON cannot say and binary data can.
fn formless(name: &str, what: &str) -> Failure {
    let message = format!(
        "output '{name}' {what}: ask for it as binary data (parameter binary_data or \
         binary_data_output)"
    );
    Failure::new(ErrorCode::Unsupported, message)
}
