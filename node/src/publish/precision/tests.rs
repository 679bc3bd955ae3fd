//! A precision that turns vectors is refused, unless it is forced; one that does not is written down.

use std::path::PathBuf;
use std::sync::Arc;

use paceline_models::{
    Batch, CpuEngine, DeviceSpec, LoadError, LoadedModel, MemoryUse, ModelDescription, ModelSource,
    RunError, TextReader,
};
use paceline_protocol::Tensor;

use super::*;
use crate::storage::MemoryDisk;

/// Loads what is asked for, and turns the answers of bfloat16.
struct Turning(CpuEngine);

struct Turned(Arc<dyn LoadedModel>);

impl Engine for Turning {
    fn device(&self) -> DeviceSpec {
        self.0.device()
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn LoadedModel>, LoadError> {
        let model = self.0.load(source)?;
        let toml = source.file(MODEL).expect("the choice is written");
        let is_rounded = std::str::from_utf8(toml).unwrap().contains("bf16");
        Ok(match is_rounded {
            true => Arc::new(Turned(model)),
            false => model,
        })
    }
}

impl LoadedModel for Turned {
    fn description(&self) -> &ModelDescription {
        self.0.description()
    }

    fn reader(&self) -> Option<&TextReader> {
        self.0.reader()
    }

    fn run(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Tensor>>, RunError> {
        let mut answers = self.0.run(batch)?;
        for answer in &mut answers {
            let mut values = Vec::new();
            answer[0].extend_f32(&mut values);
            values[0] += 0.5;
            answer[0] = Tensor::from_f32(values.len(), &values);
        }
        Ok(answers)
    }

    fn bytes(&self) -> MemoryUse {
        self.0.bytes()
    }
}

fn files() -> Vec<(String, Vec<u8>)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("../models/testdata/encoder/bert");
    ["config.json", "model.safetensors", "tokenizer.json"]
        .map(|name| (name.to_owned(), std::fs::read(folder.join(name)).unwrap()))
        .into()
}

fn stored() -> (Artifacts, Manifest) {
    let artifacts = Artifacts::open(Arc::new(MemoryDisk::default())).unwrap();
    let files = files();
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    let digest = artifacts.store_files(&files).unwrap();
    let manifest = artifacts.manifest(digest).unwrap();
    (artifacts, manifest)
}

fn choice(precision: Precision) -> PrecisionChoice {
    PrecisionChoice {
        precision,
        calibration: vec!["a cat".into(), "two riders in the wind".into()],
        force: false,
    }
}

#[test]
fn what_turns_vectors_is_refused_unless_it_is_forced() {
    let (artifacts, manifest) = stored();
    let engine = Turning(CpuEngine::new(1));
    let bf16 = choice(Precision::Bf16);
    let refused = choose(&artifacts, &engine, &manifest, &bf16).unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooInexact);
    assert!(
        refused
            .message
            .contains("of 2 texts the least cosine is 0.9"),
        "{refused}"
    );
    let forced = PrecisionChoice {
        force: true,
        ..bf16
    };
    let (_, report) = choose(&artifacts, &engine, &manifest, &forced).unwrap();
    assert!(report.cosine_min_ppm < PRECISION_COSINE_LEAST_PPM);
    // What is not rounded is exact, whatever rounding would have done.
    let exact = choose(&artifacts, &engine, &manifest, &choice(Precision::F32));
    assert!(exact.unwrap().1.cosine_min_ppm < PRECISION_COSINE_LEAST_PPM);
}

#[test]
fn the_choice_is_part_of_what_is_stored_and_the_same_again() {
    let (artifacts, manifest) = stored();
    let engine = CpuEngine::new(1);
    let bf16 = choice(Precision::Bf16);
    let ((digest, bytes), report) = choose(&artifacts, &engine, &manifest, &bf16).unwrap();
    assert!(
        report.cosine_min_ppm >= PRECISION_COSINE_LEAST_PPM,
        "{report:?}"
    );
    let source = artifacts.source(digest).unwrap();
    let toml = std::str::from_utf8(source.file(MODEL).unwrap()).unwrap();
    assert!(toml.contains("precision = \"bf16\""), "{toml}");
    assert_eq!(bytes, manifest.bytes() + toml.len() as u64);
    let (again, _) = choose(&artifacts, &engine, &manifest, &bf16).unwrap();
    assert_eq!(again, (digest, bytes));
    let many = PrecisionChoice {
        calibration: vec!["a".into(); CALIBRATION_TEXTS_MAX + 1],
        ..bf16
    };
    let refused = choose(&artifacts, &engine, &manifest, &many).unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooLarge);
}
