//! What is recognised, and every way in which a folder is refused.

use std::path::PathBuf;

use bytes::Bytes;

use super::*;
use crate::weights::tests::file as safetensors_file;
use crate::{CpuEngine, Engine, LoadError, WeightsError};

pub(crate) const IDENTITY: &str = r#"
name = "identity"
family = "identity"
[[inputs]]
name = "INPUT0"
dtype = "FP32"
shape = [-1, -1]
[[outputs]]
name = "OUTPUT0"
dtype = "FP32"
shape = [-1, -1]
"#;

pub(crate) const DIGITS_LIKE: &str = r#"
name = "tiny"
family = "mlp"
[[inputs]]
name = "pixels"
dtype = "FP32"
shape = [-1, 64]
[[outputs]]
name = "probabilities"
dtype = "FP32"
shape = [-1, 2]
[[outputs]]
name = "label"
dtype = "BYTES"
shape = [-1, 1]
[batching]
rows_max = 16
[mlp]
weights = "model.safetensors"
activation = "relu"
head = "softmax"
labels = ["no", "yes"]
"#;

/// A tensor to be written: name, shape, values.
pub(crate) type Entry<'a> = (&'a str, &'a [usize], Vec<f32>);

pub(crate) fn only_toml(toml: &str) -> ModelSource {
    with_weights(toml, None)
}

pub(crate) fn with_weights(toml: &str, weights: Option<Vec<u8>>) -> ModelSource {
    let toml = (
        "model.toml".to_owned(),
        Bytes::copy_from_slice(toml.as_bytes()),
    );
    let weights = weights.map(|bytes| ("model.safetensors".to_owned(), bytes.into()));
    ModelSource::from_files(std::iter::once(toml).chain(weights))
}

pub(crate) fn example_folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/models")
        .join(name)
}

pub(crate) fn example(name: &str) -> ModelSource {
    ModelSource::from_dir(&example_folder(name)).unwrap()
}

pub(crate) fn safetensors(entries: &[Entry<'_>]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, values) in entries {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let entry = serde_json::json!({
            "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()],
        });
        header.insert((*name).to_owned(), entry);
    }
    safetensors_file(&serde_json::Value::from(header).to_string(), &data)
}

/// Weights 64 → 3 → 2 that fit [`DIGITS_LIKE`].
fn entries() -> Vec<Entry<'static>> {
    vec![
        ("normalize.mean", &[64], vec![0.5; 64]),
        ("normalize.scale", &[64], vec![2.0; 64]),
        ("dense.0.weight", &[3, 64], vec![0.1; 192]),
        ("dense.0.bias", &[3], vec![0.0; 3]),
        ("dense.1.weight", &[2, 3], vec![0.2; 6]),
        ("dense.1.bias", &[2], vec![0.0, 1.0]),
    ]
}

fn refusal(source: &ModelSource) -> String {
    match CpuEngine::new(1).load(source) {
        Ok(_) => "loaded".to_owned(),
        Err(LoadError::Recognise(error)) => error.to_string(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_examples_are_recognised() {
    for (name, family, rows_max, finite) in [
        ("digits", Family::Mlp, 256, true),
        ("machine-failure", Family::Mlp, 1024, true),
        ("identity", Family::Identity, 1024, false),
    ] {
        let description = recognise(&example(name)).unwrap();
        assert_eq!(description.name.as_str(), name);
        assert_eq!(
            (
                description.family,
                description.rows_max,
                description.finite_inputs
            ),
            (family, rows_max, finite)
        );
        assert!(description.summary.is_some() && description.license.is_some());
    }
}

#[test]
fn defaults_are_those_of_the_format() {
    let toml = DIGITS_LIKE.replace("[batching]\nrows_max = 16\n", "");
    let source = with_weights(&toml, Some(safetensors(&entries())));
    let description = recognise(&source).unwrap();
    assert_eq!(
        (description.rows_max, description.finite_inputs),
        (64, true)
    );
    let toml = toml.replace(
        "family = \"mlp\"",
        "family = \"mlp\"\nfinite_inputs = false",
    );
    let source = with_weights(&toml, Some(safetensors(&entries())));
    assert!(!recognise(&source).unwrap().finite_inputs);
    assert_eq!(recognise(&only_toml(IDENTITY)).unwrap().rows_max, 64);
}

#[test]
fn other_systems_formats_are_named() {
    let onnx = [
        0x08, 0x08, 0x12, 0x07, b'p', b'y', b't', b'o', b'r', b'c', b'h',
    ];
    let torch = b"PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0\0\0archive/data.pkl";
    let cases: [(&str, &[u8], &str); 11] = [
        (
            "model.onnx",
            &onnx,
            "recognised as ONNX, which this build does not serve yet; served: mlp, identity, encoder",
        ),
        ("m.gguf", b"GGUF\x03\0\0\0", "GGUF"),
        (
            "config.json",
            b"{\n \"model_type\": \"llama\"}",
            "a Hugging Face model",
        ),
        (
            "config.json",
            b"{\"architectures\": [\"LlamaModel\"]}",
            "a Hugging Face model",
        ),
        (
            "m.json",
            b"{\"learner\":{\"attributes\":{}}}",
            "an XGBoost dump",
        ),
        ("m.txt", b"tree\nversion=v4\n", "a LightGBM dump"),
        ("m.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
        (
            "m.safetensors",
            b"\x40\0\0\0\0\0\0\0{\"a\":",
            "holds weights (safetensors), but no model.toml says what they compute",
        ),
        // By content, whatever they are called.
        (
            "m.safetensors",
            b"\x80\x02}q\0.",
            "a Python pickle, which can run code",
        ),
        (
            "model.bin",
            torch,
            "a PyTorch checkpoint, which can run code",
        ),
        (
            "m.mar",
            b"PK\x03\x04\0\0",
            "a zip archive of another system, which can run code",
        ),
    ];
    for (name, content, wanted) in cases {
        let file = (name.to_owned(), Bytes::copy_from_slice(content));
        let refusal = refusal(&ModelSource::from_files([file]));
        assert!(
            refusal.contains(wanted) && refusal.contains(name),
            "{refusal}"
        );
    }
    let two = ["a.gguf", "b.pt"].map(str::to_owned).into_iter().zip([
        Bytes::from_static(b"GGUF\x03\0\0\0"),
        Bytes::from_static(b"\x80\x04K\x01."),
    ]);
    assert!(
        refusal(&ModelSource::from_files(two)).contains("'b.pt'"),
        "the pickle comes first"
    );
}

#[test]
fn what_is_no_model_is_told() {
    assert_eq!(
        recognise(&ModelSource::default()),
        Err(RecogniseError::Empty)
    );
    let note = ModelSource::from_files([("note\n.txt".to_owned(), Bytes::from_static(b"hello"))]);
    assert_eq!(
        recognise(&note),
        Err(RecogniseError::Unrecognised {
            files: "note\\n.txt".into()
        })
    );
}

/// What is replaced in [`DIGITS_LIKE`], by what, and what is said about it.
const LAPSES: &[(&str, &str, &str)] = &[
    (
        "rows_max = 16",
        "rows = 16",
        "line 17: unknown field `rows`, expected `rows_max`",
    ),
    (
        "rows_max = 16",
        "rows_max = 0",
        "batching.rows_max is 0; allowed: 1 to 65536",
    ),
    (
        "rows_max = 16",
        "rows_max = 65537",
        "rows_max is 65537; allowed: 1 to 65536",
    ),
    ("rows_max = 16", "rows_max = -1", "line 17: "),
    (
        "name = \"tiny\"",
        "nom = \"tiny\"",
        "line 2: unknown field `nom`, expected one of `name`",
    ),
    ("name = \"tiny\"", "name = \"Tiny\"", "model.toml, name: "),
    ("name = \"tiny\"", "", "missing field `name`"),
    (
        "family = \"mlp\"",
        "family = \"tree\"",
        "family = \"tree\" is not served by this build; served: mlp, identity, encoder",
    ),
    (
        "family = \"mlp\"",
        "family = \"identity\"",
        "the section [mlp] is for family = \"mlp\" only, this is identity",
    ),
    (
        "\"relu\"",
        "\"swish\"",
        "unknown variant `swish`, expected one of `relu`, `gelu`, `tanh`",
    ),
    (
        "\"softmax\"",
        "\"argmax\"",
        "unknown variant `argmax`, expected one of `softmax`, `sigmoid`, `none`",
    ),
    (
        "head = ",
        "threshold = 0.5\nhead = ",
        "mlp.threshold: only sigmoid with labels has one, got 0.5",
    ),
    (
        "[\"no\", \"yes\"]",
        "[\"no\"]",
        "mlp.labels: softmax has a label for each of its 2 outputs, got 1",
    ),
    (
        "\"softmax\"",
        "\"none\"",
        "labels need the head softmax or sigmoid",
    ),
    (
        "\"softmax\"",
        "\"sigmoid\"",
        "sigmoid has one output and two labels",
    ),
    ("labels = ", "# ", "an mlp without labels has one output"),
    (
        "[-1, 1]",
        "[-1, 2]",
        "an mlp with labels has two outputs, FP32 [-1, columns] and then BYTES [-1, 1]",
    ),
    (
        "[-1, 64]",
        "[64, -1]",
        "inputs: the first dimension of 'pixels' counts rows and must be -1",
    ),
    (
        "[-1, 64]",
        "[-1, -1]",
        "an mlp has one input, FP32 [-1, columns]",
    ),
    (
        "[-1, 64]",
        "[-1, 63]",
        "'normalize.mean' must be F32 [63], is F32 [64]",
    ),
    (
        "\"FP32\"",
        "\"FP31\"",
        "'FP31' is not a datatype; allowed: BOOL",
    ),
    (
        "\"FP32\"",
        "\"FP16\"",
        "an mlp has one input, FP32 [-1, columns]",
    ),
    (
        "\"label\"",
        "\"probabilities\"",
        "outputs: 'probabilities' is named twice",
    ),
    (
        "model.safetensors",
        "other",
        "mlp.weights: the folder has no file 'other'",
    ),
    ("[mlp]", "[mlp", "line 18: "),
];

#[test]
fn a_lapse_in_model_toml_names_key_and_remedy() {
    for (from, to, wanted) in LAPSES {
        assert!(DIGITS_LIKE.contains(from), "{from}");
        let toml = DIGITS_LIKE.replace(from, to);
        let told = refusal(&with_weights(&toml, Some(safetensors(&entries()))));
        assert!(told.contains(wanted), "{to}: {told}");
    }
    let (toml, _) = DIGITS_LIKE.split_once("[mlp]").unwrap();
    assert!(refusal(&only_toml(toml)).contains("needs a section [mlp]"));
    let latin = (
        "model.toml".to_owned(),
        Bytes::from_static(b"name = \"\xe9\""),
    );
    assert!(refusal(&ModelSource::from_files([latin])).contains("line 1: not UTF-8"));
}

#[test]
fn an_identity_gives_what_it_takes() {
    for (from, to) in [
        ("[-1, -1]\n[[outputs]]", "[-1, 2]\n[[outputs]]"),
        ("\"FP32\"\nshape", "\"FP64\"\nshape"),
    ] {
        let toml = IDENTITY.replacen(from, to, 1);
        assert_ne!(toml, IDENTITY);
        let error = recognise(&only_toml(&toml));
        assert!(
            matches!(error, Err(RecogniseError::Identity { .. })),
            "{error:?}"
        );
    }
    let more = format!("{IDENTITY}[[outputs]]\nname = \"b\"\ndtype = \"FP32\"\nshape = [-1]\n");
    assert!(refusal(&only_toml(&more)).contains("1 inputs, 2 outputs"));
}

#[test]
fn a_threshold_is_a_probability() {
    let toml = DIGITS_LIKE.replace("\"softmax\"", "\"sigmoid\"\nthreshold = 1.5");
    let toml = toml.replace("[-1, 2]", "[-1, 1]");
    let told = refusal(&with_weights(&toml, Some(safetensors(&entries()))));
    assert!(
        told.contains("mlp.threshold: from 0 to 1, got 1.5"),
        "{told}"
    );
    let told = refusal(&with_weights(
        &toml.replace("1.5", "nan"),
        Some(safetensors(&entries())),
    ));
    assert!(
        told.contains("mlp.threshold: from 0 to 1, got NaN"),
        "{told}"
    );
}

/// What is said when the tensor `name` is replaced by another, or taken away.
fn altered(name: &str, entry: Option<Entry<'static>>) -> String {
    let mut entries = entries();
    entries.retain(|(existing, ..)| *existing != name);
    entries.extend(entry);
    refusal(&with_weights(DIGITS_LIKE, Some(safetensors(&entries))))
}

#[test]
fn missing_and_unused_tensors_are_named() {
    assert_eq!(altered("", None), "loaded");
    for name in [
        "dense.1.bias",
        "dense.0.weight",
        "normalize.scale",
        "normalize.mean",
    ] {
        assert_eq!(
            altered(name, None),
            format!("the weights lack the tensor '{name}'")
        );
    }
    for name in [
        "dense.3.bias",
        "dense.00.bias",
        "dense.+0.bias",
        "embedding",
        "normalize.std",
    ] {
        let told = altered("", Some((name, &[1], vec![0.0])));
        let wanted = format!("hold '{name}', which is not used; allowed: normalize.mean");
        assert!(told.contains(&wanted), "{told}");
    }
}

#[test]
fn tensors_of_another_shape_are_named() {
    let cases: [(&str, &[usize], &str); 4] = [
        ("dense.1.bias", &[3], "F32 [2], is F32 [3]"),
        (
            "dense.1.weight",
            &[2, 4],
            "F32 [outputs, 3], both at least 1, is F32 [2, 4]",
        ),
        (
            "dense.1.weight",
            &[6],
            "F32 [outputs, 3], both at least 1, is F32 [6]",
        ),
        (
            "dense.1.weight",
            &[0, 3],
            "F32 [outputs, 3], both at least 1, is F32 [0, 3]",
        ),
    ];
    for (name, shape, wanted) in cases {
        let values = vec![0.0; shape.iter().product()];
        let mut entries = entries();
        entries.retain(|(existing, ..)| *existing != name);
        entries.push((name, shape, values));
        let told = refusal(&with_weights(DIGITS_LIKE, Some(safetensors(&entries))));
        assert_eq!(told, format!("'{name}' must be {wanted}"));
    }
    let mut shallow = entries();
    shallow.truncate(4);
    let told = refusal(&with_weights(DIGITS_LIKE, Some(safetensors(&shallow))));
    assert!(
        told.contains("outputs: the weights have 3 outputs, declared are 2"),
        "{told}"
    );
}

#[test]
fn values_that_poison_every_answer_are_refused() {
    let mut nan = vec![0.2; 6];
    nan[4] = f32::NAN;
    let told = altered("dense.1.weight", Some(("dense.1.weight", &[2, 3], nan)));
    assert_eq!(told, "'dense.1.weight' is not finite at element 4");
    let infinite = Some(("dense.0.bias", &[3usize][..], vec![f32::INFINITY; 3]));
    assert_eq!(
        altered("dense.0.bias", infinite),
        "'dense.0.bias' is not finite at element 0"
    );
    let mut flat = vec![1.0; 64];
    flat[7] = 0.0;
    let told = altered("normalize.scale", Some(("normalize.scale", &[64], flat)));
    assert!(
        told.contains("'normalize.scale' is 0 at element 7"),
        "{told}"
    );
}

#[test]
fn damaged_weights_are_refused_whole() {
    let whole = safetensors(&entries());
    for cut in [0, 7, 8, 100, whole.len() - 1] {
        let error = recognise(&with_weights(DIGITS_LIKE, Some(whole[..cut].to_vec())));
        let Err(RecogniseError::Mlp(MlpError::Weights { file, cause })) = error else {
            panic!("{cut}: {error:?}")
        };
        assert_eq!(file, "model.safetensors");
        assert!(
            matches!(cause, WeightsError::Truncated { .. }),
            "{cut}: {cause}"
        );
    }
    let half = safetensors_file(
        r#"{"dense.0.weight":{"dtype":"F16","shape":[2,64],"data_offsets":[0,256]},
            "dense.0.bias":{"dtype":"F32","shape":[2],"data_offsets":[256,264]}}"#,
        &[0; 264],
    );
    let told = refusal(&with_weights(DIGITS_LIKE, Some(half)));
    assert!(
        told.contains("'dense.0.weight' must be F32 [2, 64], is F16 [2, 64]"),
        "{told}"
    );
    let pickle = with_weights(DIGITS_LIKE, Some(b"\x80\x02}q\0.".to_vec()));
    assert!(matches!(
        recognise(&pickle),
        Err(RecogniseError::Pickle { .. })
    ));
    let gguf = with_weights(
        DIGITS_LIKE,
        Some(b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0".to_vec()),
    );
    assert!(matches!(
        recognise(&gguf),
        Err(RecogniseError::Foreign { format: "GGUF", .. })
    ));
}
