//! Safetensors files: their header checked before any byte of a tensor is used.

use std::collections::BTreeSet;
use std::fmt;

use safetensors::tensor::{SafeTensorError, SafeTensors, TensorView};
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};

/// Why a file of weights was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// The file ends early, or goes on behind its last tensor.
    #[error("the file has {bytes} bytes, its header speaks of {wanted}: cut off, or not whole")]
    Truncated {
        /// In the file.
        bytes: u64,
        /// What its header asks for.
        wanted: u64,
    },
    /// The header is too large.
    #[error("the header has {bytes} bytes; at most {HEADER_BYTES_MAX} are read")]
    HeaderTooLarge {
        /// What the file says.
        bytes: u64,
    },
    /// The header is no header.
    #[error("the header cannot be read: {reason}")]
    Header {
        /// Why.
        reason: String,
    },
    /// A tensor stands twice.
    #[error("the tensor '{name}' stands twice")]
    Twice {
        /// Its name, cut.
        name: String,
    },
}

/// Largest header: a hundred thousand tensors. The format's own limit is 100 MB, which a small
/// hostile file could make a server parse.
const HEADER_BYTES_MAX: u64 = 16 << 20;

/// Parses a safetensors file: offsets inside the file, no overlap, no gap, sizes as the shapes
/// say, no name twice. Copies no tensor. Source: the format's specification at
/// <https://github.com/huggingface/safetensors#format>.
pub(crate) fn parse(file: &[u8]) -> Result<SafeTensors<'_>, WeightsError> {
    let bytes = file.len() as u64;
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(WeightsError::Truncated { bytes, wanted: 8 });
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_BYTES_MAX {
        return Err(WeightsError::HeaderTooLarge { bytes: length });
    }
    let Some(header) = rest.get(..length as usize) else {
        return Err(WeightsError::Truncated {
            bytes,
            wanted: 8 + length,
        });
    };
    let end = check_header(header)?;
    let wanted = end.saturating_add(8 + length);
    if wanted != bytes {
        return Err(WeightsError::Truncated { bytes, wanted });
    }
    SafeTensors::deserialize(file).map_err(|error| refused(&error))
}

/// The values of an F32 tensor; `None` for other types.
pub(crate) fn f32_values(tensor: &TensorView<'_>) -> Option<Vec<f32>> {
    if tensor.dtype() != safetensors::Dtype::F32 {
        return None;
    }
    let (chunks, _) = tensor.data().as_chunks::<4>();
    Some(
        chunks
            .iter()
            .map(|chunk| f32::from_le_bytes(*chunk))
            .collect(),
    )
}

/// Finds names that stand twice, which a map would silently forget, and the end of the last
/// tensor.
fn check_header(header: &[u8]) -> Result<u64, WeightsError> {
    let unreadable = |error: serde_json::Error| WeightsError::Header {
        reason: error.to_string(),
    };
    let mut json = serde_json::Deserializer::from_slice(header);
    let found = json.deserialize_map(Names).map_err(unreadable)?;
    json.end().map_err(unreadable)?;
    match found.twice {
        Some(name) => Err(WeightsError::Twice {
            name: name.chars().take(64).collect(),
        }),
        None => Ok(found.end),
    }
}

#[derive(Default)]
struct Found {
    twice: Option<String>,
    end: u64,
}

#[derive(serde::Deserialize)]
struct Offsets {
    data_offsets: (u64, u64),
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut seen = BTreeSet::new();
        let mut found = Found::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
            } else {
                found.end = found.end.max(map.next_value::<Offsets>()?.data_offsets.1);
            }
            if found.twice.is_none() && seen.contains(&name) {
                found.twice = Some(name);
            } else {
                seen.insert(name);
            }
        }
        Ok(found)
    }
}

fn refused(error: &SafeTensorError) -> WeightsError {
    WeightsError::Header {
        reason: error.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A safetensors file with this header and this many bytes of data.
    pub(crate) fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [
            &(header.len() as u64).to_le_bytes()[..],
            header.as_bytes(),
            data,
        ]
        .concat()
    }

    const ONE: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;

    #[test]
    fn a_whole_file_is_read() {
        let data = [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat();
        let file = file(ONE, &data);
        let tensors = parse(&file).unwrap();
        assert_eq!(
            f32_values(&tensors.tensor("a").unwrap()),
            Some(vec![1.0, 2.0])
        );
    }

    #[test]
    fn every_cut_is_seen() {
        let whole = file(ONE, &[0; 8]);
        for cut in 0..whole.len() {
            let error = parse(&whole[..cut]).err().unwrap();
            assert!(
                matches!(error, WeightsError::Truncated { .. }),
                "{cut}: {error}"
            );
        }
        let longer = [&whole[..], &[0]].concat();
        assert!(matches!(
            parse(&longer),
            Err(WeightsError::Truncated { .. })
        ));
    }

    #[test]
    fn hostile_headers_are_refused() {
        let mut giant = file(ONE, &[0; 8]);
        for length in [HEADER_BYTES_MAX + 1, 1 << 63, u64::MAX] {
            giant[..8].copy_from_slice(&length.to_le_bytes());
            assert_eq!(
                parse(&giant).err(),
                Some(WeightsError::HeaderTooLarge { bytes: length })
            );
        }
        let twice = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                        "a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let error = parse(&file(twice, &[0; 8])).err();
        assert_eq!(error, Some(WeightsError::Twice { name: "a".into() }));
        for header in [
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, // overlap
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, // hole
            r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"b":3}"#,
            r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,12]}}"#,
            r#"{"a":{"dtype":"F32","shape":[-3],"data_offsets":[0,12]}}"#,
            r#"{"a":{"dtype":"F99","shape":[3],"data_offsets":[0,12]}}"#,
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,12]}}"#, // size
            r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[12,0]}}"#,
            "[]",
            "",
            "{}x",
            "\u{0}",
            &"[".repeat(10_000),
        ] {
            let error = parse(&file(header, &[0; 12])).err();
            assert!(error.is_some(), "{header}");
        }
        let mut latin = file(ONE, &[0; 8]);
        latin[10] = 0xff;
        assert!(matches!(parse(&latin), Err(WeightsError::Header { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            small in any::<bool>(),
        ) {
            if small && bytes.len() >= 8 {
                bytes[2..8].fill(0);
            }
            let _ = parse(&bytes);
        }

        #[test]
        fn no_flipped_byte_makes_it_panic(at in 0usize..70, value in any::<u8>()) {
            let mut bytes = file(ONE, &[0; 8]);
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = parse(&bytes);
        }
    }
}
