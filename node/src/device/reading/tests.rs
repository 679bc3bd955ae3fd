//! Texts on their way to a device: read once, refused alone, given back as they came.

use std::path::PathBuf;
use std::time::Duration;

use paceline_models::{CpuEngine, Engine, ModelSource, warm_up};
use paceline_protocol::{Criticality, ReplicaId, TenantId};

use super::*;
use crate::clock::Clock;
use crate::device::{Attachment, End, Handle, Loaded, options};
use crate::record::Records;
use crate::telemetry::metrics::Metrics;

fn encoder(name: &str) -> Arc<dyn LoadedModel> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("../models/testdata/encoder").join(name);
    let files = std::fs::read_dir(folder).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name()?.to_str()?.to_owned();
        path.is_file()
            .then(|| (name, std::fs::read(&path).unwrap().into()))
    });
    let source = ModelSource::from_files(files);
    CpuEngine::new(1).load(&source).unwrap()
}

struct Bench {
    device: Handle,
    clock: Clock,
}

impl Bench {
    fn new() -> Self {
        let clock = Clock::start();
        let (lanes, metrics) = ((1, Threads::Own), Metrics::new().device());
        let device = Handle::start(lanes, clock, metrics, &Records::default()).unwrap();
        Self { device, clock }
    }

    fn attach(&self, model: &Arc<dyn LoadedModel>) -> Attachment {
        let warm_up = warm_up(&**model).unwrap();
        self.device.attach(Loaded {
            replica: ReplicaId(1),
            model: model.clone(),
            options: options(&**model, &warm_up),
            statistics: Arc::default(),
            suspects: Arc::default(),
            on_death: Arc::new(|reason| panic!("{reason}")),
        })
    }

    fn work(&self, batcher: BatcherId, texts: &[&[u8]]) -> Work {
        let inputs = vec![Tensor::from_byte_strings(texts)];
        Work {
            batcher,
            rows: texts.len() as u32,
            bytes: inputs[0].data().len() as u64,
            inputs,
            deadline: self.clock.now() + Duration::from_secs(30),
            criticality: Criticality::default(),
            tenant: TenantId::DEFAULT,
            is_second: false,
            reading: Default::default(),
        }
    }
}

#[tokio::test]
async fn texts_are_answered_whichever_thread_reads_them_and_hostile_ones_are_refused_alone() {
    let (bench, model) = (Bench::new(), encoder("bert"));
    let attachment = bench.attach(&model);
    let long = "the cat sat on the mat ".repeat(40);
    let texts: [&[u8]; 4] = [b"a cat", b"\xff\xfe", long.as_bytes(), b"a mat"];
    let works = texts.map(|text| bench.work(attachment.batcher(), &[text]));
    assert!(is_short(&works[0].inputs) && !is_short(&works[2].inputs));
    let submissions = works.map(|work| bench.device.submit(work));
    for (text, submission) in texts.iter().zip(submissions) {
        match submission.await {
            End::Ran(ran) => {
                let inputs = [Tensor::from_byte_strings(&[*text])];
                let alone = model.run(&paceline_models::Batch::new(&[&inputs])).unwrap();
                assert_eq!(ran.outputs, alone[0]);
            }
            End::Refused(failure) => {
                assert_eq!(*text, b"\xff\xfe");
                assert_eq!(failure.code, ErrorCode::InputValues);
                assert!(failure.message.contains("row 0"), "{failure}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_cannot_be_served_here_comes_back_as_it_was_sent() {
    let (bench, model) = (Bench::new(), encoder("bert"));
    let attachment = bench.attach(&model);
    let batcher = attachment.batcher();
    let (work, sent) = (
        bench.work(batcher, &[b"a cat"]),
        bench.work(batcher, &[b"a cat"]),
    );
    let reader = bench.device.shared.readers.of(batcher).unwrap();
    let Ok(Outcome::Waits(read)) = reader.read(&work.inputs, work.reading) else {
        panic!("it is read");
    };
    let packed = read.packed.as_ref().unwrap();
    assert_eq!(Some(u64::from(read.tokens)), model.tokens(packed));
    assert_ne!(packed, &work.inputs);
    // Meanwhile another model got the queue: it would take the tokens for its own.
    drop(attachment);
    let other = bench.attach(&encoder("roberta"));
    assert_eq!(other.batcher(), batcher);
    let (receiver, _) = bench.device.enqueue(work, read);
    let End::Dropped(why, inputs) = receiver.await.unwrap() else {
        panic!("it was read by another model");
    };
    assert_eq!(why, paceline_core::batcher::DropReason::Gone);
    assert_eq!(inputs, sent.inputs);
}

#[tokio::test]
async fn a_device_whose_models_read_nothing_looks_no_further() {
    let (bench, model) = (Bench::new(), encoder("bert"));
    let readers = &bench.device.shared.readers;
    assert!(readers.of(BatcherId(0)).is_none());
    let attachment = bench.attach(&model);
    assert!(readers.of(attachment.batcher()).is_some());
    assert!(readers.of(BatcherId(7)).is_none());
    drop(attachment);
    assert_eq!(readers.count.load(Ordering::Acquire), 0);
}

#[test]
fn a_batch_has_the_tokens_of_the_full_one_that_was_measured_or_of_a_longest_text() {
    let model = encoder("bert");
    let mut warm_up = warm_up(&*model).unwrap();
    let [one, full] = warm_up.tokens.unwrap();
    assert_eq!(full, one * warm_up.rows);
    let longest = model.tokens_max().unwrap();
    assert_eq!(options(&*model, &warm_up).tokens_max, full.max(longest));
    // What was measured is of this moment; here is what the fit is made of.
    let nanos = |tokens| 50_000 + 1_000 * u64::from(tokens);
    (warm_up.one_row_ns, warm_up.full_batch_ns) = (nanos(one), nanos(full));
    let cost = options(&*model, &warm_up).cost;
    assert_eq!(
        (cost.batch_nanos(full), cost.batch_nanos(100)),
        (nanos(full), 150_000)
    );
    (warm_up.rows, warm_up.tokens) = (1, Some([one, one]));
    assert_eq!(options(&*model, &warm_up).tokens_max, longest);
}
