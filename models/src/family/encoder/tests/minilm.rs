//! all-MiniLM-L6-v2 against known answers, where `scripts/minilm` has fetched it.

use super::*;
use crate::kernel::{Kernels, Level, Precision};

fn minilm() -> Option<ModelSource> {
    match std::env::var_os("PACELINE_MINILM") {
        Some(folder) => Some(ModelSource::from_dir(std::path::Path::new(&folder)).unwrap()),
        None => {
            println!(
                "skipped: PACELINE_MINILM=$(scripts/minilm) cargo test -p paceline-models minilm"
            );
            None
        }
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Answers of an independent forward pass in numpy, in 32 bits.
fn hold_to_known_answers(engine: &CpuEngine, tolerance: f32) {
    let Some(source) = minilm() else { return };
    let model = engine.load(&source).unwrap();
    assert_eq!(model.description().name.as_str(), "minilm-l6-h384-uncased");
    assert_eq!(model.tokens_max(), Some(256), "not the tokenizer's 128");
    let sentences = [
        "This is an example sentence",
        "Each sentence is converted",
        "That is a happy person",
        "That is a happy dog",
        "That is a very happy person",
        "Today is a sunny day",
    ];
    let request = [texts(&sentences)];
    assert_eq!(
        model.tokens(&[texts(&sentences[..1])]),
        Some(7),
        "not padded"
    );
    let long = "sentence ".repeat(300);
    assert_eq!(model.tokens(&[texts(&[&long])]), Some(256));
    let answer = f32s(&answer(&*model, &request)[0]);
    let vectors: Vec<_> = answer.chunks_exact(384).collect();
    for (got, wanted) in vectors[0]
        .iter()
        .zip([0.067_656_9, 0.063_495_9, 0.048_713_1, 0.079_305])
    {
        assert!((got - wanted).abs() < tolerance, "{got} {wanted}");
    }
    for (a, b, wanted) in [
        (0, 1, 0.404_559),
        (2, 3, 0.694_577),
        (2, 4, 0.942_915),
        (2, 5, 0.256_876),
        (0, 0, 1.0),
    ] {
        let got = cosine(vectors[a], vectors[b]);
        println!("{} / {}: {got}, known {wanted}", sentences[a], sentences[b]);
        assert!((got - wanted).abs() < tolerance, "{got} {wanted}");
    }
}

#[test]
fn minilm_answers_as_known_by_the_reference() {
    hold_to_known_answers(&CpuEngine::new(1).with_reference(), 1e-4);
}

#[test]
fn minilm_answers_as_known_by_the_kernels() {
    for level in Level::available() {
        println!("{level}");
        let kernels = Kernels::on(level, Precision::F32);
        hold_to_known_answers(&CpuEngine::new(1).with_kernels(kernels), 1e-4);
    }
}

/// Whatever the instructions of this machine: each vector points where the reference's does.
#[test]
fn minilm_by_the_kernels_is_that_of_the_reference() {
    let Some(source) = minilm() else { return };
    let reference = CpuEngine::new(1).with_reference().load(&source).unwrap();
    let words = [
        "wind", "the", "rider,", "naïve", "of", "字", "turns", "12.5", "paceline", "!",
    ];
    let mut rows: Vec<String> = (0..40)
        .map(|row| words[row % 10].repeat(row / 10 + 1))
        .collect();
    rows.extend((1..24).map(|row| {
        let word = |place: usize| words[(place * 7 + row * row) % 10];
        (0..row * 11).map(word).collect::<Vec<_>>().join(" ")
    }));
    let request = [texts(&rows.iter().map(String::as_str).collect::<Vec<_>>())];
    let wanted = f32s(&answer(&*reference, &request)[0]);
    // Without vectors it takes a minute, and has been held to known answers above.
    for level in Level::available()
        .into_iter()
        .filter(|it| *it != Level::Plain)
    {
        for (precision, bound) in [(Precision::F32, 0.999_999), (Precision::Bf16, 0.999)] {
            let engine = CpuEngine::new(1).with_kernels(Kernels::on(level, precision));
            let model = engine.load(&source).unwrap();
            let got = f32s(&answer(&*model, &request)[0]);
            let cosines = got.chunks_exact(384).zip(wanted.chunks_exact(384));
            let smallest = cosines.map(|(a, b)| cosine(a, b)).fold(1.0, f32::min);
            println!(
                "{level}, {precision:?}: smallest cosine {smallest} of {} texts",
                rows.len()
            );
            assert!(smallest > bound, "{level}, {precision:?}: {smallest}");
        }
    }
}
