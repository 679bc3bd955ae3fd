//! Whatever reads a stranger's bytes here is given mutations of good and of bad ones: it reads or
//! refuses them, and neither panics nor takes long. A seed decides all, so what fails is repeated:
//! `FUZZ_SEED=7 FUZZ_SECONDS=20 cargo test -p paceline-node --lib gateway::tests`. What was found
//! once stands in `node/testdata/fuzz/TARGET/` and is given first, as it is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use paceline_core::Random;
use paceline_protocol::frame::{ClientInfer, Frame, Message};
use paceline_protocol::tenant::{ApiKey, KeyId};
use paceline_protocol::{
    AlignedBuffer, Criticality, Digest, Dim, Dtype, Epoch, ErrorCode, Failure, JoinToken,
    ModelName, Secret, ShapePattern, Signature, TenantId, Tensor, TensorSpec, TokenId,
};

use super::oip::{ParseOptions, parse};
use super::path::{Route, Target};
use super::text::{Asked, Texts};

/// Mutations of each target unless seconds are given: a second or two of a test's time.
const ROUNDS: u64 = 20_000;
/// What one input may take: a thousand times what it does, and a pause of a busy machine.
const INPUT_LIMIT: Duration = Duration::from_secs(2);
/// The longest input.
const BYTES_MAX: usize = 4 << 10;
/// What parsers stumble over.
const PIECES: [&[u8]; 28] = [
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b"\"",
    b"\\",
    b"\\ud800",
    b"\xff\xfe",
    b"\xc0\x80",
    b"\0",
    b"-",
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"18446744073709551615",
    b"9223372036854775808",
    b"/",
    b"//",
    b"..",
    b"%2e%2e%2f",
    b"versions/",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\"shape\":[4294967296,4294967296]",
    b"\"binary_data_size\":18446744073709551615",
    b"_",
];

/// Inputs of one target.
struct Inputs {
    corpus: Vec<Vec<u8>>,
    random: Random,
}

impl Inputs {
    fn of(target: &str, good: Vec<Vec<u8>>, seed: u64) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("testdata/fuzz")
            .join(target);
        let entries = std::fs::read_dir(&folder).expect("each target has a corpus");
        // In the order of their names, whatever the disk's is.
        let files: BTreeSet<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        let found = files.iter().map(|file| std::fs::read(file).unwrap());
        let corpus: Vec<_> = good.into_iter().chain(found).collect();
        assert!(corpus.len() >= 4, "{target}: too little to mutate");
        let random = Random::stream(seed, target);
        Self { corpus, random }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound as u64) as usize
    }

    /// The next mutation: one to three changes of something from the corpus.
    fn next(&mut self) -> Vec<u8> {
        let which = self.below(self.corpus.len());
        let mut bytes = self.corpus[which].clone();
        for _ in 0..=self.below(3) {
            self.mutate(&mut bytes);
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let end = at + self.below(bytes.len() - at + 1);
        match self.below(7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            3 => {
                let piece = PIECES[self.below(PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            4 => {
                // The end of another one behind the beginning of this.
                let which = self.below(self.corpus.len());
                let from = self.below(self.corpus[which].len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&self.corpus[which][from..]);
            }
            5 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            _ if at < bytes.len() => bytes[at] = self.below(256) as u8,
            _ => bytes.push(self.below(256) as u8),
        }
    }
}

/// Gives a target its corpus and then mutations of it. It says whether it took an input: one that
/// takes none, or all, was not tried.
///
/// `good` are inputs that are made anew, since their format may change.
fn fuzz(target: &str, good: Vec<Vec<u8>>, takes: impl Fn(&[u8]) -> bool) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed: u64 = number("FUZZ_SEED").unwrap_or(1);
    let seconds: Option<u64> = number("FUZZ_SECONDS");
    let mut inputs = Inputs::of(target, good, seed);
    let (mut taken, mut refused) = (0_u64, 0_u64);
    let mut give = |input: &[u8]| {
        let since = Instant::now();
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| takes(input)));
        let shown = input.escape_ascii();
        let Ok(is_taken) = tried else {
            panic!("{target}, seed {seed}, panicked at: {shown}");
        };
        let took = since.elapsed();
        assert!(took < INPUT_LIMIT, "{target}: {took:?} for {shown}");
        match is_taken {
            true => taken += 1,
            false => refused += 1,
        }
    };
    inputs.corpus.clone().iter().for_each(|input| give(input));
    let began = Instant::now();
    let mut rounds = 0;
    while match seconds {
        Some(seconds) => began.elapsed() < Duration::from_secs(seconds),
        None => rounds < ROUNDS,
    } {
        give(&inputs.next());
        rounds += 1;
    }
    println!("{target}: {rounds} mutations, seed {seed}: {taken} taken, {refused} refused");
    assert!(
        taken > 0 && refused > 0,
        "{target}: {taken} taken, {refused} refused"
    );
}

fn signature() -> Signature {
    let input = |name: &str, dtype, rank| TensorSpec {
        name: name.to_owned(),
        dtype,
        shape: ShapePattern(vec![Dim::Any; rank]),
    };
    let inputs = vec![
        input("a", Dtype::Fp32, 2),
        input("b", Dtype::Bytes, 2),
        input("c", Dtype::Int64, 1),
    ];
    let outputs = vec![input("y", Dtype::Fp32, 2)];
    Signature { inputs, outputs }
}

/// What a client is told of its own mistake.
fn assert_fit_to_be_told(failure: &Failure) {
    assert!(
        (400..500).contains(&failure.code.http_status()),
        "{failure:?}"
    );
    assert!(failure.message.len() < 1_024, "{failure:?}");
    let told = failure.message.chars().all(|c| !c.is_control());
    assert!(told, "{failure:?}");
}

#[test]
fn json_requests() {
    let signature = signature();
    fuzz("oip_json", Vec::new(), |input| {
        let body = Bytes::copy_from_slice(input);
        match parse(&body, None, &signature, ParseOptions::default()) {
            Ok(parsed) => {
                // What we take is JSON to others as well.
                let known = serde_json::from_slice::<serde::de::IgnoredAny>(input);
                assert!(known.is_ok(), "{known:?}");
                assert!(
                    parsed
                        .inputs
                        .iter()
                        .all(|tensor| tensor.rows() == parsed.rows())
                );
                true
            }
            Err(failure) => {
                assert_fit_to_be_told(&failure);
                false
            }
        }
    });
}

#[test]
fn texts() {
    let spec = |name: &str, dtype, dim| TensorSpec {
        name: name.to_owned(),
        dtype,
        shape: ShapePattern(vec![Dim::Any, dim]),
    };
    let signature = Signature {
        inputs: vec![spec("text", Dtype::Bytes, Dim::Exactly(1))],
        outputs: vec![spec("embedding", Dtype::Fp32, Dim::Exactly(4))],
    };
    fuzz("texts", Vec::new(), |input| {
        let read = Texts::read(Asked::Embeddings, input);
        match read.and_then(|texts| texts.parse(&signature, ParseOptions::default())) {
            Ok(parsed) => {
                let known = serde_json::from_slice::<serde::de::IgnoredAny>(input);
                assert!(known.is_ok(), "{known:?}");
                assert!(parsed.rows() > 0 && parsed.outputs.len() == 1);
                true
            }
            // A model for texts takes no tokens.
            Err(failure) if failure.code == ErrorCode::Unsupported => false,
            Err(failure) => {
                assert_fit_to_be_told(&failure);
                false
            }
        }
    });
}

#[test]
fn binary_requests() {
    let signature = signature();
    // The first two bytes stand for the header that says how long the JSON is.
    fuzz("oip_binary", Vec::new(), |input| {
        let Some((length, body)) = input.split_first_chunk::<2>() else {
            return false;
        };
        let length = usize::from(u16::from_le_bytes(*length));
        let body = Bytes::copy_from_slice(body);
        match parse(&body, Some(length), &signature, ParseOptions::default()) {
            Ok(parsed) => {
                let bytes = parsed.inputs.iter().map(|tensor| tensor.data().len());
                // Numbers in the JSON have two characters at least and become eight bytes at most.
                assert!(bytes.sum::<usize>() <= 8 * body.len());
                true
            }
            Err(failure) => {
                assert_fit_to_be_told(&failure);
                false
            }
        }
    });
}

#[test]
fn paths() {
    fuzz("path", Vec::new(), |input| {
        let Ok(path) = std::str::from_utf8(input) else {
            return false;
        };
        match Route::of(path) {
            Route::Unknown => false,
            Route::Model(Target { model, version })
            | Route::ModelReady(Target { model, version })
            | Route::Infer(Target { model, version }) => {
                let is_part = |part: &str| !part.is_empty() && !part.contains('/');
                assert!(is_part(model) && version.is_none_or(is_part));
                assert!(path.starts_with("/v2/models/"));
                true
            }
            Route::V1(_) => ["/v1/", "/openai/v1/"]
                .iter()
                .any(|prefix| path.starts_with(prefix)),
            Route::Described => path == "/openapi.json",
            _ => path.starts_with("/v2"),
        }
    });
}

#[test]
fn keys_and_tokens() {
    let secret = |byte| Secret::new([byte; 32]);
    let key = ApiKey {
        id: KeyId([3; 8]),
        secret: secret(7),
    };
    let token = JoinToken {
        id: TokenId([5; 8]),
        secret: secret(9),
        pin: Digest([1; 32]),
    };
    let good = vec![key.reveal().into_bytes(), token.reveal().into_bytes()];
    fuzz("keys", good, |input| {
        let Ok(text) = std::str::from_utf8(input) else {
            return false;
        };
        let key = text.parse::<ApiKey>();
        let token = text.parse::<JoinToken>();
        // Nobody's mistake is repeated with what might be a secret.
        for told in [
            key.as_ref().err().map(ToString::to_string),
            token.as_ref().err().map(ToString::to_string),
        ] {
            assert!(told.is_none_or(|told| text.len() < 12 || !told.contains(text)));
        }
        if let Ok(key) = &key {
            assert_eq!(key.reveal().to_lowercase(), text.to_lowercase());
        }
        if let Ok(token) = &token {
            assert_eq!(token.reveal().to_lowercase(), text.to_lowercase());
        }
        key.is_ok() || token.is_ok()
    });
}

#[test]
fn frames() {
    let frame = |message, tensors| {
        let frame = Frame {
            number: 7,
            message,
            tensors,
        };
        frame.encode().unwrap().concat()
    };
    let infer = ClientInfer {
        model: ModelName::new("m").unwrap(),
        version: None,
        budget_us: 1_000,
        attempt: 1,
        epoch_seen: Epoch(3),
        idempotent: true,
        inputs: vec!["x".to_owned()],
        outputs: Vec::new(),
        lost: None,
        criticality: Criticality::default(),
        tenant: TenantId(5),
        unit: None,
        sequence: None,
        in_parts: true,
    };
    let good = vec![
        frame(
            Message::ClientInfer(infer),
            vec![Tensor::from_f32(2, &[1.0, 2.0])],
        ),
        frame(Message::ClientEnd { rows: 3 }, Vec::new()),
        frame(Message::Cancel, Vec::new()),
    ];
    fuzz("frame", good, |input| {
        let Ok(frame) = Frame::decode_slice(input, 64 << 10) else {
            return false;
        };
        // Encoded again it says the same; a NaN is no NaN's equal, so the bytes are compared.
        let Ok(encoded) = frame.encode() else {
            return true;
        };
        let encoded = AlignedBuffer::copied(&encoded.concat());
        let again = Frame::decode_slice(&encoded, 64 << 10).expect("we wrote it");
        assert_eq!(again.number, frame.number);
        assert_eq!(again.encode().unwrap().concat(), encoded);
        true
    });
}
