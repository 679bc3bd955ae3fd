//! The device's driver with real lanes and the scripted engine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use paceline_core::batcher::Policy;
use paceline_core::cost::CostFit;
use paceline_models::{CostCurve, Engine, ModelSource, StubEngine};

use super::*;
use crate::telemetry::metrics::Metrics;

const MODEL: &str = r#"
name = "stub"
family = "identity"
[[inputs]]
name = "INPUT0"
dtype = "FP32"
shape = [-1, 2]
[[outputs]]
name = "OUTPUT0"
dtype = "FP32"
shape = [-1, 2]
[batching]
rows_max = 8
"#;

struct Bench {
    engine: StubEngine,
    model: Arc<dyn LoadedModel>,
    device: Handle,
    clock: Clock,
    attachment: Option<Attachment>,
    panics: Arc<AtomicUsize>,
}

impl Bench {
    /// A device whose engine takes `fixed_us` a batch, with one ready replica.
    fn new(lanes: u16, fixed_us: u64) -> Self {
        let engine = StubEngine::new(CostCurve {
            fixed_us,
            per_row_us: 0,
        });
        let toml = bytes::Bytes::from_static(MODEL.as_bytes());
        let source = ModelSource::from_files([("model.toml".to_owned(), toml)]);
        let model = engine.load(&source).unwrap();
        let clock = Clock::start();
        let (lanes, metrics) = ((lanes, Threads::Own), Metrics::new().device());
        let device = Handle::start(lanes, clock, metrics, &Records::default()).unwrap();
        let panics = Arc::new(AtomicUsize::new(0));
        let counter = panics.clone();
        let nanos = fixed_us * 1_000;
        let attachment = device.attach(Loaded {
            replica: ReplicaId(7),
            model: model.clone(),
            options: Options {
                rows_max: 8,
                tokens_max: 0,
                policy: Policy::default(),
                cost: CostFit::from_warm_up(nanos, 8, nanos),
            },
            statistics: Arc::default(),
            suspects: Arc::default(),
            on_death: Arc::new(move |_| {
                counter.fetch_add(1, Ordering::SeqCst);
            }),
        });
        Self {
            engine,
            model,
            device,
            clock,
            attachment: Some(attachment),
            panics,
        }
    }

    fn submit(&self, values: &[f32], budget_ms: u64) -> (Tensor, Submission) {
        let tensor = Tensor::from_f32(2, values);
        let work = Work {
            batcher: BatcherId(0),
            rows: tensor.rows() as u32,
            bytes: 8,
            inputs: vec![tensor.clone()],
            deadline: self.clock.now() + Duration::from_millis(budget_ms),
            criticality: paceline_protocol::Criticality::default(),
            tenant: TenantId::DEFAULT,
            is_second: false,
            reading: Default::default(),
        };
        (tensor, self.device.submit(work))
    }

    fn expected(&self, input: &Tensor) -> Vec<Tensor> {
        let signature = &self.model.description().signature;
        StubEngine::answer_to(signature, std::slice::from_ref(input)).unwrap()
    }
}

fn ran(end: End) -> Ran {
    match end {
        End::Ran(ran) => ran,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_cheap_request_has_run_when_it_was_submitted() {
    let bench = Bench::new(1, 0);
    let (input, mut submission) = bench.submit(&[1.0, 2.0], 1_000);
    let ran = ran(submission.try_end().expect("it runs in place"));
    assert_eq!(ran.outputs, bench.expected(&input));
    assert_eq!(ran.batch_rows, 1);
}

#[tokio::test]
async fn requests_that_wait_share_batches_and_get_their_own_answers() {
    let bench = Bench::new(1, 20_000);
    let requests: Vec<_> = (0..40)
        .map(|n| bench.submit(&[n as f32, 0.0], 60_000))
        .collect();
    let mut largest = 0;
    for (input, submission) in requests {
        let ran = ran(submission.await);
        assert_eq!(ran.outputs, bench.expected(&input));
        largest = largest.max(ran.batch_rows);
    }
    assert_eq!(largest, 8, "full batches were formed");
    assert!(
        bench.engine.script().batches() <= 7,
        "{}",
        bench.engine.script().batches()
    );
}

#[tokio::test]
async fn a_request_whose_caller_has_gone_is_not_computed() {
    let bench = Bench::new(1, 50_000);
    let (_, first) = bench.submit(&[0.0, 0.0], 10_000);
    // The lane's thread takes the first; the others wait behind it.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let waiting: Vec<_> = (0..5)
        .map(|n| bench.submit(&[n as f32, 0.0], 10_000))
        .collect();
    let (_, queued) = bench.device.occupancy();
    assert_eq!(queued, 5);
    drop(waiting);
    assert_eq!(bench.device.occupancy().1, 0);
    ran(first.await);
    let (_, last) = bench.submit(&[9.0, 9.0], 10_000);
    ran(last.await);
    assert_eq!(
        bench.engine.script().batches(),
        2,
        "only the first and the last ran"
    );
}

#[tokio::test]
async fn a_request_that_expires_while_it_waits_is_told_so() {
    let bench = Bench::new(1, 80_000);
    let (_, first) = bench.submit(&[0.0, 0.0], 10_000);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let (_, late) = bench.submit(&[1.0, 0.0], 5);
    tokio::time::sleep(Duration::from_millis(10)).await;
    bench.device.expire();
    assert!(matches!(late.await, End::Dropped(DropReason::Expired, _)));
    ran(first.await);
}

#[tokio::test]
async fn an_engine_that_fails_or_panics_ends_its_batch_and_nothing_else() {
    let bench = Bench::new(1, 0);
    bench.engine.script().panic_run(1);
    match bench.submit(&[1.0, 1.0], 1_000).1.await {
        End::Died(failure, inputs) => {
            assert!(failure.message.contains("died"), "{failure}");
            assert!(!inputs.is_empty(), "they can be tried elsewhere");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.panics.load(Ordering::SeqCst), 1);
    bench.engine.script().fail_run(1);
    assert!(matches!(
        bench.submit(&[1.0, 1.0], 1_000).1.await,
        End::Failed(..)
    ));
    assert_eq!(
        bench.panics.load(Ordering::SeqCst),
        1,
        "a failure is not a panic"
    );
    ran(bench.submit(&[1.0, 1.0], 1_000).1.await);
}

#[tokio::test]
async fn a_replica_that_goes_finishes_what_runs_and_gives_back_what_waits() {
    let mut bench = Bench::new(1, 50_000);
    let (_, running) = bench.submit(&[0.0, 0.0], 10_000);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let (input, waiting) = bench.submit(&[1.0, 0.0], 10_000);
    drop(bench.attachment.take());
    match waiting.await {
        End::Dropped(DropReason::Gone, inputs) => assert_eq!(inputs, [input]),
        other => panic!("{other:?}"),
    }
    ran(running.await);
    let (_, late) = bench.submit(&[1.0, 0.0], 10_000);
    assert!(matches!(late.await, End::Dropped(DropReason::Gone, _)));
}

#[tokio::test]
async fn a_node_that_leaves_ends_what_runs_and_what_waits_and_may_come_back() {
    let bench = Bench::new(1, 300_000);
    let (_, running) = bench.submit(&[0.0, 0.0], 10_000);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let (input, waiting) = bench.submit(&[1.0, 0.0], 10_000);
    let closed_at = std::time::Instant::now();
    bench.device.close();
    match running.await {
        End::Left(failure) => {
            assert_eq!(failure.code, ErrorCode::ShuttingDown);
            assert!(failure.code.is_retryable());
        }
        other => panic!("{other:?}"),
    }
    let gone = |end: End, input: &Tensor| match end {
        End::Dropped(DropReason::Gone, inputs) => assert_eq!(&inputs[0], input),
        other => panic!("{other:?}"),
    };
    gone(waiting.await, &input);
    assert!(closed_at.elapsed() < Duration::from_millis(250), "at once");
    let (input, refused) = bench.submit(&[2.0, 0.0], 10_000);
    gone(refused.await, &input);
    bench.device.open();
    ran(bench.submit(&[3.0, 0.0], 10_000).1.await);
    assert_eq!(bench.engine.script().batches(), 2, "one before, one after");
}

/// Many callers from many threads, cheap and dear batches, some cancelled: every one that is
/// not cancelled gets its own answer, and nothing is left behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_from_many_threads_get_their_own_answers() {
    for fixed_us in [0, 300] {
        let bench = Arc::new(Bench::new(2, fixed_us));
        let callers: Vec<_> = (0..16)
            .map(|caller| {
                let bench = bench.clone();
                tokio::spawn(async move {
                    let mut answered = 0;
                    for n in 0..60 {
                        let (input, submission) = bench.submit(&[caller as f32, n as f32], 30_000);
                        if n % 7 == 3 {
                            drop(submission);
                            continue;
                        }
                        let ran = ran(submission.await);
                        assert_eq!(ran.outputs, bench.expected(&input));
                        answered += 1;
                    }
                    answered
                })
            })
            .collect();
        let mut answered = 0;
        for caller in callers {
            answered += caller.await.unwrap();
        }
        assert_eq!(answered, 16 * 51);
        assert_eq!(bench.device.occupancy().1, 0);
    }
}
