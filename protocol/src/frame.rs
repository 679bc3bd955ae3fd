//! Frames: how requests and answers travel between nodes.
//!
//! ```text
//!  0        4              8                 16            16 + header, padded to 64
//!  ┌────────┬──────────────┬─────────────────┬─────────────┬──────────────────────────────┐
//!  │ magic  │ header bytes │ body bytes      │ header      │ tensor │pad│ tensor │pad│ …   │
//!  └────────┴──────────────┴─────────────────┴─────────────┴──────────────────────────────┘
//! ```
//!
//! The header is a [`Header`] in the wire format; it says how long each tensor is. The header
//! is padded so that the body starts at a multiple of 64, and each tensor starts at a multiple
//! of 64 within the body. Sending copies nothing: a frame is a list of byte slices. Receiving
//! copies once, into an aligned buffer that the tensors then share.

mod decoder;
mod message;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::buffer::AlignedBuffer;
use crate::dtype::Dtype;
use crate::limits::{FRAME_HEADER_BYTES_MAX, TENSOR_ALIGN_BYTES, TENSORS_MAX};
use crate::shape::{Shape, ShapeError};
use crate::tensor::{Tensor, TensorError};
use crate::wire::{self, WireError};

pub use decoder::FrameDecoder;
pub use message::{ClientInfer, Execution, Infer, LoadReport, Message};

/// Bytes in front of every header.
pub const PRELUDE_BYTES: usize = 16;

/// One message with its tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Which request on this lane or stream the frame belongs to.
    pub number: u64,
    /// What it says.
    pub message: Message,
    /// Tensors that go with it, in the order of the signature.
    pub tensors: Vec<Tensor>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    schema: u16,
    number: u64,
    message: Message,
    tensors: Vec<TensorHeader>,
}

#[derive(Serialize, Deserialize)]
struct TensorHeader {
    dtype: u8,
    dims: Vec<u64>,
    bytes: u64,
}

/// What the first 16 bytes say: how much follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prelude {
    /// Bytes of the header, without padding.
    pub header_bytes: usize,
    /// Bytes of the header with its padding: where the body starts, counted from the header.
    pub header_span: usize,
    /// Bytes of the body, with padding between tensors.
    pub body_bytes: usize,
}

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The first bytes are not a frame's.
    #[error("not a Paceline frame: it begins with {found:02x?}")]
    Magic {
        /// What stands there.
        found: [u8; 4],
    },
    /// The header is longer than allowed.
    #[error("a frame header of {bytes} bytes is over the limit of {FRAME_HEADER_BYTES_MAX}")]
    HeaderTooLarge {
        /// How long it says it is.
        bytes: usize,
    },
    /// The body is longer than allowed.
    #[error("a frame body of {bytes} bytes is over the limit of {limit}")]
    BodyTooLarge {
        /// How long it says it is.
        bytes: u64,
        /// What is allowed.
        limit: usize,
    },
    /// The header does not decode or encode.
    #[error("frame header: {0}")]
    Header(#[from] WireError),
    /// The header was written by a later release.
    #[error("frame of schema {schema}; this node understands {SCHEMA}")]
    Schema {
        /// The frame's.
        schema: u16,
    },
    /// Too many tensors.
    #[error("{count} tensors in one frame; at most {TENSORS_MAX} are allowed")]
    Tensors {
        /// How many.
        count: usize,
    },
    /// No such element type.
    #[error("tensor {position} has the unknown datatype number {number}")]
    Dtype {
        /// Which tensor.
        position: usize,
        /// The number.
        number: u8,
    },
    /// Dimensions that cannot be.
    #[error("tensor {position}: {cause}")]
    Shape {
        /// Which tensor.
        position: usize,
        /// What is wrong.
        cause: ShapeError,
    },
    /// Bytes that do not fit the shape.
    #[error("tensor {position}: {cause}")]
    Tensor {
        /// Which tensor.
        position: usize,
        /// What is wrong.
        cause: TensorError,
    },
    /// The tensors do not fill the body exactly.
    #[error("the tensors take {wanted} bytes of a body of {body_bytes}")]
    Body {
        /// What the tensors need.
        wanted: u64,
        /// What there is.
        body_bytes: usize,
    },
}

impl Frame {
    /// The frame as slices to send one after another. Tensor bytes are shared, not copied.
    ///
    /// # Errors
    /// Too many tensors, or a header over its limit.
    pub fn encode(&self) -> Result<Vec<Bytes>, FrameError> {
        if self.tensors.len() > TENSORS_MAX {
            return Err(FrameError::Tensors {
                count: self.tensors.len(),
            });
        }
        let header = wire::encode(&Header {
            schema: SCHEMA,
            number: self.number,
            message: self.message.clone(),
            tensors: self.tensors.iter().map(TensorHeader::of).collect(),
        })?;
        if header.len() > FRAME_HEADER_BYTES_MAX {
            return Err(FrameError::HeaderTooLarge {
                bytes: header.len(),
            });
        }
        let body_bytes: usize = self.tensors.iter().map(|t| padded(t.data().len())).sum();
        let span = header_span(header.len());
        let mut head = BytesMut::with_capacity(PRELUDE_BYTES + span);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&(header.len() as u32).to_le_bytes());
        head.extend_from_slice(&(body_bytes as u64).to_le_bytes());
        head.extend_from_slice(&header);
        head.resize(PRELUDE_BYTES + span, 0);
        let mut parts = Vec::with_capacity(1 + 2 * self.tensors.len());
        parts.push(head.freeze());
        for tensor in &self.tensors {
            let data = tensor.data();
            parts.push(data.clone());
            let padding = padded(data.len()) - data.len();
            if padding > 0 {
                parts.push(Bytes::from_static(&PADDING[..padding]));
            }
        }
        Ok(parts)
    }

    /// Rebuilds a frame from its header and its body. `body` is best the content of an
    /// [`AlignedBuffer`]; the tensors share it.
    ///
    /// # Errors
    /// [`FrameError`] says what does not fit.
    pub fn decode(header: &[u8], body: &Bytes) -> Result<Self, FrameError> {
        let header: Header = wire::decode(header, FRAME_HEADER_BYTES_MAX)?;
        if header.schema != SCHEMA {
            return Err(FrameError::Schema {
                schema: header.schema,
            });
        }
        if header.tensors.len() > TENSORS_MAX {
            return Err(FrameError::Tensors {
                count: header.tensors.len(),
            });
        }
        let wanted = header
            .tensors
            .iter()
            .try_fold(0u64, |sum, tensor| {
                let bytes = tensor
                    .bytes
                    .checked_next_multiple_of(TENSOR_ALIGN_BYTES as u64)?;
                sum.checked_add(bytes)
            })
            .unwrap_or(u64::MAX);
        if wanted != body.len() as u64 {
            return Err(FrameError::Body {
                wanted,
                body_bytes: body.len(),
            });
        }
        let mut tensors = Vec::with_capacity(header.tensors.len());
        let mut offset = 0;
        for (position, tensor) in header.tensors.iter().enumerate() {
            let bytes = tensor.bytes as usize;
            let data = body.slice(offset..offset + bytes);
            tensors.push(tensor.rebuild(position, data)?);
            offset += padded(bytes);
        }
        Ok(Self {
            number: header.number,
            message: header.message,
            tensors,
        })
    }

    /// Decodes a whole frame that lies in one slice, copying its body once.
    ///
    /// # Errors
    /// [`FrameError`]; a slice that is too short or too long is a body that does not fit.
    pub fn decode_slice(bytes: &[u8], body_bytes_max: usize) -> Result<Self, FrameError> {
        let Some((first, rest)) = bytes.split_first_chunk::<PRELUDE_BYTES>() else {
            return Err(FrameError::Body {
                wanted: PRELUDE_BYTES as u64,
                body_bytes: bytes.len(),
            });
        };
        let prelude = Prelude::parse(first, body_bytes_max)?;
        if rest.len() != prelude.header_span + prelude.body_bytes {
            let wanted = (prelude.header_span + prelude.body_bytes) as u64;
            return Err(FrameError::Body {
                wanted,
                body_bytes: rest.len(),
            });
        }
        let body = AlignedBuffer::copied(&rest[prelude.header_span..]);
        Self::decode(&rest[..prelude.header_bytes], &body)
    }
}

impl Prelude {
    /// Reads the first bytes of a frame, before anything is allocated for the rest.
    ///
    /// # Errors
    /// Not a frame, or lengths over their limits.
    pub fn parse(bytes: &[u8; PRELUDE_BYTES], body_bytes_max: usize) -> Result<Self, FrameError> {
        let [m0, m1, m2, m3, h0, h1, h2, h3, body @ ..] = *bytes;
        let found = [m0, m1, m2, m3];
        if found != MAGIC {
            return Err(FrameError::Magic { found });
        }
        let header_bytes = u32::from_le_bytes([h0, h1, h2, h3]) as usize;
        if header_bytes > FRAME_HEADER_BYTES_MAX {
            return Err(FrameError::HeaderTooLarge {
                bytes: header_bytes,
            });
        }
        let body = u64::from_le_bytes(body);
        let body_bytes = usize::try_from(body)
            .ok()
            .filter(|bytes| *bytes <= body_bytes_max)
            .ok_or(FrameError::BodyTooLarge {
                bytes: body,
                limit: body_bytes_max,
            })?;
        Ok(Self {
            header_bytes,
            header_span: header_span(header_bytes),
            body_bytes,
        })
    }
}

impl TensorHeader {
    fn of(tensor: &Tensor) -> Self {
        Self {
            dtype: tensor.dtype() as u8,
            dims: tensor.shape().dims().to_vec(),
            bytes: tensor.data().len() as u64,
        }
    }

    fn rebuild(&self, position: usize, data: Bytes) -> Result<Tensor, FrameError> {
        let number = self.dtype;
        let dtype = *Dtype::ALL
            .get(usize::from(number))
            .ok_or(FrameError::Dtype { position, number })?;
        let shape =
            Shape::new(&self.dims).map_err(|cause| FrameError::Shape { position, cause })?;
        Tensor::new(dtype, shape, data).map_err(|cause| FrameError::Tensor { position, cause })
    }
}

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(TENSOR_ALIGN_BYTES)
}

/// The header with padding, so that prelude and header together end at a multiple of 64.
fn header_span(header_bytes: usize) -> usize {
    padded(PRELUDE_BYTES + header_bytes) - PRELUDE_BYTES
}

const SCHEMA: u16 = 4;
const MAGIC: [u8; 4] = *b"PLF1";
const PADDING: [u8; TENSOR_ALIGN_BYTES] = [0; TENSOR_ALIGN_BYTES];

#[cfg(test)]
mod tests;
