//! What a node and the process of an engine say to each other. Both are the same program, so the
//! format needs no version.
//!
//! ```text
//!  0              4            12       12 + header
//!  ┌──────────────┬────────────┬────────┬──────────────────────────┐
//!  │ header bytes │ body bytes │ header │ blob │pad│ blob │pad│ …   │
//!  └──────────────┴────────────┴────────┴──────────────────────────┘
//! ```
//!
//! Blobs are the bytes of tensors, or of files. Sending copies none of them; receiving copies once,
//! into one buffer that they then share, each at a multiple of 64.

use std::io::{self, IoSlice, Read, Write};

use bytes::Bytes;
use paceline_models::{Backend, DeviceSpec, RunError};
use paceline_protocol::{AlignedBuffer, Dtype, Shape, Tensor, wire};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The first message to a process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Say whether this can be computed with.
    Probe(Backend),
    /// Hold a version; the blobs are its files' contents.
    Load(Load),
}

/// What a device turned out to be.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Probed {
    /// It computes.
    Works { name: String, device: DeviceSpec },
    /// It does not, and why.
    Fails(String),
}

/// A version, and what holds it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Load {
    /// What computes it.
    pub(super) backend: Backend,
    /// Batches at a time, on a CPU.
    pub(super) threads: u64,
    /// Memory that the process takes for itself at most; 0 is no limit.
    pub(super) process_bytes_max: u64,
    /// Names of the files, in the order of the blobs.
    pub(super) files: Vec<String>,
}

/// How the version loaded.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Loading {
    /// It takes batches.
    Loaded,
    /// It does not, and says why.
    Refused(String),
}

/// A batch; the blobs are its tensors, request by request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Run {
    /// Of each request, its inputs.
    pub(super) requests: Vec<Vec<Outline>>,
    /// Among how many threads it may be divided.
    pub(super) threads_max: u32,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ran {
    /// Of each request, its outputs; the blobs are their bytes.
    Answers {
        answers: Vec<Vec<Outline>>,
        /// That computed them.
        threads: u32,
    },
    /// None has an answer.
    Failed(RunError),
}

/// A tensor without its bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Outline {
    dtype: u8,
    dims: Vec<u64>,
}

/// Writes a message.
///
/// # Errors
/// Those of the stream; `InvalidInput` for a header over its limit.
pub(super) fn send(
    stream: &mut impl Write,
    message: &impl Serialize,
    blobs: &[Bytes],
) -> io::Result<()> {
    let lengths: Vec<u64> = blobs.iter().map(|blob| blob.len() as u64).collect();
    let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidInput, error);
    let header = wire::encode(&(message, &lengths)).map_err(|error| invalid(error.to_string()))?;
    if header.len() > HEADER_BYTES_MAX {
        return Err(invalid(format!("a header of {} bytes", header.len())));
    }
    let body: u64 = lengths.iter().map(|length| padded(*length)).sum();
    let mut head = Vec::with_capacity(PRELUDE_BYTES + header.len());
    head.extend((header.len() as u32).to_le_bytes());
    head.extend(body.to_le_bytes());
    head.extend(header);
    let mut parts = vec![IoSlice::new(&head)];
    for blob in blobs {
        parts.push(IoSlice::new(blob));
        let padding = padded(blob.len() as u64) as usize - blob.len();
        parts.push(IoSlice::new(&PADDING[..padding]));
    }
    write_all(stream, &mut parts)
}

/// Reads a message whose body has at most so many bytes.
///
/// # Errors
/// Those of the stream, `UnexpectedEof` at its end; `InvalidData` for what is no such message.
pub(super) fn receive<M: DeserializeOwned>(
    stream: &mut impl Read,
    body_bytes_max: u64,
) -> io::Result<(M, Vec<Bytes>)> {
    let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut prelude = [0; PRELUDE_BYTES];
    stream.read_exact(&mut prelude)?;
    let (header, body) = prelude.split_at(4);
    let header = u32::from_le_bytes(header.try_into().expect("four bytes")) as usize;
    let body = u64::from_le_bytes(body.try_into().expect("eight bytes"));
    if header > HEADER_BYTES_MAX || body > body_bytes_max {
        return Err(invalid(format!("{header} and {body} bytes")));
    }
    let mut bytes = vec![0; header];
    stream.read_exact(&mut bytes)?;
    let decoded = wire::decode::<(M, Vec<u64>)>(&bytes, HEADER_BYTES_MAX);
    let (message, lengths) = decoded.map_err(|error| invalid(error.to_string()))?;
    let span = lengths
        .iter()
        .try_fold(0u64, |sum, length| {
            sum.checked_add(length.checked_next_multiple_of(ALIGN)?)
        })
        .filter(|span| *span == body);
    span.ok_or_else(|| invalid("blobs that do not fill the body".to_owned()))?;
    let mut buffer = AlignedBuffer::with_capacity(body as usize);
    stream.read_exact(buffer.resized(body as usize))?;
    let buffer = buffer.freeze();
    let mut start = 0;
    let blobs = lengths.iter().map(|length| {
        let blob = buffer.slice(start..start + *length as usize);
        start += padded(*length) as usize;
        blob
    });
    Ok((message, blobs.collect()))
}

/// Whether a stream's time had run out.
pub(super) fn is_late(error: &io::Error) -> bool {
    use io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut)
}

/// The outlines of requests' tensors, and their bytes.
pub(super) fn taken_apart<'a>(
    requests: impl Iterator<Item = &'a [Tensor]>,
) -> (Vec<Vec<Outline>>, Vec<Bytes>) {
    let mut blobs = Vec::new();
    let outlines = requests.map(|tensors| {
        blobs.extend(tensors.iter().map(|tensor| tensor.data().clone()));
        let outline = |tensor: &Tensor| Outline {
            dtype: tensor.dtype() as u8,
            dims: tensor.shape().dims().to_vec(),
        };
        tensors.iter().map(outline).collect()
    });
    (outlines.collect(), blobs)
}

/// The tensors again.
///
/// # Errors
/// What does not fit.
pub(super) fn put_together(
    outlines: Vec<Vec<Outline>>,
    blobs: Vec<Bytes>,
) -> Result<Vec<Vec<Tensor>>, String> {
    let mut blobs = blobs.into_iter();
    let mut tensor = |outline: Outline| {
        let dtype = Dtype::ALL.get(usize::from(outline.dtype));
        let dtype = *dtype.ok_or("an unknown datatype")?;
        let shape = Shape::new(&outline.dims).map_err(|error| error.to_string())?;
        let data = blobs.next().ok_or("a tensor without bytes")?;
        Tensor::new(dtype, shape, data).map_err(|error| error.to_string())
    };
    let request = |outlines: Vec<Outline>| outlines.into_iter().map(&mut tensor).collect();
    outlines.into_iter().map(request).collect()
}

/// Writes all slices. Cost: one system call for each 1,024 of them, if the stream takes them.
fn write_all(stream: &mut impl Write, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        let most = parts.len().min(SLICES_MAX);
        match stream.write_vectored(&parts[..most]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut parts, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGN)
}

const PRELUDE_BYTES: usize = 12;
/// A batch of the most rows there are, a request each with a few tensors, takes 2 MiB.
const HEADER_BYTES_MAX: usize = 16 << 20;
/// What kernels like.
const ALIGN: u64 = 64;
const PADDING: [u8; ALIGN as usize] = [0; ALIGN as usize];
/// As many as the system takes at a time.
const SLICES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_batch_comes_out_as_it_went_in_whatever_its_size() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let texts = [Tensor::from_byte_strings(&["a", "", "long enough"])];
        let wide = Tensor::from_f32(50_000, &vec![0.25; 100_000]);
        let many: Vec<Vec<Tensor>> = (0..3_000)
            .map(|row| vec![Tensor::from_f32(1, &[row as f32])])
            .collect();
        let mut requests: Vec<&[Tensor]> = many.iter().map(Vec::as_slice).collect();
        let two = [wide.clone(), wide];
        requests.extend([&texts[..], &two[..], &[]]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (requests, blobs) = taken_apart(requests.iter().copied());
                let run = Run {
                    requests,
                    threads_max: 1,
                };
                send(&mut here, &run, &blobs).unwrap();
            });
            let (run, blobs): (Run, _) = receive(&mut there, 1 << 30).unwrap();
            assert!(
                blobs
                    .iter()
                    .all(|blob| (blob.as_ptr() as usize).is_multiple_of(64))
            );
            let tensors = put_together(run.requests, blobs).unwrap();
            assert_eq!(tensors, requests);
        });
    }

    #[test]
    fn what_is_no_message_or_too_large_is_an_error() {
        let mut sent = Vec::new();
        send(&mut sent, &Loading::Loaded, &[Bytes::from_static(b"blob")]).unwrap();
        let read =
            |bytes: &[u8], most| receive::<Loading>(&mut &*bytes, most).map(|(_, blobs)| blobs);
        assert_eq!(read(&sent, 64).unwrap(), [&b"blob"[..]]);
        assert_eq!(
            read(&sent, 63).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        for cut in [0, 3, 12, sent.len() - 1] {
            let error = read(&sent[..cut], 64).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
        let mut wrong = sent.clone();
        wrong[4] += 64;
        assert_eq!(
            read(&wrong, 1 << 20).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        let outlines = vec![vec![Outline {
            dtype: 200,
            dims: vec![1],
        }]];
        assert!(put_together(outlines, vec![Bytes::new()]).is_err());
    }
}
