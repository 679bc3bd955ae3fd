//! Frames: round trips of every datatype, and what hostile bytes may do.

use proptest::prelude::*;

use super::*;
use crate::criticality::Criticality;
use crate::error::{ErrorCode, Failure};
use crate::id::{Epoch, ModelName, NodeId, ReplicaId, TenantId, VersionNumber};

fn tensors() -> impl Strategy<Value = Tensor> {
    let dtype = proptest::sample::select(Dtype::ALL.to_vec());
    (dtype, 1u64..5, 1u64..40, any::<u64>()).prop_map(|(dtype, rows, columns, seed)| {
        let elements = (rows * columns) as usize;
        let mut state = seed;
        let mut next = move || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 56) as u8
        };
        let data: Vec<u8> = match dtype.element_bytes() {
            Some(size) if dtype != Dtype::Bool => (0..elements * size).map(|_| next()).collect(),
            Some(_) => (0..elements).map(|_| next() & 1).collect(),
            None => (0..elements)
                .flat_map(|_| {
                    let length = u32::from(next() % 9);
                    let content: Vec<u8> = (0..length).map(|_| next()).collect();
                    [length.to_le_bytes().to_vec(), content].concat()
                })
                .collect(),
        };
        let shape = Shape::new(&[rows, columns]).unwrap();
        Tensor::new(dtype, shape, data.into()).unwrap()
    })
}

/// What clients and nodes say to each other.
fn client_messages(name: impl Strategy<Value = ModelName>) -> impl Strategy<Value = Message> {
    let names = proptest::collection::vec(".{0,20}", 0..4);
    let client_infer = (
        (name, any::<Option<u32>>(), any::<u64>()),
        (
            any::<u8>(),
            any::<u64>(),
            any::<bool>(),
            any::<Option<u64>>(),
        ),
        (names.clone(), names.clone()),
    );
    prop_oneof![
        client_infer.prop_map(|(what, how, (inputs, outputs))| {
            Message::ClientInfer(ClientInfer {
                model: what.0,
                version: what.1.map(|number| VersionNumber(number).into()),
                budget_us: what.2,
                attempt: how.0,
                epoch_seen: Epoch(how.1),
                idempotent: how.2,
                inputs,
                outputs,
                lost: how.3.map(NodeId),
                criticality: Criticality::default(),
                tenant: TenantId(how.1),
                unit: how
                    .3
                    .map(|id| crate::traffic::Unit::new(id.to_string()).unwrap()),
                sequence: how.2.then(|| crate::traffic::Unit::new("s-1").unwrap()),
                in_parts: how.2,
            })
        }),
        (
            any::<u32>(),
            any::<u64>(),
            names.clone(),
            any::<Option<u32>>()
        )
            .prop_map(
                |(version, epoch, outputs, stale_seconds)| Message::ClientAnswer {
                    version: VersionNumber(version),
                    epoch: Epoch(epoch),
                    outputs,
                    stale_seconds,
                }
            ),
        (any::<u32>(), any::<u64>(), names, any::<Option<u32>>()).prop_map(
            |(version, first_row, outputs, stale_seconds)| Message::ClientPart {
                first_row,
                version: VersionNumber(version),
                epoch: Epoch(first_row),
                outputs,
                stale_seconds,
            }
        ),
        any::<u64>().prop_map(|rows| Message::ClientEnd { rows }),
    ]
}

fn messages() -> impl Strategy<Value = Message> {
    let load = (any::<u32>(), any::<u64>()).prop_map(|(queued_rows, row_ns)| LoadReport {
        queued_rows,
        row_ns,
    });
    let name = "[a-z0-9][a-z0-9._-]{0,30}".prop_map(|name| ModelName::new(name).unwrap());
    let code = proptest::sample::select(ErrorCode::ALL.to_vec());
    prop_oneof![
        client_messages(name.clone()),
        (
            name,
            any::<u32>(),
            any::<u64>(),
            any::<u64>(),
            any::<u64>(),
            any::<u8>()
        )
            .prop_map(|(model, version, replica, epoch, budget_us, attempt)| {
                Message::Infer(Infer {
                    model,
                    version: VersionNumber(version),
                    replica: ReplicaId(replica),
                    epoch: Epoch(epoch),
                    budget_us,
                    attempt,
                    criticality: Criticality::default(),
                    tenant: TenantId(epoch),
                })
            }),
        (any::<u32>(), any::<u64>(), load.clone()).prop_map(|(version, epoch, load)| {
            Message::Answer {
                version: VersionNumber(version),
                epoch: Epoch(epoch),
                load,
                waited_us: version,
            }
        }),
        (code, ".{0,40}", any::<Option<u32>>(), load).prop_map(|(code, message, wait, load)| {
            let mut failure = Failure::new(code, message);
            failure.retry_after_ms = wait;
            Message::Failed {
                failure,
                execution: Execution::Unknown,
                load,
            }
        }),
        any::<u64>().prop_map(|epoch| Message::Gone {
            epoch: Epoch(epoch)
        }),
        Just(Message::Cancel),
    ]
}

fn joined(frame: &Frame) -> Vec<u8> {
    frame.encode().unwrap().concat()
}

proptest! {
    #[test]
    fn frames_round_trip_and_their_tensors_are_aligned(
        number in any::<u64>(),
        message in messages(),
        tensors in proptest::collection::vec(tensors(), 0..4),
    ) {
        let frame = Frame { number, message, tensors };
        let bytes = joined(&frame);
        prop_assert_eq!(bytes.len() % 64, 0);
        let back = Frame::decode_slice(&bytes, 1 << 20).unwrap();
        for tensor in &back.tensors {
            prop_assert_eq!(tensor.data().as_ptr().addr() % 64, 0);
        }
        prop_assert_eq!(back, frame);
    }

    #[test]
    fn no_prefix_of_a_frame_is_a_frame(message in messages(), tensor in tensors()) {
        let bytes = joined(&Frame { number: 1, message, tensors: vec![tensor] });
        for cut in (0..bytes.len()).step_by(7) {
            prop_assert!(Frame::decode_slice(&bytes[..cut], 1 << 20).is_err());
        }
    }

    #[test]
    fn changed_bytes_never_panic(
        message in messages(),
        tensor in tensors(),
        at in any::<proptest::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut bytes = joined(&Frame { number: 1, message, tensors: vec![tensor] });
        let at = at.index(bytes.len());
        bytes[at] = value;
        let _ = Frame::decode_slice(&bytes, 1 << 20);
    }
}

#[test]
fn sending_shares_the_tensors_bytes() {
    let tensor = Tensor::from_f32(4, &[1.0; 16]);
    let frame = Frame {
        number: 3,
        message: Message::Cancel,
        tensors: vec![tensor.clone()],
    };
    let parts = frame.encode().unwrap();
    assert!(
        parts
            .iter()
            .any(|part| part.as_ptr() == tensor.data().as_ptr())
    );
}

#[test]
fn lengths_over_their_limits_are_refused_before_anything_is_read() {
    let mut prelude = [0u8; PRELUDE_BYTES];
    assert!(matches!(
        Prelude::parse(&prelude, 1),
        Err(FrameError::Magic { .. })
    ));
    prelude[..4].copy_from_slice(b"PLF1");
    prelude[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        Prelude::parse(&prelude, 1),
        Err(FrameError::HeaderTooLarge { .. })
    ));
    prelude[4..8].copy_from_slice(&1u32.to_le_bytes());
    for bytes in [2u64, 1 << 31, 1 << 62, u64::MAX] {
        prelude[8..].copy_from_slice(&bytes.to_le_bytes());
        assert!(matches!(
            Prelude::parse(&prelude, 1),
            Err(FrameError::BodyTooLarge { .. })
        ));
    }
}

#[test]
fn the_layout_is_pinned_by_an_example() {
    let frame = Frame {
        number: 5,
        message: Message::Cancel,
        tensors: vec![],
    };
    let bytes = joined(&frame);
    assert_eq!(bytes.len(), 64);
    assert_eq!(&bytes[..16], b"PLF1\x04\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(
        &bytes[16..20],
        [4, 5, 4, 0],
        "schema, number, variant, no tensors"
    );
}
