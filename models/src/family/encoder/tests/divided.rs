//! Batches whose tokens are divided among threads.

use super::*;
use crate::crew::Crew;
use crate::kernel::{Kernels, Level, Precision};

/// Texts of one token and of many: of the longest that the models read, and of more than pass
/// together.
fn requests() -> Vec<[Tensor; 1]> {
    let lengths = [
        1, 40, 2, 7, 15, 16, 0, 22, 9, 40, 40, 3, 40, 18, 40, 11, 40, 40,
    ];
    let text = |words| "paceline wind rider ".repeat(words).trim().to_owned();
    lengths.map(|words| [texts(&[&text(words)])]).into()
}

#[test]
fn an_answer_does_not_depend_on_who_computes_it() {
    let requests = requests();
    let views: Vec<&[Tensor]> = requests.iter().map(|request| &request[..]).collect();
    let batches = [&views[..], &views[1..2], &views[..3]];
    for name in ["bert", "roberta-classes"] {
        for level in Level::available() {
            for precision in [Precision::F32, Precision::Bf16] {
                let kernels = Kernels::on(level, precision);
                let answers = |threads| {
                    let engine = CpuEngine::new(threads);
                    let engine = engine.with_crew(Some(kernels), Crew::eager(threads));
                    let model = engine.load(&source(name)).unwrap();
                    batches.map(|batch| model.run(&Batch::new(batch)).unwrap())
                };
                let alone = answers(1);
                for threads in [2, 3, 7] {
                    assert!(answers(threads) == alone, "{name} {kernels:?} {threads}");
                }
            }
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn threads_are_started_for_work_that_is_worth_it_and_do_first_what_they_are_told() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    static STARTED: AtomicUsize = AtomicUsize::new(0);
    let request = [texts(&["wind ".repeat(40).as_str()])];
    let run = |engine: CpuEngine| {
        let model = engine.load(&source("bert")).unwrap();
        model.run(&Batch::new(&[&request])).unwrap();
    };
    let begin = || {
        STARTED.fetch_add(1, Ordering::Relaxed);
    };
    // A model of the tests is small.
    run(CpuEngine::new(2).with_threads_that(begin));
    assert_eq!(STARTED.load(Ordering::Relaxed), 0);
    run(CpuEngine::new(2).with_crew(None, Crew::eager_that(2, begin)));
    assert_eq!(STARTED.load(Ordering::Relaxed), 2);
}
