//! Hostile lengths allocate little, whatever they claim: shown by an allocator that counts.
//!
//! Every type that is read from the network or from disk is encoded, and each of its bytes in
//! turn is replaced by an enormous length, so that every length of every container and string
//! is attacked; once with nothing behind it, and once with zeros up to the limit.

#![allow(
    unsafe_code,
    reason = "an allocator that counts cannot be written without; each block has its proof"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use paceline_protocol::frame::{
    Execution, Frame, Infer, LoadReport, Message, PRELUDE_BYTES, Prelude,
};
use paceline_protocol::limits::{
    BODY_BYTES_DEFAULT, FRAME_HEADER_BYTES_MAX, MANIFEST_BYTES_MAX, RECORD_HEADER_BYTES_MAX,
    REGISTRY_ENTRY_BYTES_MAX,
};
use paceline_protocol::record::{RecordHeader, RecordedMachine};
use paceline_protocol::registry::{
    Change, Command, DeviceKind, DeviceRecord, NodeAddresses, NodeRecord, Outcome, Refusal, SCHEMA,
    VersionRecord,
};
use paceline_protocol::{
    AlignedBuffer, Criticality, Digest, Dim, Dtype, Epoch, ErrorCode, Failure, Manifest,
    ManifestFile, ModelName, NodeId, OpId, ReplicaId, ShapePattern, Signature, TenantId,
    TenantName, Tensor, TensorSpec, VersionNumber, wire,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

thread_local! {
    /// Bytes that this thread has allocated and not freed. Tests run in threads of their own.
    /// Negative when it has freed what others allocated.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    /// The most that they have been.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, with a count for each thread.
struct Counting;

impl Counting {
    fn grow(bytes: usize) {
        LIVE.set(LIVE.get() + bytes as isize);
        PEAK.set(PEAK.get().max(LIVE.get()));
    }

    fn shrink(bytes: usize) {
        LIVE.set(LIVE.get() - bytes as isize);
    }
}

// SAFETY: every call is passed to `System` with its arguments unchanged, so its contract is
// kept; counting touches constant-initialised cells of plain numbers, which do not allocate, and
// no layout is larger than `isize::MAX`, so the sums stay far from their ends.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::grow(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::shrink(layout.size());
        // SAFETY: `pointer` came from `System` with this layout, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // The old and the new block may both exist for a moment.
        Self::grow(bytes);
        Self::shrink(layout.size());
        // SAFETY: `pointer` came from `System` with this layout, as the caller promises.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `work` gives, and how many bytes it held at most.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    (result, (PEAK.get() - before).unsigned_abs())
}

/// Why what these tests make themselves encodes and decodes.
const VALID: &str = "it is valid";
/// Lengths that are just too long, and lengths that are absurd.
const HOSTILE: [u64; 6] = [300, 1 << 16, 1 << 20, 1 << 31, 1 << 62, u64::MAX];

/// What decoding may hold at most. The codec counts what it reads as if every number had its
/// full width, up to `limit` rounded up to a power of four from 64 KiB; in memory that is up to
/// four times as much, since a list that grows holds its old and its new block for a moment.
/// And serde reserves up to 1 MiB ahead for each list that is open: no type nests more than two.
fn bytes_max(limit: usize) -> usize {
    let mut step = 64 << 10;
    while step < limit {
        step *= 4;
    }
    4 * step + (2 << 20)
}

/// Every byte of `bytes` replaced by every hostile length, bare and with zeros up to `limit`.
fn attacks(bytes: &[u8], limit: usize) -> impl Iterator<Item = Vec<u8>> {
    let positions = 0..bytes.len();
    positions.flat_map(move |at| {
        HOSTILE.into_iter().flat_map(move |length| {
            let length = wire::encode(&length).expect(VALID);
            let bare = [&bytes[..at], &length, &bytes[at + 1..]].concat();
            let mut filled = [&bytes[..at], &length].concat();
            filled.resize(limit, 0);
            [bare, filled]
        })
    })
}

/// Attacks a decoder; asserts that none of the attacks held more than it may, and that most of
/// them arrived: that they were read up to the hostile length, and refused.
fn withstands<E>(bytes: &[u8], limit: usize, decode: impl Fn(&[u8]) -> Result<(), E>) {
    assert!(decode(bytes).is_ok(), "what is attacked is valid");
    let (mut refused, mut count) = (0, 0);
    for attack in attacks(bytes, limit) {
        let (result, peak) = peak_of(|| decode(&attack).is_err());
        assert!(
            peak <= bytes_max(limit),
            "{peak} bytes for {} bytes that begin with {:02x?}",
            attack.len(),
            &attack[..attack.len().min(64)]
        );
        refused += usize::from(result);
        count += 1;
    }
    assert!(refused * 2 > count, "{refused} of {count} were refused");
}

fn value_withstands<T: Serialize + DeserializeOwned>(value: &T, limit: usize) {
    let bytes = wire::encode(value).expect(VALID);
    withstands(&bytes, limit, |bytes| {
        wire::decode::<T>(bytes, limit).map(drop)
    });
}

#[test]
fn the_allocator_counts() {
    // Opaque to the compiler, which would otherwise leave out what nobody reads.
    let reserve = |bytes| black_box(Vec::<u8>::with_capacity(bytes));
    let (_, peak) = peak_of(|| reserve(5 << 20));
    assert_eq!(peak, 5 << 20);
    let (_, twice) = peak_of(|| {
        drop(reserve(3 << 20));
        reserve(3 << 20)
    });
    assert_eq!(twice, 3 << 20, "what was freed does not count");
    // A decoder that trusted the smallest absurd length would be found with any limit in use.
    let (_, trusting) = peak_of(|| reserve(1 << 31));
    assert!(trusting > bytes_max(BODY_BYTES_DEFAULT));
}

#[test]
fn a_large_value_does_allocate() {
    let file = ManifestFile {
        path: "model.safetensors".into(),
        bytes: 0,
        sha256: Digest([1; 32]),
        chunks: vec![Digest([2; 32]); 100_000],
    };
    let bytes = wire::encode(&Manifest { files: vec![file] }).expect(VALID);
    let (manifest, peak) = peak_of(|| wire::decode::<Manifest>(&bytes, MANIFEST_BYTES_MAX));
    assert_eq!(manifest.expect(VALID).files[0].chunks.len(), 100_000);
    assert!(peak >= 3_200_000, "{peak} bytes for 3.2 MB of hashes");
    assert!(peak <= bytes_max(MANIFEST_BYTES_MAX));
}

#[test]
fn registry_commands_withstand_hostile_lengths() {
    let node = NodeRecord {
        id: NodeId(2),
        name: "n1".into(),
        zone: "a".into(),
        addresses: NodeAddresses {
            http: "127.0.0.1:8000".into(),
            metrics: "127.0.0.1:8002".into(),
            ..NodeAddresses::default()
        },
        devices: vec![DeviceRecord {
            kind: DeviceKind::Cpu,
            lanes: 2,
            memory_bytes: 9,
        }],
    };
    let publish = Change::PublishVersion {
        model: model(),
        owner: TenantName::default(),
        version: Box::new(version_record()),
    };
    let delete = Change::DeleteModel { model: model() };
    for change in [Change::RegisterNode(node), publish, delete] {
        let command = Command {
            schema: SCHEMA,
            op: OpId(7),
            stamped_ms: 1,
            expected_revision: None,
            change,
        };
        value_withstands(&command, REGISTRY_ENTRY_BYTES_MAX);
    }
}

#[test]
fn outcomes_and_version_records_withstand_hostile_lengths() {
    let refusal = Refusal::VersionUnknown {
        model: model(),
        version: VersionNumber(3),
        known: "1, 2".into(),
    };
    let outcome = Outcome {
        epoch: Epoch(9),
        result: Err(refusal),
    };
    value_withstands(&outcome, REGISTRY_ENTRY_BYTES_MAX);
    value_withstands(&version_record(), REGISTRY_ENTRY_BYTES_MAX);
}

#[test]
fn headers_of_records_withstand_hostile_lengths() {
    let machine = RecordedMachine {
        machine: "detector".into(),
        instance: "of node 2".into(),
        steps: 7,
        unkept: 0,
        span_nanos: Some((1, 9)),
    };
    let header = RecordHeader {
        release: "0.1.0".into(),
        node: NodeId(1),
        machines: vec![machine; 3],
    };
    value_withstands(&header, RECORD_HEADER_BYTES_MAX);
}

#[test]
fn manifests_withstand_hostile_lengths() {
    let file = |path: &str| ManifestFile {
        path: path.into(),
        bytes: 5,
        sha256: Digest([1; 32]),
        chunks: vec![Digest([2; 32])],
    };
    let manifest = Manifest {
        files: vec![file("a"), file("b")],
    };
    value_withstands(&manifest, MANIFEST_BYTES_MAX);
}

#[test]
fn frame_headers_withstand_hostile_lengths() {
    let load = LoadReport::default();
    let infer = Message::Infer(Infer {
        model: model(),
        version: VersionNumber(1),
        replica: ReplicaId(5),
        epoch: Epoch(9),
        budget_us: 100,
        attempt: 1,
        criticality: Criticality::default(),
        tenant: TenantId(u64::MAX),
    });
    let failed = Message::Failed {
        failure: Failure::new(ErrorCode::QueueFull, "the queue is full"),
        execution: Execution::NotExecuted,
        load,
    };
    let limit = FRAME_HEADER_BYTES_MAX;
    for message in [infer, failed] {
        let bytes = frame(message);
        let prelude =
            Prelude::parse(bytes.first_chunk().expect(VALID), BODY_BYTES_DEFAULT).expect(VALID);
        let header = &bytes[PRELUDE_BYTES..PRELUDE_BYTES + prelude.header_bytes];
        let body = &bytes[PRELUDE_BYTES + prelude.header_span..];
        withstands(header, limit, |header| {
            let body = AlignedBuffer::copied(body);
            Frame::decode(header, &body).map(drop)
        });
        // The same through the door that takes whole frames: the lengths in front fit.
        withstands(header, limit, |header| {
            let span = (PRELUDE_BYTES + header.len()).next_multiple_of(64) - PRELUDE_BYTES;
            let mut whole = bytes[..4].to_vec();
            whole.extend((header.len() as u32).to_le_bytes());
            whole.extend((body.len() as u64).to_le_bytes());
            whole.extend(header);
            whole.resize(PRELUDE_BYTES + span, 0);
            whole.extend(body);
            Frame::decode_slice(&whole, BODY_BYTES_DEFAULT).map(drop)
        });
    }
}

#[test]
fn the_lengths_in_front_of_a_frame_allocate_nothing() {
    let valid = frame(Message::Cancel);
    for length in HOSTILE {
        let mut header = valid.clone();
        header[4..8].copy_from_slice(&(length.min(u64::from(u32::MAX)) as u32).to_le_bytes());
        let mut body = valid.clone();
        body[8..16].copy_from_slice(&length.to_le_bytes());
        for bytes in [header, body] {
            let first = bytes.first_chunk().expect(VALID);
            let (_, parsed) = peak_of(|| Prelude::parse(first, BODY_BYTES_DEFAULT).is_ok());
            assert_eq!(parsed, 0);
            let (result, decoded) = peak_of(|| Frame::decode_slice(&bytes, BODY_BYTES_DEFAULT));
            assert!(result.is_err());
            assert_eq!(decoded, 0, "length {length}");
        }
    }
}

fn model() -> ModelName {
    ModelName::new("digits").expect(VALID)
}

fn version_record() -> VersionRecord {
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        dtype: Dtype::Fp32,
        shape: ShapePattern(vec![Dim::Any, Dim::Exactly(64)]),
    };
    VersionRecord {
        digest: Digest([1; 32]),
        family: "mlp".into(),
        signature: Signature {
            inputs: vec![spec("pixels")],
            outputs: vec![spec("label")],
        },
        rows_max: 64,
        finite_inputs: true,
        artifact_bytes: 100,
        memory_bytes: 100,
        one_row_ns: 10,
        full_batch_ns: 100,
        golden: vec![0x3f80; 64],
    }
}

fn frame(message: Message) -> Vec<u8> {
    let tensors = vec![Tensor::from_f32(4, &[1.0; 16])];
    let frame = Frame {
        number: 3,
        message,
        tensors,
    };
    frame.encode().expect(VALID).concat()
}
