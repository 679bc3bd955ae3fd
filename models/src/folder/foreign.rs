//! Formats of other systems, told by their first bytes, so that a refusal can name them.

use crate::family::encoder_claim;
use crate::folder::RecogniseError;
use crate::source::{CONFIG, ModelSource};

const HUGGING_FACE: &str = "a Hugging Face model";

/// Why a folder without `model.toml` is refused.
pub(crate) fn undeclared(source: &ModelSource) -> RecogniseError {
    if source.heads().next().is_none() {
        return RecogniseError::Empty;
    }
    // A pickle anywhere is told first: it is the one that matters to whoever pushed it.
    let told = source
        .heads()
        .find_map(|(name, head)| identify(name, head).or_else(|| bare_weights(name, head)));
    if let Some(error) = pickled(source).or(told) {
        return error;
    }
    let names: Vec<_> = source
        .heads()
        .map(|(name, _)| shown(name))
        .take(5)
        .collect();
    RecogniseError::Unrecognised {
        files: names.join(", "),
    }
}

/// Whether a folder holds Hugging Face's `config.json`, of an architecture that is served or not.
pub(crate) fn is_hugging_face(source: &ModelSource) -> bool {
    source
        .file(CONFIG)
        .is_some_and(|content| is_config(content))
}

/// Whether a `config.json` is Hugging Face's, whole or damaged.
pub(crate) fn is_config(content: &[u8]) -> bool {
    encoder_claim(content).is_some() || format(content) == Some(HUGGING_FACE)
}

/// The first pickle of a folder.
pub(crate) fn pickled(source: &ModelSource) -> Option<RecogniseError> {
    let told = |(name, head)| match identify(name, head) {
        Some(error @ RecogniseError::Pickle { .. }) => Some(error),
        _ => None,
    };
    source.heads().find_map(told)
}

/// What a file is, if its first bytes tell.
pub(crate) fn identify(name: &str, head: &[u8]) -> Option<RecogniseError> {
    let file = shown(name);
    if let Some(format) = pickle(head) {
        return Some(RecogniseError::Pickle { file, format });
    }
    format(head).map(|format| RecogniseError::Foreign { file, format })
}

/// Safetensors: eight bytes of length, then the header. Weights alone do not say what they
/// compute.
fn bare_weights(name: &str, head: &[u8]) -> Option<RecogniseError> {
    matches!(head, [_, _, _, _, _, 0, 0, 0, b'{', ..])
        .then(|| RecogniseError::Undescribed { file: shown(name) })
}

fn pickle(head: &[u8]) -> Option<&'static str> {
    match head {
        // Protocol 2 to 5 begins with PROTO and its number.
        [0x80, 2..=5, ..] => Some("a Python pickle"),
        // PyTorch's zip: the pickle is its first member.
        [b'P', b'K', 3, 4, ..] if holds(head, b"data.pkl") => Some("a PyTorch checkpoint"),
        [b'P', b'K', 3, 4, ..] => Some("a zip archive of another system"),
        _ => None,
    }
}

fn format(head: &[u8]) -> Option<&'static str> {
    let text = head.trim_ascii_start();
    match head {
        [b'G', b'G', b'U', b'F', ..] => Some("GGUF"),
        [0x89, b'H', b'D', b'F', ..] => Some("HDF5 (Keras)"),
        // A protobuf whose first field is ModelProto.ir_version, a small number, followed by
        // another of ModelProto's fields: producer, domain, version, doc, graph or opset.
        [
            0x08,
            1..=32,
            0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42,
            ..,
        ] => Some("ONNX"),
        _ if text.starts_with(b"{") && holds(text, b"\"model_type\"") => Some(HUGGING_FACE),
        _ if text.starts_with(b"{") && holds(text, b"\"architectures\"") => Some(HUGGING_FACE),
        _ if text.starts_with(b"{") && holds(text, b"\"learner\"") => Some("an XGBoost dump"),
        _ if head.starts_with(b"tree\n") => Some("a LightGBM dump"),
        _ => None,
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A file's name as it may stand in a message.
fn shown(name: &str) -> String {
    name.chars()
        .take(64)
        .flat_map(char::escape_default)
        .collect()
}
