//! The golden answer of a loaded model: whether it computes what it computed when it was new, and what
//! it computed where it was pushed.
//!
//! An engine whose memory or device is damaged goes on answering, in time and without an error.
//! That is only seen by asking something whose answer is known. So the known row is part of what a
//! version is: releases must not change it.

use paceline_protocol::{Dtype, Tensor, TensorSpec};

use crate::batch::Batch;
use crate::engine::{LoadedModel, RunError};
use crate::warm_up::{check_answers, shape, too_large};

/// A row of known numbers, and what a version answered to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Canary {
    inputs: Vec<Tensor>,
    golden: Vec<Tensor>,
}

/// What a canary found.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CanaryError {
    /// The model does not answer it at all.
    #[error(transparent)]
    Run(#[from] RunError),
    /// It answers something else than where its version was pushed.
    #[error("the answer to a known row is not what it was where the version was pushed: {how}")]
    Elsewhere {
        /// In numbers.
        how: String,
    },
    /// It answers something else than before.
    #[error(
        "output '{output}' of a known row is not what it was: element {element} is {got}, it was {golden}"
    )]
    Changed {
        /// The tensor.
        output: String,
        /// Its first element that differs.
        element: usize,
        /// What it is now.
        got: String,
        /// What it was.
        golden: String,
    },
}

impl Canary {
    /// Asks a model that is new, twice: an answer that does not repeat itself is no golden one.
    /// Cost: two runs of one row.
    ///
    /// # Errors
    /// [`CanaryError`].
    pub fn take(model: &dyn LoadedModel) -> Result<Self, CanaryError> {
        let inputs = match model.sample(1) {
            Some(sample) => sample,
            None => {
                let specs = model.description().signature.inputs.iter();
                specs.map(known_row).collect::<Result<_, _>>()?
            }
        };
        let golden = ask(model, &inputs)?;
        let canary = Self { inputs, golden };
        canary.check(model)?;
        Ok(canary)
    }

    /// Asks again. Floats may differ by a thousandth of the output's largest number, those of 16
    /// bits by a sixty-fourth: another device may add in another order. All else must be equal.
    /// Cost: a run of one row.
    ///
    /// # Errors
    /// [`CanaryError::Changed`] names the first element that differs.
    pub fn check(&self, model: &dyn LoadedModel) -> Result<(), CanaryError> {
        let answer = ask(model, &self.inputs)?;
        let specs = &model.description().signature.outputs;
        for ((got, golden), spec) in answer.iter().zip(&self.golden).zip(specs) {
            compare(spec, got, golden)?;
        }
        Ok(())
    }
}

impl Canary {
    /// Up to 64 numbers of the golden answer, spread over all, as bits of bfloat16: what other
    /// nodes are held to. None of an answer without floats, or with some that are not finite.
    pub fn golden(&self) -> Vec<u16> {
        let numbers: Vec<f64> = self.golden.iter().flat_map(floats).collect();
        let step = numbers.len().div_ceil(GOLDEN_MAX).max(1);
        let some = numbers
            .iter()
            .step_by(step)
            .map(|it| half::bf16::from_f64(*it));
        let some: Vec<_> = some.collect();
        match some.iter().all(|number| number.is_finite()) {
            true => some.into_iter().map(half::bf16::to_bits).collect(),
            false => Vec::new(),
        }
    }

    /// Holds the golden answer to that of another node. The length of their difference may be a
    /// tenth of the other's, or of a vector of tenths if that is longer: another device, or the same
    /// version in bfloat16, rounds otherwise, and one that is broken is nowhere near.
    ///
    /// # Errors
    /// [`CanaryError::Elsewhere`].
    pub fn agrees_with(&self, golden: &[u16]) -> Result<(), CanaryError> {
        let own = self.golden();
        let differs = |how| Err(CanaryError::Elsewhere { how });
        if own.len() != golden.len() {
            let (own, golden) = (own.len(), golden.len());
            return differs(format!("{own} numbers that are finite, it was {golden}"));
        }
        let number = |bits: &u16| half::bf16::from_bits(*bits).to_f64();
        let length = |numbers: &mut dyn Iterator<Item = f64>| {
            numbers.map(|number| number * number).sum::<f64>().sqrt()
        };
        let pairs = own.iter().zip(golden);
        let apart = length(&mut pairs.map(|(own, golden)| number(own) - number(golden)));
        let known = length(&mut golden.iter().map(number));
        let least = GOLDEN_ERROR * (golden.len() as f64).sqrt();
        let allowed = GOLDEN_ERROR * known.max(least);
        match apart <= allowed {
            true => Ok(()),
            false => differs(format!("it is {apart:.3} away, {allowed:.3} is allowed")),
        }
    }
}

/// The floats of a tensor; none of one that holds something else.
fn floats(tensor: &Tensor) -> impl Iterator<Item = f64> {
    let dtype = tensor.dtype();
    let elements = tensor
        .data()
        .chunks_exact(dtype.element_bytes().unwrap_or(1));
    elements.map_while(move |bytes| dtype.float(bytes))
}

fn ask(model: &dyn LoadedModel, inputs: &[Tensor]) -> Result<Vec<Tensor>, CanaryError> {
    let requests = [inputs];
    let mut answers = model.run(&Batch::new(&requests))?;
    check_answers(&answers, &model.description().signature.outputs, 1)?;
    Ok(answers.pop().expect("checked: one answer"))
}

/// One row: floats between -1 and 1, zeros and ones of other numbers, which are in every
/// vocabulary, and a word.
fn known_row(spec: &TensorSpec) -> Result<Tensor, RunError> {
    let shape = shape(spec, 1)?;
    let mut data = Vec::new();
    for element in 0..shape.elements() {
        let float = ((element * 7 + 3) % 17) as f64 / 8.5 - 1.0;
        match spec.dtype {
            _ if spec.dtype.push_float(float, &mut data) => {}
            Dtype::Bytes => {
                data.extend((WORD.len() as u32).to_le_bytes());
                data.extend(WORD);
            }
            _ => {
                let size = spec.dtype.element_bytes().unwrap_or(1);
                data.push((element % 2) as u8);
                data.extend(std::iter::repeat_n(0, size - 1));
            }
        }
    }
    Tensor::new(spec.dtype, shape, data.into()).map_err(|_| too_large(spec, 1))
}

fn compare(spec: &TensorSpec, got: &Tensor, golden: &Tensor) -> Result<(), CanaryError> {
    let changed = |element: usize, got: String, golden: String| {
        Err(CanaryError::Changed {
            output: spec.name.clone(),
            element,
            got,
            golden,
        })
    };
    if got.shape() != golden.shape() {
        return changed(0, got.shape().to_string(), golden.shape().to_string());
    }
    let tolerance = match spec.dtype {
        Dtype::Fp32 | Dtype::Fp64 => 1e-3,
        Dtype::Fp16 | Dtype::Bf16 => 1.0 / 64.0,
        _ => {
            let bytes = got.data().iter().zip(golden.data());
            let size = spec.dtype.element_bytes().unwrap_or(1);
            return match got.data() == golden.data() {
                true => Ok(()),
                false => changed(
                    bytes.take_while(|(got, golden)| got == golden).count() / size,
                    "different".to_owned(),
                    "the known one".to_owned(),
                ),
            };
        }
    };
    let size = spec.dtype.element_bytes().unwrap_or(1);
    let floats = |tensor: &Tensor| -> Vec<f64> {
        let elements = tensor.data().chunks_exact(size);
        elements
            .map(|bytes| spec.dtype.float(bytes).unwrap_or(f64::NAN))
            .collect()
    };
    let (got, golden) = (floats(got), floats(golden));
    let finite = golden.iter().filter(|value| value.is_finite());
    let largest = finite.fold(0.0f64, |largest, value| largest.max(value.abs()));
    let close = |a: f64, b: f64| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * largest
    };
    match (got.iter().zip(&golden)).position(|(got, golden)| !close(*got, *golden)) {
        None => Ok(()),
        Some(element) => changed(
            element,
            got[element].to_string(),
            golden[element].to_string(),
        ),
    }
}

const WORD: &[u8] = b"canary";
/// Numbers of a golden answer that are kept with a version.
const GOLDEN_MAX: usize = 64;
/// Some twenty times what bfloat16 changed of a text's vector (MiniLM, cosine 0.999986).
const GOLDEN_ERROR: f64 = 0.1;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::engine::MemoryUse;
    use crate::folder::ModelDescription;
    use crate::folder::tests::{IDENTITY, example, only_toml};
    use crate::{CpuEngine, Engine};

    /// Answers with its input plus so many thousandths.
    struct Drifting {
        description: ModelDescription,
        thousandths: AtomicU32,
    }

    impl LoadedModel for Drifting {
        fn description(&self) -> &ModelDescription {
            &self.description
        }
        fn run(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Tensor>>, RunError> {
            let drift = self.thousandths.load(Ordering::Relaxed) as f32 / 1e3;
            let drifted = |inputs: &&[Tensor]| {
                let mut values = Vec::new();
                inputs[0].extend_f32(&mut values);
                let values: Vec<f32> = values.iter().map(|value| value + drift).collect();
                vec![Tensor::from_f32(values.len(), &values)]
            };
            Ok(batch.requests().iter().map(drifted).collect())
        }
        fn bytes(&self) -> MemoryUse {
            MemoryUse::default()
        }
    }

    #[test]
    fn an_answer_that_drifts_is_told_with_its_place_and_rounding_is_not() {
        let folder = only_toml(IDENTITY);
        let honest = CpuEngine::new(1).load(&folder).unwrap();
        let model = Drifting {
            description: honest.description().clone(),
            thousandths: AtomicU32::new(0),
        };
        let canary = Canary::take(&model).unwrap();
        assert_eq!(canary.check(&model), Ok(()));
        model.thousandths.store(3, Ordering::Relaxed);
        let error = canary.check(&model).unwrap_err();
        let CanaryError::Changed {
            output, element: 0, ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(*output, honest.description().signature.outputs[0].name);
        assert!(error.to_string().contains("is not what it was"), "{error}");
        // Less than a thousandth of the largest.
        let near = model.run(&Batch::new(&[&canary.inputs])).unwrap().remove(0);
        let mut golden = Vec::new();
        canary.golden[0].extend_f32(&mut golden);
        let rounded: Vec<f32> = golden.iter().map(|value| value * 1.0005).collect();
        let spec = &honest.description().signature.outputs[0];
        let rounded = Tensor::from_f32(rounded.len(), &rounded);
        assert_eq!(compare(spec, &rounded, &canary.golden[0]), Ok(()));
        assert!(compare(spec, &near[0], &canary.golden[0]).is_err());
    }

    #[test]
    fn every_family_and_datatype_answers_it_alike_each_time() {
        let digits = CpuEngine::new(1).load(&example("digits")).unwrap();
        let canary = Canary::take(&*digits).unwrap();
        let again = CpuEngine::new(1).load(&example("digits")).unwrap();
        assert_eq!(canary.check(&*again), Ok(()));
        for dtype in Dtype::ALL {
            let toml = IDENTITY.replace("FP32", dtype.name());
            let model = CpuEngine::new(1).load(&only_toml(&toml)).unwrap();
            let canary = Canary::take(&*model).unwrap();
            assert_eq!(canary.check(&*model), Ok(()), "{dtype}");
            assert_eq!(canary.inputs, canary.golden);
        }
    }

    #[test]
    fn another_nodes_answer_may_be_rounded_and_not_another() {
        let digits = CpuEngine::new(1).load(&example("digits")).unwrap();
        let canary = Canary::take(&*digits).unwrap();
        let golden = canary.golden();
        assert_eq!(golden.len(), 10, "probabilities, and no label");
        let moved = |by: fn(f32) -> f32| -> Vec<u16> {
            let numbers = golden
                .iter()
                .map(|bits| half::bf16::from_bits(*bits).to_f32());
            numbers
                .map(|number| half::bf16::from_f32(by(number)).to_bits())
                .collect()
        };
        assert_eq!(canary.agrees_with(&golden), Ok(()));
        assert_eq!(canary.agrees_with(&moved(|number| number * 1.05)), Ok(()));
        // Beside numbers that are next to nothing, what rounds them is not.
        assert_eq!(canary.agrees_with(&moved(|number| number + 0.005)), Ok(()));
        for wrong in [
            moved(|number| number + 0.1),
            moved(|_| 0.0),
            vec![],
            golden[1..].to_vec(),
        ] {
            let error = canary.agrees_with(&wrong).unwrap_err();
            assert!(
                error.to_string().contains("where the version was pushed"),
                "{error}"
            );
        }
        let words = IDENTITY.replace("FP32", "BYTES");
        let words = CpuEngine::new(1).load(&only_toml(&words)).unwrap();
        let canary = Canary::take(&*words).unwrap();
        assert_eq!((canary.golden(), canary.agrees_with(&[])), (vec![], Ok(())));
    }

    #[test]
    fn a_long_answer_is_kept_in_part() {
        let wide = IDENTITY.replace("[-1, -1]", "[-1, 1000]");
        let wide = CpuEngine::new(1).load(&only_toml(&wide)).unwrap();
        let canary = Canary::take(&*wide).unwrap();
        assert!((33..=GOLDEN_MAX).contains(&canary.golden().len()));
    }

    #[test]
    fn what_is_not_a_number_must_be_equal() {
        let toml = IDENTITY.replace("FP32", "INT64");
        let model = CpuEngine::new(1).load(&only_toml(&toml)).unwrap();
        let canary = Canary::take(&*model).unwrap();
        let spec = &model.description().signature.outputs[0];
        let golden = &canary.golden[0];
        let mut data = golden.data().to_vec();
        data[0] ^= 1;
        let other = Tensor::new(Dtype::Int64, *golden.shape(), data.into()).unwrap();
        assert!(compare(spec, &other, golden).is_err());
        assert_eq!(compare(spec, golden, golden), Ok(()));
    }
}
