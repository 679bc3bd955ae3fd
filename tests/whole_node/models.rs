//! The models of a world: registers of the registry, and something to ask for inference.

use std::sync::LazyLock;

use paceline_models::{Engine, ModelSource, StubEngine};
use paceline_protocol::{Signature, Tensor};

use crate::engine::COLUMNS;

/// Models that have a replica on each node. Their deployments are the registers.
pub(crate) const REGISTERS: [&str; 4] = ["a", "b", "c", "d"];
/// A model with one replica: two nodes of three ask the third for it.
pub(crate) const LONE: &str = "e";
/// All models.
pub(crate) const MODELS: [&str; 5] = ["a", "b", "c", "d", LONE];

/// A model's artifact, as `NodeHandle::install` wants it.
pub(crate) fn files(model: &str) -> &'static [(&'static str, &'static [u8])] {
    let position = MODELS.iter().position(|name| *name == model);
    &FILES[position.expect("one of them")..][..1]
}

/// What the model answers to a row, whoever runs it, in whichever batch.
pub(crate) fn answer_to(row: [f32; COLUMNS]) -> Vec<f32> {
    let request = [Tensor::from_f32(COLUMNS, &row)];
    let answer = StubEngine::answer_to(&SIGNATURE, &request).expect("it fits into memory");
    let mut values = Vec::new();
    answer[0].extend_f32(&mut values);
    values
}

static SIGNATURE: LazyLock<Signature> = LazyLock::new(|| {
    let toml = bytes::Bytes::from_static(FILES[0].1);
    let source = ModelSource::from_files([("model.toml".to_owned(), toml)]);
    let model = StubEngine::default().load(&source).expect("it is a model");
    model.description().signature.clone()
});

static FILES: [(&str, &[u8]); 5] = [
    ("model.toml", include_bytes!("a.toml")),
    ("model.toml", include_bytes!("b.toml")),
    ("model.toml", include_bytes!("c.toml")),
    ("model.toml", include_bytes!("d.toml")),
    ("model.toml", include_bytes!("e.toml")),
];
