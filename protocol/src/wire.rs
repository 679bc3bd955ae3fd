//! The one place that turns values into bytes and back: bincode 2, standard configuration.
//!
//! Everything that travels between nodes or lies on their disks passes here, so that the
//! format can be replaced in one file. Rules: the size limit is checked before anything is
//! decoded, a hostile length allocates no more than the limit, bytes behind the value are
//! refused, enum variants are only ever appended, and a `u16` schema number comes first in
//! whatever is kept (its owner writes it).

use bincode::config;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The value does not encode.
    #[error("the value cannot be encoded: {cause}")]
    Encode {
        /// What the codec says.
        cause: bincode::error::EncodeError,
    },
    /// The bytes are not the value.
    #[error("the bytes are not what was expected: {cause}")]
    Decode {
        /// What the codec says.
        cause: bincode::error::DecodeError,
    },
    /// More bytes than allowed.
    #[error("{bytes} bytes are over the limit of {limit}")]
    TooLarge {
        /// How many there are.
        bytes: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// The value ends before the bytes do.
    #[error("{trailing} bytes stand behind the value")]
    Trailing {
        /// How many.
        trailing: usize,
    },
}

/// Encodes a value. Cost: one allocation that grows with the value.
///
/// # Errors
/// [`WireError::Encode`] if the type holds something that bincode cannot write.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    bincode::serde::encode_to_vec(value, config::standard())
        .map_err(|cause| WireError::Encode { cause })
}

/// Decodes a value that fills `bytes` exactly.
///
/// What decoding may allocate is bounded, whatever lengths the bytes claim: by four times the
/// limit rounded up to the next power of four from 64 KiB to 64 MiB (values are larger in
/// memory than encoded), and 2 MiB for the room that serde reserves for lists it believes in.
///
/// # Errors
/// Too many bytes, malformed bytes, or bytes left over.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, WireError> {
    if bytes.len() > limit {
        return Err(WireError::TooLarge {
            bytes: bytes.len(),
            limit,
        });
    }
    // The codec wants its limit as a constant; these steps keep the slack below four times.
    let decoded = match limit {
        0..=0x1_0000 => decode_within::<T, 0x1_0000>(bytes),
        0x1_0001..=0x4_0000 => decode_within::<T, 0x4_0000>(bytes),
        0x4_0001..=0x10_0000 => decode_within::<T, 0x10_0000>(bytes),
        0x10_0001..=0x40_0000 => decode_within::<T, 0x40_0000>(bytes),
        0x40_0001..=0x100_0000 => decode_within::<T, 0x100_0000>(bytes),
        _ => decode_within::<T, 0x400_0000>(bytes),
    };
    let (value, used) = decoded.map_err(|cause| WireError::Decode { cause })?;
    match bytes.len() - used {
        0 => Ok(value),
        trailing => Err(WireError::Trailing { trailing }),
    }
}

fn decode_within<T: DeserializeOwned, const LIMIT: usize>(
    bytes: &[u8],
) -> Result<(T, usize), bincode::error::DecodeError> {
    bincode::serde::decode_from_slice(bytes, config::standard().with_limit::<LIMIT>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_and_oversized_inputs_are_refused() {
        let mut bytes = encode(&(7u32, "seven".to_owned())).unwrap();
        assert_eq!(
            decode::<(u32, String)>(&bytes, 64).unwrap(),
            (7, "seven".to_owned())
        );
        assert!(matches!(
            decode::<(u32, String)>(&bytes, 3),
            Err(WireError::TooLarge { bytes: 7, limit: 3 })
        ));
        bytes.push(0);
        assert!(matches!(
            decode::<(u32, String)>(&bytes, 64),
            Err(WireError::Trailing { trailing: 1 })
        ));
    }

    #[test]
    fn a_claimed_length_beyond_the_limit_is_an_error() {
        let hostile = [253, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3];
        assert!(matches!(
            decode::<Vec<u8>>(&hostile, 1024),
            Err(WireError::Decode { .. })
        ));
        assert!(matches!(
            decode::<String>(&hostile, 1024),
            Err(WireError::Decode { .. })
        ));
        assert!(matches!(
            decode::<Vec<u64>>(&hostile, 1024),
            Err(WireError::Decode { .. })
        ));
    }
}
