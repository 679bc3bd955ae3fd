//! Exercises of the engine of a GPU, one a run, each with one line of JSON: what `scripts/gpu`
//! calls. Where no GPU can be used, it says so and ends with 3.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use paceline_models::{
    Batch, CpuEngine, CudaEngine, CudaOptions, Engine, LoadedModel, ModelSource, RunError,
};
use paceline_protocol::{Dtype, Shape, Tensor};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const USAGE: &str = "usage: gpu probe | parity MODEL PRECISION | overlap MODEL | \
                     bench MODEL PRECISION TOKENS ROWS | memory MODEL | fault | after-fault";

/// Ends the process where there is no GPU.
const NO_GPU: i32 = 3;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let engine = match CudaEngine::probe(CudaOptions::default()) {
        Ok(engine) => engine,
        Err(error) => {
            eprintln!("no GPU: {error}");
            std::process::exit(NO_GPU);
        }
    };
    match arguments[..] {
        ["probe"] => {
            let gib = engine.device().memory_bytes as f64 / f64::from(1 << 30);
            println!(
                "{{\"name\": \"{}\", \"free_gib\": {gib:.1}}}",
                engine.name()
            );
            Ok(())
        }
        ["parity", model, precision] => parity(&engine, model, precision),
        ["overlap", model] => overlap(&engine, model),
        ["bench", model, precision, tokens, rows] => {
            let (tokens, rows) = (tokens.parse()?, rows.parse()?);
            bench(&engine, &source(model, precision)?, tokens, rows)
        }
        ["memory", model] => memory(&engine, model),
        ["fault"] => fault(&engine),
        // Whatever another process did to the device: here it computes, or the probe had said so.
        ["after-fault"] => {
            println!("{{\"computes\": true}}");
            Ok(())
        }
        _ => Err(USAGE.into()),
    }
}

/// A model's folder, with a `model.toml` of the exercise's.
fn source(model: &str, precision: &str) -> Result<ModelSource, Box<dyn std::error::Error>> {
    let folder = ModelSource::from_dir(Path::new(model))?;
    let mut files: BTreeMap<_, _> = folder
        .files()
        .map(|(name, content)| (name.to_owned(), content.clone()))
        .collect();
    let toml = format!(
        "name = \"exercise\"\nfamily = \"encoder\"\n[batching]\nrows_max = 256\n\
         [encoder]\ninput = \"tokens\"\nprecision = \"{precision}\"\n"
    );
    files.insert("model.toml".into(), toml.into());
    Ok(ModelSource::from_files(files))
}

/// Rows of as many tokens each, drawn from a small vocabulary.
fn request(rows: u64, tokens: u64) -> Result<[Tensor; 2], Box<dyn std::error::Error>> {
    let shape = Shape::new(&[rows, tokens])?;
    let column = |value: &dyn Fn(u64) -> i64| {
        let values = (0..rows * tokens).flat_map(|at| value(at).to_le_bytes());
        Tensor::new(Dtype::Int64, shape, values.collect::<Vec<u8>>().into())
    };
    let id = |at: u64| (at.wrapping_mul(2_654_435_761) >> 7) % 90;
    Ok([column(&|at| 5 + id(at) as i64)?, column(&|_| 1)?])
}

fn answer(model: &dyn LoadedModel, request: &[Tensor]) -> Result<Vec<f32>, RunError> {
    let answers = model.run(&Batch::new(&[request]))?;
    let mut values = Vec::new();
    answers[0][0].extend_f32(&mut values);
    Ok(values)
}

/// The largest difference between the GPU's vectors and the CPU's in f32, over the length of the
/// CPU's, and the smallest cosine; rows of several lengths in one batch.
fn parity(engine: &CudaEngine, model: &str, precision: &str) -> Outcome {
    let gpu = engine.load(&source(model, precision)?)?;
    let cpu = CpuEngine::new(1).load(&source(model, "f32")?)?;
    let lengths = [(3, 1), (4, 7), (8, 16), (5, 20)];
    let requests: Vec<_> = lengths
        .iter()
        .map(|(rows, tokens)| request(*rows, *tokens))
        .collect::<Result<_, _>>()?;
    let views: Vec<&[Tensor]> = requests.iter().map(|request| &request[..]).collect();
    let got = gpu.run(&Batch::new(&views))?;
    let wanted = cpu.run(&Batch::new(&views))?;
    let (mut error, mut cosine, mut rows) = (0f32, 1f32, 0);
    for (got, wanted) in got.iter().zip(&wanted) {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        got[0].extend_f32(&mut a);
        wanted[0].extend_f32(&mut b);
        let width = a.len() / got[0].rows() as usize;
        for (a, b) in a.chunks_exact(width).zip(b.chunks_exact(width)) {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
            error = error.max((dot(&difference, &difference) / dot(b, b)).sqrt());
            cosine = cosine.min(dot(a, b) / (dot(a, a) * dot(b, b)).sqrt());
            rows += 1;
        }
    }
    println!("{{\"rows\": {rows}, \"relative_error\": {error:e}, \"cosine\": {cosine}}}");
    Ok(())
}

/// Two lanes without a pause: what of the copies went on while the batch before computed.
fn overlap(engine: &CudaEngine, model: &str) -> Outcome {
    let model = engine.load(&source(model, "f16")?)?;
    let request = request(256, 20)?;
    answer(&*model, &request)?;
    let before = engine.stage_times();
    std::thread::scope(|scope| {
        let lane = || (0..100).try_for_each(|_| answer(&*model, &request).map(drop));
        let lanes = [scope.spawn(lane), scope.spawn(lane)];
        lanes.into_iter().try_for_each(|lane| {
            lane.join().map_err(|_| RunError::Engine {
                message: "a lane panicked".into(),
            })?
        })
    })?;
    let after = engine.stage_times();
    println!(
        "{{\"passes\": {}, \"overlapped_passes\": {}, \"copy_in_ms\": {}, \"overlapped_ms\": {}, \
         \"compute_ms\": {}, \"copy_out_ms\": {}}}",
        after.passes - before.passes,
        after.overlapped_passes - before.overlapped_passes,
        after.copy_in_ms - before.copy_in_ms,
        after.overlapped_ms - before.overlapped_ms,
        after.compute_ms - before.compute_ms,
        after.copy_out_ms - before.copy_out_ms,
    );
    Ok(())
}

/// One lane, one batch after the other, for three seconds after a warm-up.
fn bench(engine: &CudaEngine, source: &ModelSource, tokens: u64, rows: u64) -> Outcome {
    let model = engine.load(source)?;
    let request = request(rows, tokens)?;
    for _ in 0..10 {
        answer(&*model, &request)?;
    }
    let began = Instant::now();
    let mut took = Vec::new();
    while began.elapsed() < Duration::from_secs(3) {
        let start = Instant::now();
        answer(&*model, &request)?;
        took.push(start.elapsed());
    }
    let rows_per_s = (took.len() as u64 * rows) as f64 / began.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{{\"batches\": {}, \"rows_per_s\": {rows_per_s:.1}, \"p50_ms\": {:.4}, \"p99_ms\": {:.4}}}",
        took.len(),
        at(0.5),
        at(0.99),
    );
    Ok(())
}

/// What the device has free before, with and after a model, and what the engine's account says.
fn memory(engine: &CudaEngine, model: &str) -> Outcome {
    let free = |engine: &CudaEngine| engine.free_bytes();
    let source = source(model, "f32")?;
    // Kernels and workspaces that stay are loaded once before.
    answer(&*engine.load(&source)?, &request(64, 20)?)?;
    let before = free(engine)?;
    let model = engine.load(&source)?;
    answer(&*model, &request(64, 20)?)?;
    let (with, taken) = (free(engine)?, engine.taken_bytes());
    let weights = model.bytes().weights_bytes;
    drop(model);
    let (after, left) = (free(engine)?, engine.taken_bytes());
    println!(
        "{{\"free_before\": {before}, \"free_with\": {with}, \"free_after\": {after}, \
         \"weights\": {weights}, \"account_with\": {taken}, \"account_after\": {left}}}"
    );
    Ok(())
}

/// A sticky error: the engine says that the device is lost, and goes on saying so.
fn fault(engine: &CudaEngine) -> Outcome {
    let first = engine.inject_fault();
    let second = engine.inject_fault();
    let lost = |error: &RunError| matches!(error, RunError::DeviceLost { .. });
    println!(
        "{{\"first_lost\": {}, \"second_lost\": {}, \"message\": \"{first}\"}}",
        lost(&first),
        lost(&second)
    );
    Ok(())
}
