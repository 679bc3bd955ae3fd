//! Finds NaN and infinities in float tensors.

use paceline_protocol::{Dtype, Tensor};

/// The first element that is not finite, and what it is. Cost: one pass over float tensors,
/// nothing for others.
pub(super) fn first_offender(tensor: &Tensor) -> Option<(usize, &'static str)> {
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::Fp16 => search(data, 0x7c00, |bytes| u16::from_le_bytes(bytes).into()),
        Dtype::Bf16 => search(data, 0x7f80, |bytes| u16::from_le_bytes(bytes).into()),
        Dtype::Fp32 => search(data, 0x7f80_0000, |bytes| u32::from_le_bytes(bytes).into()),
        Dtype::Fp64 => search(data, 0x7ff0_0000_0000_0000, u64::from_le_bytes),
        Dtype::Bool
        | Dtype::Uint8
        | Dtype::Uint16
        | Dtype::Uint32
        | Dtype::Uint64
        | Dtype::Int8
        | Dtype::Int16
        | Dtype::Int32
        | Dtype::Int64
        | Dtype::Bytes => None,
    }
}

/// In every IEEE 754 format the bits without the sign sort as the magnitudes do: finite values,
/// then infinity, then the NaNs.
fn search<const N: usize>(
    data: &[u8],
    infinity: u64,
    bits: impl Fn([u8; N]) -> u64,
) -> Option<(usize, &'static str)> {
    let magnitude = |bytes: &[u8; N]| bits(*bytes) & !(1 << (N * 8 - 1));
    let (values, _) = data.as_chunks::<N>();
    // Whole blocks are judged without a branch for each value.
    let offends = |block: &&[[u8; N]]| {
        block
            .iter()
            .fold(false, |found, value| found | (magnitude(value) >= infinity))
    };
    let block = values.chunks(BLOCK).position(|block| offends(&block))?;
    let values_before = block * BLOCK;
    let offset = values[values_before..]
        .iter()
        .position(|value| magnitude(value) >= infinity)?;
    let position = values_before + offset;
    let kind = if magnitude(&values[position]) > infinity {
        "NaN"
    } else {
        "an infinity"
    };
    Some((position, kind))
}

/// Values that are judged together.
const BLOCK: usize = 256;
