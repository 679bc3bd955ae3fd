//! Batches whose tokens are divided among threads.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

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
    // Of many tokens, and of few.
    let batches = [&views[..], &views[1..2], &views[..3]];
    for name in ["bert", "roberta-classes"] {
        for level in Level::available() {
            for precision in [Precision::F32, Precision::Bf16] {
                let kernels = Kernels::on(level, precision);
                let answers = |threads| {
                    let crew = Crew::eager(threads, || {});
                    let engine = CpuEngine::new(threads).with_crew(Some(kernels), crew);
                    let model = engine.load(&source(name)).unwrap();
                    batches.map(|requests| {
                        let batch = Batch::new(requests).among(threads as u32);
                        let answers = model.run(&batch).unwrap();
                        assert_eq!(batch.threads(), threads as u32);
                        answers
                    })
                };
                let alone = answers(1);
                for threads in [2, 3, 7] {
                    assert!(answers(threads) == alone, "{name} {kernels:?} {threads}");
                }
            }
        }
    }
}

#[test]
fn threads_are_started_for_work_that_is_worth_it_and_do_first_what_they_are_told() {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let begin = || {
        STARTED.fetch_add(1, Ordering::Relaxed);
    };
    let request = [texts(&["wind ".repeat(40).as_str()])];
    let run = |engine: CpuEngine, threads| {
        let model = engine.load(&source("bert")).unwrap();
        let requests: [&[Tensor]; 1] = [&request];
        let batch = Batch::new(&requests).among(threads);
        model.run(&batch).unwrap();
        batch.threads()
    };
    // A model of the tests is small; a batch that may not be divided is not; nor is there anybody.
    let alone = [
        run(CpuEngine::new(3).with_threads_that(begin), 3),
        run(CpuEngine::new(3).with_crew(None, Crew::eager(3, begin)), 1),
        run(CpuEngine::new(1).with_crew(None, Crew::eager(1, begin)), 3),
    ];
    assert_eq!((alone, STARTED.load(Ordering::Relaxed)), ([1; 3], 0));
    let engine = CpuEngine::new(3).with_crew(None, Crew::eager(3, begin));
    assert_eq!(run(engine, 3), 3);
    let until = Instant::now() + Duration::from_secs(20);
    while STARTED.load(Ordering::Relaxed) < 3 {
        assert!(Instant::now() < until, "its threads");
        std::thread::sleep(Duration::from_millis(1));
    }
}
