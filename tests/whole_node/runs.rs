//! Each run is a process of its own: statics of libraries (actor ids, tokio's seed counter)
//! begin anew, and a seed names one run and nothing else.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::entropy;
use crate::scenario;

/// In the child: runs the seed of the environment and prints its trace. In a plain test run
/// there is none, and nothing to do.
#[test]
fn child() {
    let Ok(seed) = std::env::var(SEED) else {
        return;
    };
    let seed: u64 = seed.parse().expect("a seed is a number");
    let unseeded = entropy::unseeded();
    let threads = threads();
    if let Ok(filter) = std::env::var(LOG) {
        // On stderr, beside the trace: what a person wants to know of a seed that fails.
        let logs = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .without_time();
        logs.with_writer(std::io::stderr).init();
    }
    let running = std::thread::spawn(move || {
        entropy::seed(seed);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build();
        let ran = runtime.expect("a runtime").block_on(scenario::run(seed));
        (
            ran,
            entropy::drawn(),
            // Fewer are none that leaked: the test's own runner may have ended one.
            self::threads().len() <= threads.len() + 1,
        )
    });
    let ((trace, violations), drawn, alone) = running.join().expect("the run does not panic");
    println!("{BEGIN}{trace}drawn {drawn}");
    for violation in &violations {
        println!("{WRONG}{violation}");
    }
    println!("{END}");
    assert!(alone, "a thread leaked into the run");
    assert_eq!(
        entropy::unseeded(),
        unseeded,
        "somebody drew unseeded entropy"
    );
}

/// What a run printed.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) seed: u64,
    pub(crate) trace: String,
    pub(crate) violations: Vec<String>,
}

impl Ran {
    /// Runs a seed in a fresh process.
    pub(crate) fn new(seed: u64, environment: &[(&str, &str)]) -> Self {
        Self::attempt(seed, environment).unwrap_or_else(|how| panic!("{how}"))
    }

    /// The same; a run that did not come to its end says how.
    pub(crate) fn attempt(seed: u64, environment: &[(&str, &str)]) -> Result<Self, String> {
        let program = std::env::current_exe().expect("this test knows its own path");
        let output = Command::new(program)
            .args(["--exact", "runs::child", "--nocapture", "--test-threads=1"])
            .env(SEED, seed.to_string())
            .envs(environment.iter().copied())
            .output()
            .expect("this test starts once more");
        Self::read(seed, &output)
    }

    fn read(seed: u64, output: &Output) -> Result<Self, String> {
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let whole = text
            .split_once(BEGIN)
            .and_then(|(_, rest)| rest.split_once(END));
        let Some((trace, _)) = whole.filter(|_| output.status.success()) else {
            return Err(format!(
                "seed {seed} did not end well: {}\n{text}\n{errors}",
                output.status
            ));
        };
        let violations = trace.lines().filter_map(|line| line.strip_prefix(WRONG));
        Ok(Self {
            seed,
            trace: trace.to_owned(),
            violations: violations.map(str::to_owned).collect(),
        })
    }

    /// Panics with all that is known if something was wrong.
    pub(crate) fn assert_good(&self) {
        let Self {
            seed,
            trace,
            violations,
        } = self;
        assert!(
            violations.is_empty(),
            "{violations:#?}\nseed {seed}; repeat it with {SEED}={seed} cargo test --test \
             whole_node -- --exact runs::child --nocapture\n{}",
            tail(trace)
        );
    }
}

/// Runs all seeds, two at a time, and hands each to `judge`.
pub(crate) fn all(seeds: std::ops::Range<u64>, judge: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    judge(seed);
                }
            });
        }
    });
}

fn tail(trace: &str) -> String {
    let lines: Vec<&str> = trace.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// Threads of this process.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux shows them");
    let names = tasks.filter_map(|task| task.ok()?.file_name().into_string().ok());
    names.collect()
}

const SEED: &str = "WHOLE_NODE_SEED";
const LOG: &str = "WHOLE_NODE_LOG";
const BEGIN: &str = "== trace\n";
const WRONG: &str = "== wrong: ";
const END: &str = "== end";
const AT_A_TIME: usize = 2;
