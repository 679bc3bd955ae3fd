//! Answers of Hugging Face's `transformers` on small random models, one of each architecture and
//! head. `scripts/goldens/encoder.py` wrote them.

use super::*;
use serde::Deserialize;

use crate::kernel::{Kernels, Level, Precision};
use crate::offload::{Host, PassLimits};

#[derive(Deserialize)]
struct Expected {
    rows: Vec<ExpectedRow>,
}

#[derive(Deserialize)]
struct ExpectedRow {
    query: Option<String>,
    text: String,
    ids: Vec<u32>,
    outputs: Vec<f32>,
}

fn expected(name: &str) -> Vec<ExpectedRow> {
    let json = std::fs::read(folder(name).join("expected.json")).unwrap();
    let expected: Expected = serde_json::from_slice(&json).unwrap();
    assert!(expected.rows.len() >= 6);
    expected.rows
}

fn request(rows: &[ExpectedRow]) -> Vec<Tensor> {
    let text: Vec<_> = rows.iter().map(|row| &row.text).collect();
    let query: Option<Vec<_>> = rows.iter().map(|row| row.query.as_ref()).collect();
    let query = query.map(|query| Tensor::from_byte_strings(&query));
    query
        .into_iter()
        .chain([Tensor::from_byte_strings(&text)])
        .collect()
}

const MODELS: [&str; 9] = [
    "bert",
    "roberta",
    "distilbert",
    "xlm-roberta",
    "bert-classes",
    "roberta-classes",
    "distilbert-classes",
    "bert-pairs",
    "xlm-roberta-pairs",
];

/// Which output holds what `transformers` calls the model's.
fn compared(name: &str) -> usize {
    usize::from(name.contains('-') && name != "xlm-roberta")
}

#[test]
fn ids_are_those_of_transformers() {
    for name in MODELS {
        let rows = expected(name);
        let prepared = load(&source(name)).prepare(&request(&rows)).unwrap();
        for (got, wanted) in
            crate::family::encoder::sequence::unpack(&prepared.inputs[0]).zip(&rows)
        {
            assert_eq!(
                got.ids().collect::<Vec<_>>(),
                wanted.ids,
                "{name}: {}",
                wanted.text
            );
        }
    }
}

/// The largest difference from what `transformers` answers, and the smallest cosine.
fn differences(engine: &CpuEngine, name: &str) -> (f32, f32) {
    differences_of(engine, name, &source(name))
}

fn differences_of(engine: &CpuEngine, name: &str, source: &ModelSource) -> (f32, f32) {
    let rows = expected(name);
    let model = engine.load(source).unwrap();
    let answer = answer(&*model, &request(&rows));
    let got = f32s(&answer[compared(name)]);
    let width = rows[0].outputs.len();
    assert_eq!(got.len(), rows.len() * width);
    let (mut largest, mut cosine) = (0f32, 1f32);
    for (row, got) in rows.iter().zip(got.chunks_exact(width)) {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let wanted = &row.outputs;
        let lengths = (dot(got, got) * dot(wanted, wanted)).sqrt();
        cosine = cosine.min(dot(got, wanted) / lengths);
        for (got, wanted) in got.iter().zip(wanted) {
            largest = largest.max((got - wanted).abs());
        }
    }
    let distinct = rows
        .windows(2)
        .filter(|pair| pair[0].outputs != pair[1].outputs);
    assert_eq!(distinct.count(), rows.len() - 1, "{name} tells texts apart");
    (largest, cosine)
}

/// Numbers are of the order of 1; sums of some thousand products in 32 bits differ by 10⁻⁶.
const TOLERANCE: f32 = 2e-5;

#[test]
fn the_reference_answers_as_transformers() {
    for name in MODELS {
        let (largest, _) = differences(&CpuEngine::new(1).with_reference(), name);
        println!("{name}: largest difference {largest:e}");
        assert!(largest < TOLERANCE, "{name}: {largest}");
    }
}

#[test]
fn the_kernels_of_every_level_answer_as_transformers() {
    for level in Level::available() {
        for name in MODELS {
            let exact = CpuEngine::new(1).with_kernels(Kernels::on(level, Precision::F32));
            let (largest, _) = differences(&exact, name);
            println!("{name} on {level}: largest difference {largest:e}");
            assert!(largest < TOLERANCE, "{name} on {level}: {largest}");
            // Factors of eight bits: as far as each of some hundred roundings of 2⁻⁹ leads.
            let rounded = CpuEngine::new(1).with_kernels(Kernels::on(level, Precision::Bf16));
            let (largest, cosine) = differences(&rounded, name);
            println!("{name} on {level}, bf16: largest difference {largest:e}, cosine {cosine}");
            assert!(largest < 0.05, "{name} on {level}: {largest}");
            let is_vector = compared(name) == 0;
            assert!(!is_vector || cosine > 0.999, "{name} on {level}: {cosine}");
        }
    }
}

/// The very operations that a GPU runs, in each precision, with sequences side by side, in several
/// passes and with heads in several groups.
#[test]
fn the_operations_of_a_device_answer_as_transformers() {
    let all_at_once = (1 << 15, 1 << 22);
    for (tokens, scores) in [all_at_once, (20, 1 << 22), (1 << 15, 200)] {
        let offload = Host::with_limits(PassLimits { tokens, scores });
        let engine = CpuEngine::new(1).with_offload(offload);
        for (precision, tolerance, cosine_min) in [
            ("f32", TOLERANCE, 0.999_999),
            // Factors and products of eleven bits: some ten roundings of 2⁻¹² of numbers around 4.
            ("f16", 0.01, 0.999_99),
            // Of eight.
            ("bf16", 0.08, 0.999),
        ] {
            for name in MODELS {
                let toml = format!(
                    "name = \"m\"\nfamily = \"encoder\"\n[encoder]\nprecision = \"{precision}\"\n"
                );
                let source = altered(name, &[("model.toml", Some(toml.as_bytes()))]);
                let (largest, cosine) = differences_of(&engine, name, &source);
                println!("{name}, {precision}, {tokens}: largest {largest:e}, cosine {cosine}");
                assert!(largest < tolerance, "{name}, {precision}: {largest}");
                let is_vector = compared(name) == 0;
                assert!(
                    !is_vector || cosine > cosine_min,
                    "{name}, {precision}: {cosine}"
                );
                let is_exact = precision == "f32";
                assert!(
                    is_exact || largest > TOLERANCE,
                    "{name}: nothing was rounded to {precision}"
                );
            }
        }
    }
}

#[test]
fn scores_and_labels_follow_from_logits() {
    let of = |name: &str| {
        let rows = expected(name);
        let model = load(&source(name));
        (answer(&*model, &request(&rows)), rows)
    };
    let (answer, rows) = of("bert-classes");
    let labels: Vec<_> = answer[2].byte_strings().collect();
    let mut seen = std::collections::BTreeSet::new();
    for (row, (scores, label)) in rows.iter().zip(f32s(&answer[0]).chunks(3).zip(labels)) {
        let sum: f32 = scores.iter().sum();
        assert!((sum - 1.0).abs() < 1e-6, "one class applies: {scores:?}");
        let best = (0..3)
            .max_by(|a, b| row.outputs[*a].total_cmp(&row.outputs[*b]))
            .unwrap();
        assert_eq!(label, ["road", "wind", "bread"][best].as_bytes());
        seen.insert(best);
    }
    assert!(seen.len() > 1, "{seen:?}");
    // Several classes may apply; a pair's score is a probability unless the model says otherwise.
    for (name, outputs) in [("roberta-classes", 4), ("xlm-roberta-pairs", 1)] {
        let (answer, _) = of(name);
        for (score, logit) in f32s(&answer[0]).iter().zip(f32s(&answer[1])) {
            assert!(
                (score - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-6,
                "{name} {outputs}"
            );
        }
    }
    let (answer, _) = of("bert-pairs");
    assert_eq!(answer[0], answer[1], "as its config.json asks");
}
