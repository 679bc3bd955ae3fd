//! Element types of tensors: those of the Open Inference Protocol, and BF16.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The type of a tensor's elements. Values are little endian wherever bytes are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[allow(
    missing_docs,
    reason = "the names are the protocol's own and say all there is"
)]
pub enum Dtype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    /// Elements of any length: each is a `u32` length followed by that many bytes.
    Bytes,
}

impl Dtype {
    /// Every element type, in the protocol's order.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// The name on every wire: `FP32`, `BYTES`, …
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    /// Bytes of one element; `None` for [`Dtype::Bytes`], whose elements vary.
    pub const fn element_bytes(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// The value of one element of a float type; `None` for other types, and for bytes of any other
    /// length than an element's.
    pub fn float(self, bytes: &[u8]) -> Option<f64> {
        match self {
            Self::Fp16 => Some(half::f16::from_le_bytes(bytes.try_into().ok()?).to_f64()),
            Self::Bf16 => Some(half::bf16::from_le_bytes(bytes.try_into().ok()?).to_f64()),
            Self::Fp32 => Some(f32::from_le_bytes(bytes.try_into().ok()?).into()),
            Self::Fp64 => Some(f64::from_le_bytes(bytes.try_into().ok()?)),
            Self::Bool
            | Self::Uint8
            | Self::Uint16
            | Self::Uint32
            | Self::Uint64
            | Self::Int8
            | Self::Int16
            | Self::Int32
            | Self::Int64
            | Self::Bytes => None,
        }
    }

    /// Appends one element of a float type, rounded to what the type can hold, little-endian; says
    /// whether it is one.
    pub fn push_float(self, value: f64, bytes: &mut Vec<u8>) -> bool {
        match self {
            Self::Fp16 => bytes.extend(half::f16::from_f64(value).to_le_bytes()),
            Self::Bf16 => bytes.extend(half::bf16::from_f64(value).to_le_bytes()),
            Self::Fp32 => bytes.extend((value as f32).to_le_bytes()),
            Self::Fp64 => bytes.extend(value.to_le_bytes()),
            Self::Bool
            | Self::Uint8
            | Self::Uint16
            | Self::Uint32
            | Self::Uint64
            | Self::Int8
            | Self::Int16
            | Self::Int32
            | Self::Int64
            | Self::Bytes => return false,
        }
        true
    }

    /// Whether values of this type can be NaN or infinite.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::Fp16 | Self::Bf16 | Self::Fp32 | Self::Fp64)
    }
}

/// Why a text does not name an element type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{name}' is not a datatype; allowed: BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, \
     INT32, INT64, FP16, BF16, FP32, FP64, BYTES"
)]
pub struct UnknownDtype {
    /// What was given, cut to 32 characters.
    pub name: String,
}

impl FromStr for Dtype {
    type Err = UnknownDtype;
    fn from_str(name: &str) -> Result<Self, UnknownDtype> {
        Self::ALL
            .into_iter()
            .find(|dtype| dtype.name() == name)
            .ok_or_else(|| UnknownDtype {
                name: name.chars().take(32).collect(),
            })
    }
}

impl TryFrom<String> for Dtype {
    type Error = UnknownDtype;
    fn try_from(name: String) -> Result<Self, UnknownDtype> {
        name.parse()
    }
}

impl From<Dtype> for String {
    fn from(dtype: Dtype) -> Self {
        dtype.name().to_owned()
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for dtype in Dtype::ALL {
            assert_eq!(dtype.name().parse::<Dtype>(), Ok(dtype));
        }
        let refused = "float32".parse::<Dtype>().unwrap_err();
        assert!(refused.to_string().contains("'float32'"), "{refused}");
        assert!(refused.to_string().contains("FP32"), "{refused}");
    }

    #[test]
    fn floats_are_read_as_they_were_written() {
        for dtype in Dtype::ALL {
            let mut bytes = Vec::new();
            assert_eq!(dtype.push_float(-1.5, &mut bytes), dtype.is_float());
            let wanted = dtype.is_float().then_some(-1.5);
            assert_eq!(dtype.float(&bytes), wanted, "{dtype}");
        }
    }
}
