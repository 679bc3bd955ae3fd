//! all-MiniLM-L6-v2 against known answers, where `scripts/minilm` has fetched it.

use super::*;

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
