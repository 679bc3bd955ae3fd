//! Precisions of the encoders whose answers are known.

use std::path::PathBuf;

use super::*;
use crate::CpuEngine;

fn folder(path: &str) -> ModelSource {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    ModelSource::from_dir(&root.join(path)).unwrap()
}

#[test]
fn both_precisions_are_measured_of_vectors_classes_and_pairs() {
    let engine = CpuEngine::new(1);
    let texts = calibration_texts();
    assert!(texts.len() >= 40 && texts.iter().all(|text| !text.is_empty()));
    for (model, rows) in [("bert", 40), ("bert-classes", 40), ("bert-pairs", 39)] {
        let source = folder(&format!("testdata/encoder/{model}"));
        let figures = compare_precisions(&engine, &source, &texts).unwrap();
        assert_eq!(figures.texts as usize, rows + texts.len() - 40, "{model}");
        assert!(figures.cosine_min > 0.99 && figures.cosine_min <= figures.cosine_mean + 1e-12);
        assert!(figures.cosine_mean < 1.0 + 1e-9, "{figures:?}");
        assert!(figures.f32_text_ns > 0 && figures.bf16_text_ns > 0);
        if !figures.is_rounded {
            assert!(figures.cosine_min > 1.0 - 1e-9, "{figures:?}");
        }
    }
    assert_eq!(engine.taken_bytes(), 0);
}

#[test]
fn the_choice_is_written_beside_what_the_folder_says() {
    let source = folder("testdata/encoder/bert");
    let toml = declared(&source, EncoderPrecision::Bf16).unwrap();
    let text = std::str::from_utf8(&toml).unwrap();
    assert!(text.contains("[encoder]\nprecision = \"bf16\""), "{text}");
    let said = "name = \"x\"\nfamily = \"encoder\"\n# why\n[encoder]\ntokens_max = 12\nprecision = \"f32\"\n";
    let files = source
        .files()
        .map(|(name, content)| (name.to_owned(), content.clone()));
    let own = [(MODEL.to_owned(), Bytes::from_static(said.as_bytes()))];
    let source = ModelSource::from_files(files.chain(own));
    let toml = declared(&source, EncoderPrecision::Bf16).unwrap();
    let text = std::str::from_utf8(&toml).unwrap();
    assert!(
        text.contains("tokens_max = 12") && text.contains("precision = \"bf16\""),
        "{text}"
    );
    assert_eq!(toml, declared(&source, EncoderPrecision::Bf16).unwrap());
}

#[test]
fn what_has_no_precision_says_so() {
    let engine = CpuEngine::new(1);
    let digits = folder("../examples/models/digits");
    let refused = compare_precisions(&engine, &digits, &calibration_texts()).unwrap_err();
    assert!(
        matches!(refused, PrecisionError::Family { family: "mlp" }),
        "{refused}"
    );
    let pairs = folder("testdata/encoder/bert-pairs");
    let refused = compare_precisions(&engine, &pairs, &["one".to_owned()]).unwrap_err();
    assert!(
        matches!(refused, PrecisionError::Texts { texts: 1, least: 2 }),
        "{refused}"
    );
}
