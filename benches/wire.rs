//! What it costs to write and to read what nodes send each other and keep on disk.
//!
//! Frames with one tensor of 64 bytes (16 floats), 16 KiB (the largest that shares a lane) and
//! 602,112 bytes (one 224 × 224 × 3 image), and two commands of the registry. Sending a frame
//! copies no tensor, so its cost must not depend on the size; receiving copies it once.

mod provenance;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use paceline_core::Random;
use paceline_protocol::frame::{Frame, Infer, LoadReport, Message, PRELUDE_BYTES, Prelude};
use paceline_protocol::limits::{BODY_BYTES_DEFAULT, REGISTRY_ENTRY_BYTES_MAX};
use paceline_protocol::registry::{Change, Command, SCHEMA, VersionRecord};
use paceline_protocol::{
    Criticality, DeviceId, Digest, Dim, Dtype, Epoch, ModelName, NodeId, OpId, ReplicaId,
    ShapePattern, Signature, TenantId, TenantName, Tensor, TensorSpec, VersionNumber, wire,
};

use provenance::SEED;

fn main() {
    provenance::print("wire: frames and registry commands");
    let mut criterion = Criterion::default().configure_from_args();
    frames(&mut criterion);
    commands(&mut criterion);
    criterion.final_summary();
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    let mut random = Random::stream(SEED, "wire");
    for floats in [16, 4_096, 150_528] {
        let values: Vec<f32> = (0..floats).map(|_| random.unit() as f32).collect();
        let tensor = Tensor::from_f32(floats, &values);
        let bytes = tensor.data().len() as u64;
        let infer = Frame {
            number: 7,
            message: infer(),
            tensors: vec![tensor.clone()],
        };
        let answer = Frame {
            number: 7,
            message: answer(),
            tensors: vec![tensor],
        };
        group.throughput(Throughput::Bytes(bytes));
        for (name, frame) in [("infer", &infer), ("answer", &answer)] {
            group.bench_with_input(
                BenchmarkId::new(format!("encode-{name}"), bytes),
                frame,
                |bencher, frame| bencher.iter(|| black_box(frame).encode().expect(VALID)),
            );
        }
        let sent = infer.encode().expect(VALID).concat();
        group.bench_with_input(
            BenchmarkId::new("decode-with-its-one-copy", bytes),
            &sent,
            |bencher, sent| {
                bencher.iter(|| {
                    Frame::decode_slice(black_box(sent), BODY_BYTES_DEFAULT).expect(VALID)
                });
            },
        );
        let prelude = sent.first_chunk::<PRELUDE_BYTES>().expect(VALID);
        let prelude = Prelude::parse(prelude, BODY_BYTES_DEFAULT).expect(VALID);
        let (header, body) = sent[PRELUDE_BYTES..].split_at(prelude.header_span);
        let header = &header[..prelude.header_bytes];
        let body = paceline_protocol::AlignedBuffer::copied(body);
        group.bench_function(BenchmarkId::new("decode-received", bytes), |bencher| {
            bencher.iter(|| Frame::decode(black_box(header), black_box(&body)).expect(VALID));
        });
    }
    group.finish();
}

fn commands(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("command");
    for change in [assign(), publish()] {
        let name = change.name();
        let command = Command {
            schema: SCHEMA,
            op: OpId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            stamped_ms: 1_790_000_000_000,
            expected_revision: None,
            change,
        };
        let bytes = wire::encode(&command).expect(VALID);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::new("encode", name), |bencher| {
            bencher.iter(|| wire::encode(black_box(&command)).expect(VALID));
        });
        group.bench_function(BenchmarkId::new("decode", name), |bencher| {
            bencher.iter(|| {
                wire::decode::<Command>(black_box(&bytes), REGISTRY_ENTRY_BYTES_MAX).expect(VALID)
            });
        });
    }
    group.finish();
}

fn infer() -> Message {
    Message::Infer(Infer {
        model: model(),
        version: VersionNumber(3),
        replica: ReplicaId(812),
        epoch: Epoch(815),
        budget_us: 250_000,
        attempt: 1,
        criticality: Criticality::default(),
        tenant: TenantId::DEFAULT,
    })
}

fn answer() -> Message {
    Message::Answer {
        version: VersionNumber(3),
        epoch: Epoch(815),
        load: LoadReport {
            queued_rows: 12,
            row_ns: 41_000,
        },
        waited_us: 350,
    }
}

fn assign() -> Change {
    Change::Assign {
        model: model(),
        version: VersionNumber(3),
        node: NodeId(2),
        device: DeviceId(0),
        computed_at: Epoch(811),
    }
}

fn publish() -> Change {
    let spec = |name: &str, dims: [Dim; 2]| TensorSpec {
        name: name.to_owned(),
        dtype: Dtype::Fp32,
        shape: ShapePattern(dims.to_vec()),
    };
    Change::PublishVersion {
        model: model(),
        owner: TenantName::default(),
        version: Box::new(VersionRecord {
            digest: Digest([0x5a; 32]),
            family: "mlp".to_owned(),
            signature: Signature {
                inputs: vec![spec("features", [Dim::Any, Dim::Exactly(8)])],
                outputs: vec![spec("probability", [Dim::Any, Dim::Exactly(1)])],
            },
            rows_max: 1_024,
            finite_inputs: true,
            artifact_bytes: 21_000,
            memory_bytes: 64_000,
            one_row_ns: 9_000,
            full_batch_ns: 410_000,
            golden: Vec::new(),
        }),
    }
}

fn model() -> ModelName {
    ModelName::new("machine-failure").expect(VALID)
}

/// Why what this benchmark made itself encodes and decodes.
const VALID: &str = "it is valid";
