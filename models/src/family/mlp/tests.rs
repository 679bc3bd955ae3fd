//! Golden answers of the examples, and what a batch must not change.

use std::time::Instant;

use paceline_protocol::Tensor;
use proptest::prelude::*;

use crate::folder::tests::{
    DIGITS_LIKE, Entry, example, example_folder, safetensors, with_weights,
};
use crate::{Batch, CpuEngine, Engine, LoadedModel, RunError, warm_up};

/// A table of the examples: rows of numbers, and the last column as text.
fn table(model: &str, file: &str) -> Vec<(Vec<f32>, String)> {
    let text = std::fs::read_to_string(example_folder(model).join(file)).unwrap();
    let row = |line: &str| {
        let (numbers, label) = line.rsplit_once(',').unwrap();
        (
            numbers
                .split(',')
                .map(|number| number.parse().unwrap())
                .collect(),
            label.to_owned(),
        )
    };
    text.lines().skip(1).map(row).collect()
}

fn load(model: &str) -> std::sync::Arc<dyn LoadedModel> {
    CpuEngine::new(1).load(&example(model)).unwrap()
}

fn f32s(tensor: &Tensor) -> Vec<f32> {
    let mut values = Vec::new();
    assert!(tensor.extend_f32(&mut values));
    values
}

/// Every held-out row against the probabilities and labels that numpy computed.
fn hold_to_recorded_answers(name: &str, rows_at_least: usize) {
    let model = load(name);
    let (rows, recorded) = (
        table(name, "held_out.csv"),
        table(name, "held_out_probabilities.csv"),
    );
    assert!(rows.len() >= rows_at_least && rows.len() == recorded.len());
    let mut seen = std::collections::BTreeSet::new();
    for (chunk, recorded) in rows.chunks(100).zip(recorded.chunks(100)) {
        let columns = chunk[0].0.len();
        let inputs: Vec<f32> = chunk
            .iter()
            .flat_map(|(row, _)| row.iter().copied())
            .collect();
        let request = [Tensor::from_f32(columns, &inputs)];
        let answer = model.run(&Batch::new(&[&request])).unwrap().remove(0);
        let got = f32s(&answer[0]);
        let labels: Vec<_> = answer[1].byte_strings().collect();
        let width = recorded[0].0.len();
        for (row, (probabilities, label)) in recorded.iter().enumerate() {
            for (got, wanted) in got[row * width..][..width].iter().zip(probabilities) {
                assert!(
                    (got - wanted).abs() <= 1e-5,
                    "{name} row {row}: {got}, not {wanted}"
                );
            }
            assert_eq!(labels[row], label.as_bytes(), "{name} row {row}");
            seen.insert(label.clone());
        }
    }
    assert!(seen.len() >= 2, "the recorded answers tell nothing apart");
}

#[test]
fn digits_answer_as_recorded() {
    hold_to_recorded_answers("digits", 400);
}

#[test]
fn machine_failures_are_foretold_as_recorded() {
    hold_to_recorded_answers("machine-failure", 200);
}

fn digits_row(seed: usize) -> Vec<f32> {
    (0..64)
        .map(|pixel| ((seed * 31 + pixel * 7) % 17) as f32)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn an_answer_is_the_same_alone_and_in_company(
        sizes in proptest::collection::vec(1usize..9, 1..12),
    ) {
        let model = load("digits");
        let mut seed = 0;
        let requests: Vec<[Tensor; 1]> = sizes.iter().map(|rows| {
            let values: Vec<f32> = (0..*rows).flat_map(|_| { seed += 1; digits_row(seed) }).collect();
            [Tensor::from_f32(64, &values)]
        }).collect();
        let views: Vec<&[Tensor]> = requests.iter().map(|request| &request[..]).collect();
        let together = model.run(&Batch::new(&views)).unwrap();
        prop_assert_eq!(together.len(), requests.len());
        for (request, answer) in requests.iter().zip(&together) {
            prop_assert_eq!(answer[0].rows(), request[0].rows());
            for row in 0..request[0].rows() {
                let single = [request[0].slice_rows(row..row + 1)];
                let alone = model.run(&Batch::new(&[&single])).unwrap().remove(0);
                prop_assert_eq!(&alone[0], &answer[0].slice_rows(row..row + 1));
                prop_assert_eq!(&alone[1], &answer[1].slice_rows(row..row + 1));
            }
        }
    }
}

#[test]
fn a_batch_beyond_what_it_was_loaded_for_is_refused() {
    let model = load("digits");
    let request = [Tensor::from_f32(64, &[0.0; 64 * 257])];
    let refused = model.run(&Batch::new(&[&request]));
    assert_eq!(
        refused,
        Err(RunError::Rows {
            rows: 257,
            rows_max: 256
        })
    );
    let narrow = [Tensor::from_f32(63, &[0.0; 63])];
    let good = [Tensor::from_f32(64, &[0.0; 64])];
    let refused = model
        .run(&Batch::new(&[&good, &narrow]))
        .unwrap_err()
        .to_string();
    assert_eq!(
        refused,
        "request 1 of the batch: pixels must be FP32 [-1,64] of 1 rows, got FP32 [1,63]"
    );
}

fn plain(head: &str, entries: &[Entry<'_>]) -> std::sync::Arc<dyn LoadedModel> {
    let toml = DIGITS_LIKE
        .replace("labels = [\"no\", \"yes\"]", "")
        .replace(
            "[[outputs]]\nname = \"label\"\ndtype = \"BYTES\"\nshape = [-1, 1]\n",
            "",
        )
        .replace("softmax", head)
        .replace("[-1, 64]", "[-1, 2]");
    CpuEngine::new(1)
        .load(&with_weights(&toml, Some(safetensors(entries))))
        .unwrap()
}

#[test]
fn heads_and_layers_do_what_they_say() {
    let one: [Entry<'_>; 2] = [
        ("dense.0.weight", &[2, 2], vec![1.0, 2.0, -3.0, 0.5]),
        ("dense.0.bias", &[2], vec![0.25, -1.0]),
    ];
    let request = [Tensor::from_f32(2, &[2.0, -1.0])];
    let run = |model: &dyn LoadedModel| f32s(&model.run(&Batch::new(&[&request])).unwrap()[0][0]);
    // 2·1 − 1·2 + 0.25, and 2·(−3) − 1·0.5 − 1
    assert_eq!(
        run(&*plain("none", &one)),
        [0.25, -7.5],
        "no activation behind the last layer"
    );
    let sigmoid = run(&*plain("sigmoid", &one));
    assert!(
        (sigmoid[0] - 0.562_176_5).abs() < 1e-6 && sigmoid[1] < 1e-3,
        "{sigmoid:?}"
    );
    let softmax = run(&*plain("softmax", &one));
    assert!(
        (softmax[0] + softmax[1] - 1.0).abs() < 1e-6 && softmax[0] > 0.99,
        "{softmax:?}"
    );

    let [weight, bias] = one;
    let two = [
        ("normalize.mean", &[2usize][..], vec![1.0, -2.0]),
        ("normalize.scale", &[2], vec![0.5, 2.0]),
        weight,
        bias,
        ("dense.1.weight", &[2, 2], vec![1.0, 1.0, 0.0, -1.0]),
        ("dense.1.bias", &[2], vec![0.0, 0.5]),
    ];
    // Normalized to 2 and 0.5; the first layer gives 3.25 and −6.75, relu takes the second.
    assert_eq!(run(&*plain("none", &two)), [3.25, 0.5]);
}

#[test]
fn a_threshold_decides_the_label() {
    let toml = DIGITS_LIKE
        .replace("\"softmax\"", "\"sigmoid\"\nthreshold = 0.7")
        .replace("[-1, 2]", "[-1, 1]")
        .replace("[-1, 64]", "[-1, 1]");
    let entries: [Entry<'_>; 2] = [
        ("dense.0.weight", &[1, 1], vec![1.0]),
        ("dense.0.bias", &[1], vec![0.0]),
    ];
    let source = with_weights(&toml, Some(safetensors(&entries)));
    let model = CpuEngine::new(1).load(&source).unwrap();
    // sigmoid(0.8) = 0.69, sigmoid(0.9) = 0.71
    let request = [Tensor::from_f32(1, &[-5.0, 0.8, 0.9, 5.0])];
    let answer = model.run(&Batch::new(&[&request])).unwrap().remove(0);
    let labels: Vec<_> = answer[1].byte_strings().collect();
    assert_eq!(labels, [&b"no"[..], b"no", b"yes", b"yes"]);
}

/// Threads that a thread starts without naming them inherit its name, so they can be counted.
#[cfg(target_os = "linux")]
pub(crate) fn threads_called(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|task| task.trim_end() == name).count()
}

#[cfg(target_os = "linux")]
#[test]
fn a_large_batch_starts_no_thread() {
    // 256 rows × 1024 hidden: four times what candle's own operations would split.
    let entries: Vec<Entry<'_>> = vec![
        ("dense.0.weight", &[1024, 64], vec![0.01; 1024 * 64]),
        ("dense.0.bias", &[1024], vec![0.0; 1024]),
        ("dense.1.weight", &[2, 1024], vec![0.01; 2048]),
        ("dense.1.bias", &[2], vec![0.0; 2]),
    ];
    let toml = DIGITS_LIKE.replace("rows_max = 16", "rows_max = 256");
    let source = with_weights(&toml, Some(safetensors(&entries)));
    let work = move || {
        let model = CpuEngine::new(1).load(&source).unwrap();
        let request = [Tensor::from_f32(64, &[1.0; 256 * 64])];
        model.run(&Batch::new(&[&request])).unwrap();
        let alone = threads_called("runs-alone");
        // The count sees what it is to see: an unnamed child.
        let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(0);
        let child = std::thread::spawn(move || stopped.recv());
        let with_child = threads_called("runs-alone");
        drop(stop);
        let _ = child.join();
        (alone, with_child)
    };
    let thread = std::thread::Builder::new()
        .name("runs-alone".into())
        .spawn(work)
        .unwrap();
    assert_eq!(thread.join().unwrap(), (1, 2));
}

/// Prints what a run costs here: `cargo test -p paceline-models cost -- --nocapture`.
#[test]
fn the_cost_of_a_batch_is_measured() {
    let model = load("digits");
    let warm = warm_up(&*model).unwrap();
    assert_eq!(warm.rows, 256);
    for rows in [1usize, 4, 32, 256] {
        let values: Vec<f32> = (0..rows).flat_map(digits_row).collect();
        let runs = 2_000 / rows.min(100);
        let mut nanos: Vec<u128> = (0..runs)
            .map(|_| {
                let start = Instant::now();
                let request = [Tensor::from_f32(64, &values)];
                model.run(&Batch::new(&[&request])).unwrap();
                start.elapsed().as_nanos()
            })
            .collect();
        nanos.sort_unstable();
        println!(
            "digits, {rows} rows with their tensor: p50 {} ns, p99 {} ns",
            nanos[runs / 2],
            nanos[runs * 99 / 100]
        );
    }
    println!("{warm:?}");
}

/// The very operations that a GPU runs, in each precision, beside the kernels.
#[test]
fn the_operations_of_a_device_answer_as_the_kernels() {
    let rows: Vec<f32> = (0..64 * 40)
        .map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0)
        .collect();
    for name in ["digits"] {
        let example = example(name);
        let kernels = CpuEngine::new(1).load(&example).unwrap();
        let request = [Tensor::from_f32(64, &rows)];
        let wanted = f32s(&kernels.run(&Batch::new(&[&request])).unwrap()[0][0]);
        for (precision, tolerance) in [("f32", 1e-5), ("f16", 5e-3), ("bf16", 5e-2)] {
            let toml = std::str::from_utf8(example.file("model.toml").unwrap()).unwrap();
            let toml = toml.replace("[mlp]\n", &format!("[mlp]\nprecision = \"{precision}\"\n"));
            assert!(toml.contains(precision));
            let files = example.files().map(|(name, content)| match name {
                "model.toml" => (name.to_owned(), bytes::Bytes::from(toml.clone())),
                _ => (name.to_owned(), content.clone()),
            });
            let model = CpuEngine::new(1)
                .with_reference()
                .load(&crate::ModelSource::from_files(files))
                .unwrap();
            let got = f32s(&model.run(&Batch::new(&[&request])).unwrap()[0][0]);
            let differences = got.iter().zip(&wanted).map(|(a, b)| (a - b).abs());
            let largest = differences.fold(0.0, f32::max);
            println!("{name}, {precision}: largest difference {largest:e}");
            assert!(
                got.len() == wanted.len() && largest < tolerance,
                "{precision}: {largest}"
            );
            assert!(
                precision == "f32" || largest > 1e-6,
                "nothing was rounded to {precision}"
            );
        }
    }
}
