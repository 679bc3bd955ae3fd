//! What nodes ask of each other about artifacts: one question and one answer a stream.

use paceline_protocol::Digest;
use serde::{Deserialize, Serialize};

use crate::transport::message::Dialect;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Which of these artifacts are whole on your disk?
    Has {
        /// Their digests, at most [`HAS_MAX`].
        artifacts: Vec<Digest>,
    },
    /// An artifact's manifest, please.
    Manifest {
        /// Of which.
        artifact: Digest,
    },
    /// A piece of a file, please.
    Chunk {
        /// SHA-256 of the file.
        file: Digest,
        /// Which piece, counted from 0.
        index: u32,
    },
    /// Keep this artifact as well: fetch it, from me if need be, and answer once it is durable.
    Keep {
        /// Which.
        artifact: Digest,
        /// How long the asker waits for it.
        budget_ms: u64,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// For each artifact that was asked about.
    Has {
        /// Whether it is here.
        held: Vec<bool>,
    },
    /// So many bytes follow: a manifest as JSON, or a chunk.
    Bytes {
        /// How many.
        count: u32,
    },
    /// It is durable here.
    Kept,
    /// It is not here.
    Missing,
    /// There are too many questions at once.
    Busy,
    /// It cannot be done.
    Failed {
        /// Why.
        reason: String,
    },
}

impl Answer {
    pub(super) fn failed(reason: impl ToString) -> Self {
        let mut reason = reason.to_string();
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        Self::Failed { reason }
    }
}

pub(super) const DIALECT: Dialect = Dialect {
    what: "artifacts",
    schema: 1,
    bytes_max: 16 << 10,
};
/// Digests in one question: 8 KiB of them.
pub(super) const HAS_MAX: usize = 256;
const REASON_BYTES_MAX: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest() -> impl Strategy<Value = Digest> {
        any::<[u8; 32]>().prop_map(Digest)
    }

    proptest! {
        #[test]
        fn messages_come_back_as_they_were(
            artifacts in proptest::collection::vec(digest(), 0..=HAS_MAX),
            index in any::<u32>(),
            reason in ".*",
        ) {
            let artifact = Digest([3; 32]);
            let requests = [
                Request::Has { artifacts: artifacts.clone() },
                Request::Manifest { artifact },
                Request::Chunk { file: artifact, index },
                Request::Keep { artifact, budget_ms: u64::from(index) },
            ];
            let held = artifacts.iter().map(|digest| digest.0[0] > 9).collect();
            let answers = [
                Answer::Has { held },
                Answer::Bytes { count: index },
                Answer::Kept,
                Answer::Missing,
                Answer::Busy,
                Answer::failed(reason),
            ];
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                for request in requests {
                    let mut bytes = Vec::new();
                    DIALECT.send(&mut bytes, &request).await.unwrap();
                    assert_eq!(DIALECT.receive::<Request>(&mut &*bytes).await.unwrap(), request);
                }
                for answer in answers {
                    let mut bytes = Vec::new();
                    DIALECT.send(&mut bytes, &answer).await.unwrap();
                    assert_eq!(DIALECT.receive::<Answer>(&mut &*bytes).await.unwrap(), answer);
                }
            });
        }
    }
}
