//! What the kernels of text encoders reach: operations a second of each, on every level of this
//! machine, and with `--encoder` the time of the layers of MiniLM (6 layers, 384 wide, 12 heads, 1536
//! between) with random weights.
//!
//! One thread. Times are those of the processor where the system tells them, else of the clock.
//! `scripts/beside-onnxruntime` runs this with `--answer` beside onnxruntime.

#[path = "kernels/encoder.rs"]
mod encoder;
mod provenance;
mod spread;

use std::io::{BufRead, Write};
use std::time::Instant;

use clap::Parser;
use paceline_models::kernel::{
    Kernels, Level, Linear, Norm, Precision, Scratch, Sequences, Then, attention, layer_norm,
};

use encoder::{Encoder, HEADS, INNER, WIDTH, noise};
use provenance::SEED;
use spread::Spread;

/// Measures the kernels of text encoders.
#[derive(Debug, Parser)]
struct Arguments {
    /// A few samples: shows that everything works, and no more.
    #[arg(long)]
    quick: bool,
    /// Measures the layers of an encoder instead of each kernel.
    #[arg(long)]
    encoder: bool,
    /// For each line `PRECISION TOKENS BATCH RUNS` of stdin, runs the encoder so often and prints the
    /// seconds that each run took.
    #[arg(long)]
    answer: bool,
    /// Given by `cargo bench`, and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.answer {
        return answer();
    }
    let samples = match arguments.quick || !arguments.bench {
        true => 3,
        false => 31,
    };
    if arguments.encoder {
        provenance::print("kernels: the layers of MiniLM, milliseconds a sentence");
        encoders(samples);
    } else {
        provenance::print("kernels: GFLOP/s");
        for level in Level::available() {
            for precision in [Precision::F32, Precision::Bf16] {
                kernels(Kernels::on(level, precision), samples);
            }
        }
    }
    Ok(())
}

/// Each kernel with the shapes of MiniLM, over 16 rows and over 128.
fn kernels(kernels: Kernels, samples: u64) {
    let linears = [
        ("queries, keys, values", WIDTH, 3 * WIDTH, Then::Nothing),
        ("out of attention", WIDTH, WIDTH, Then::Add),
        ("up, GELU", WIDTH, INNER, Then::Gelu),
        ("down", INNER, WIDTH, Then::Add),
    ];
    let mut scratch = Scratch::new();
    for rows in [16, 128] {
        let name = |kernel: &str| format!("{kernels} {rows:>3} rows  {kernel}");
        for (kernel, inputs, outputs, then) in linears {
            let weight = noise(inputs * outputs, SEED);
            let layer = Linear::new(kernels, &weight, &noise(outputs, SEED), inputs);
            let (input, mut output) = (noise(rows * inputs, SEED), vec![0.0; rows * outputs]);
            let seconds = seconds_each(samples, 5e-3, || {
                layer.run(&input, &mut output, then, &mut scratch);
            });
            let operations = 2 * rows * inputs * outputs;
            print_rate(&name(kernel), &seconds, operations as f64);
        }
        let (qkv, mut output) = (noise(rows * 3 * WIDTH, SEED), vec![0.0; rows * WIDTH]);
        let sequences = Sequences {
            qkv: &qkv,
            lengths: &[rows as u32],
            heads: HEADS,
        };
        let seconds = seconds_each(samples, 5e-3, || {
            attention(kernels, sequences, 0..rows, &mut output, &mut scratch);
        });
        let operations = 4 * rows * rows * WIDTH;
        print_rate(&name("attention"), &seconds, operations as f64);
        let (mut values, ones) = (noise(rows * WIDTH, SEED), vec![1.0; WIDTH]);
        let norm = Norm {
            weight: &ones,
            bias: &ones,
            eps: 1e-12,
        };
        let seconds = seconds_each(samples, 5e-3, || {
            layer_norm(kernels, &mut values, None, norm);
        });
        // A sum, a distance, its square and its sum, and four to normalise.
        let operations = 8 * rows * WIDTH;
        print_rate(&name("normalisation"), &seconds, operations as f64);
    }
}

fn print_rate(name: &str, seconds: &Spread, operations: f64) {
    let rate = |seconds: f64| operations / seconds / 1e9;
    let [slow, fast] = [0.95, 0.05].map(|share| rate(seconds.quantile(share)));
    let median = rate(seconds.median());
    println!("{name:<48} {median:>8.1}   (p95 {slow:>7.1}, p5 {fast:>7.1})");
}

fn encoders(samples: u64) {
    for level in Level::available() {
        for precision in [Precision::F32, Precision::Bf16] {
            let kernels = Kernels::on(level, precision);
            let mut encoder = Encoder::new(kernels);
            println!("{kernels}: {:.1} MB", encoder.bytes() as f64 / 1e6);
            for (tokens, batch) in encoder::SHAPES {
                let seconds = seconds_each(samples, 2e-2, || encoder.run(tokens, batch));
                let [p50, p95] = [seconds.median(), seconds.quantile(0.95)].map(|it| it * 1e3);
                let each = batch as f64;
                println!(
                    "  {tokens:>3} tokens x {batch}   p50 {:>8.3}   p95 {:>8.3}",
                    p50 / each,
                    p95 / each
                );
            }
        }
    }
}

/// Runs what stdin says, so that a script can run something else in between.
fn answer() -> anyhow::Result<()> {
    let kernels = |precision| Kernels::new(precision);
    let mut encoders = [
        ("f32", Encoder::new(kernels(Precision::F32)?)),
        ("bf16", Encoder::new(kernels(Precision::Bf16)?)),
    ];
    let mut stdout = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let &[name, tokens, batch, runs] = &words[..] else {
            anyhow::bail!("{line:?} is not PRECISION TOKENS BATCH RUNS");
        };
        let (tokens, batch): (usize, usize) = (tokens.parse()?, batch.parse()?);
        let runs: u32 = runs.parse()?;
        let found = encoders.iter_mut().find(|(known, _)| *known == name);
        let Some((_, encoder)) = found else {
            anyhow::bail!("{name:?} is neither f32 nor bf16");
        };
        let started = Clock::now();
        (0..runs).for_each(|_| encoder.run(tokens, batch));
        writeln!(stdout, "{}", started.seconds() / f64::from(runs))?;
        stdout.flush()?;
    }
    Ok(())
}

/// Samples of how long `work` takes, each over as many runs as take `least` seconds.
fn seconds_each(samples: u64, least: f64, mut work: impl FnMut()) -> Spread {
    let started = Clock::now();
    let mut runs = 0;
    while started.seconds() < least || runs == 0 {
        work();
        runs += 1;
    }
    Spread::of((0..samples).map(|_| {
        let started = Clock::now();
        (0..runs).for_each(|_| work());
        started.seconds() / f64::from(runs)
    }))
}

/// When something began, by this thread's time on the processor or, where that is not told, by the
/// clock.
struct Clock {
    on_processor_ns: Option<u64>,
    at: Instant,
}

impl Clock {
    fn now() -> Self {
        Self {
            on_processor_ns: on_processor_ns(),
            at: Instant::now(),
        }
    }

    fn seconds(&self) -> f64 {
        match (self.on_processor_ns, on_processor_ns()) {
            (Some(before), Some(now)) => (now - before) as f64 / 1e9,
            _ => self.at.elapsed().as_secs_f64(),
        }
    }
}

fn on_processor_ns() -> Option<u64> {
    // The system brings its account up to date when it may give the processor to somebody else.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok()
}
